"""`jaxcoder bench metrics`: all metrics of an evaluation, streamed, against scikit-learn.

Probabilities are drawn batch by batch and never held; contacts have a dozen gold codes, of which a
few are outside the label space. The stream takes the way of `jaxcoder evaluate`, from the batch to
the tables, in a process of its own whose memory is watched; the time of the drawing, measured in
the same run, is taken off. Full size: --contacts 270000.

scikit-learn has the same probabilities as whole matrices, of as many contacts as it can hold, and
computes what it knows of metrics.json: F1, precision, recall, exact match, Jaccard, average
precision by contact, and both areas under the curve. There the probabilities are those of the
grid's thresholds, at which the streamed areas are exact. torchmetrics stands beside where it is
installed. These times are of the CPU, all threads together, which other work does not stretch.
"""

import copy
import functools
import importlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcoder import entry, sharding, split_pass
from jaxcoder.bench.footprint import measure
from jaxcoder.errors import UserError
from jaxcoder.metrics import grid
from jaxcoder.metrics.summary import Summary, summarise
from jaxcoder.scorer import HostBatch, Score

_GOLD, _SLOTS, _MISSING = 12, 40, 50  # gold codes a contact, slots for them, share outside: 1 / 50
_THRESHOLD = 0.3
_GIB = 2**30


def main(argv: Sequence[str]) -> None:
    """Prints time and memory of the stream, and its ratio to the others at equal results."""
    parser = entry.Parser(prog="jaxcoder bench metrics", description=__doc__)
    parser.add_argument("--contacts", type=int, default=4096, help="streamed; full size: 270000")
    parser.add_argument("--labels", type=int, default=8000, help="L")
    parser.add_argument("--batch", type=int, default=64, help="B")
    parser.add_argument("--compared", type=int, default=1024, help="contacts of the comparison")
    options = parser.parse_args(argv)
    for name, least in (("contacts", 1), ("labels", 10 * _GOLD), ("batch", 1), ("compared", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} {getattr(options, name)}: expected at least {least}")
    shape = options.labels, options.batch
    full = measure(_stream, options.contacts, *shape)
    drawing, seconds = full.result
    print(f"{options.contacts:,} contacts × {options.labels:,} codes, streamed:")
    print(
        f"  metrics          {seconds:8.1f} s   {seconds / options.contacts * 1e6:8.0f} µs/contact"
    )
    print(f"  drawing scores   {drawing:8.1f} s   (not counted)")
    print(f"  peak memory      {full.peak / _GIB:8.2f} GiB, JAX and the drawing included")
    _compare(options.compared, *shape)


class _Cohort:
    """Contacts whose batches are drawn from a seed, the same each time."""

    def __init__(self, contacts: int, labels: int, batch: int, on_grid: bool = False) -> None:
        mesh = sharding.make_mesh(devices=jax.devices()[:1])
        self.rows = sharding.batch_sharding(mesh, sharding.ShardingRules())
        self.contacts, self.labels, self.batch = contacts, labels, batch
        edges = jnp.asarray(grid.threshold_grid(labels, _THRESHOLD))

        @jax.jit
        def draw(seed: jax.Array, labels_BxK: jax.Array) -> tuple[jax.Array, jax.Array]:
            # The generator that a CPU is fastest with: it is to be a small part of the time.
            key = jax.random.key(seed, impl="unsafe_rbg")
            z_BxL = 14 * jax.random.uniform(key, (batch, labels)) - 16
            rows_Bx1 = jnp.arange(batch)[:, None]
            rise = 14 * jax.random.uniform(jax.random.fold_in(key, 1), labels_BxK.shape)
            rise = jnp.where(labels_BxK >= 0, rise, 0)
            p_BxL = jax.nn.sigmoid(z_BxL.at[rows_Bx1, jnp.maximum(labels_BxK, 0)].add(rise))
            if on_grid:
                p_BxL = edges[jnp.searchsorted(edges, p_BxL, side="right") - 1]
            return p_BxL, -jnp.log1p(-p_BxL[:, 0])

        self._draw = draw

    def first(self) -> "_Cohort":
        """Its first batch, with the same compiled drawing."""
        one = copy.copy(self)
        one.contacts = min(self.contacts, self.batch)
        return one

    def batches(self) -> Iterator[HostBatch]:
        """Batches as `evaluate` has them; codes are as unlike in frequency as real ones."""
        rng = np.random.default_rng(0)
        for number, start in enumerate(range(0, self.contacts, self.batch)):
            rank = np.sort((self.labels ** rng.random((self.batch, _GOLD))).astype(np.int32) - 1)
            rank[:, 1:][rank[:, 1:] == rank[:, :-1]] = -1  # each once
            labels = np.full((self.batch, _SLOTS), -1, np.int32)
            labels[:, :_GOLD] = np.sort(rank)[:, ::-1]  # −1 at the end
            index = np.arange(start, start + self.batch, dtype=np.int32)
            real = index < self.contacts
            yield {
                "labels": labels,
                "missing": (rng.random(self.batch) < _GOLD / _MISSING).astype(np.int32),
                "_mask": real,
                "index": np.where(real, index, -1),
                "seed": np.asarray(number, np.int32),
            }

    @property
    def score(self) -> Score:
        return lambda batch: self._draw(batch["seed"], batch["labels"])

    def evaluate(self) -> Summary:
        """What `jaxcoder evaluate` computes of the split."""
        codes = split_pass.SplitCodes(np.ones(self.labels, bool), {})
        totals = split_pass.gather(
            self.score, self.batches(), codes, self.rows, threshold=_THRESHOLD
        )
        names = [f"{label:05}" for label in range(self.labels)]
        outside = int(totals.documents.counts[3])
        return summarise(
            totals,
            codes=names,
            descriptions=names,
            missing={"outside": outside},
            threshold=_THRESHOLD,
        )

    def draw(self) -> None:
        """The same without metrics."""
        for _, _, probabilities_BxL, _ in split_pass.scored(self.score, self.batches(), self.rows):
            probabilities_BxL.block_until_ready()


def _timed(
    work: Callable[[], Any], clock: Callable[[], float] = time.process_time
) -> tuple[float, Any]:
    started = clock()
    result = work()
    return clock() - started, result


def _stream(contacts: int, labels: int, batch: int) -> tuple[float, float]:
    """Seconds of the drawing, and of the metrics without it; compiled before."""
    cohort = _Cohort(contacts, labels, batch)
    cohort.first().evaluate()
    cohort.first().draw()
    whole, _ = _timed(cohort.evaluate, time.perf_counter)
    drawing, _ = _timed(cohort.draw, time.perf_counter)
    return drawing, whole - drawing


def _compare(contacts: int, labels: int, batch: int) -> None:
    cohort = _Cohort(contacts, labels, batch, on_grid=True)
    cohort.first().evaluate()
    whole, summary = _timed(cohort.evaluate)
    drawing, _ = _timed(cohort.draw)
    ours = whole - drawing
    scores, gold = np.zeros((contacts, labels), np.float32), np.zeros((contacts, labels), bool)
    absent = np.zeros(contacts, int)
    for each, placed, p_BxL, _ in split_pass.scored(cohort.score, cohort.batches(), cohort.rows):
        mine = each["_mask"]
        rows = each["index"][mine]
        scores[rows], absent[rows] = np.asarray(p_BxL)[mine], np.asarray(placed["missing"])[mine]
        for row, ids in zip(rows, each["labels"][mine], strict=True):
            gold[row, ids[ids >= 0]] = True
    each_us = ours / contacts * 1e6
    print(f"{contacts:,} contacts × {labels:,} codes, streamed {each_us:.0f} CPU µs/contact:")
    for name, compute in (("sklearn", _scikit_learn), ("torchmetrics", _torchmetrics)):
        if importlib.util.find_spec(name) is None:
            print(f"  {name:<13} is not installed")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of codes without contacts
            seconds, found = _timed(functools.partial(compute, scores, gold, absent))
        off = {key: abs(value - summary.metrics[key]) for key, value in found.items()}
        worst = max(off, key=lambda key: off[key])
        print(
            f"  {name:<13}{seconds / contacts * 1e6:8.0f} CPU µs/contact, {seconds / ours:.0f} "
            f"times ours; {len(off)} metrics, differ by at most {off[worst]:.0e} ({worst})"
        )


def _scikit_learn(scores: np.ndarray, gold: np.ndarray, absent: np.ndarray) -> dict[str, float]:
    """The metrics of metrics.json that it has, from [N, L] matrices."""
    metrics = importlib.import_module("sklearn.metrics")
    # Codes outside the label space are one column, never predicted.
    whole = np.concatenate([gold, (absent > 0)[:, None]], axis=1)
    predicted = np.concatenate([scores > np.float32(_THRESHOLD), np.zeros_like(whole[:, :1])], 1)
    options = {"zero_division": 0.0}
    occurring = np.flatnonzero(whole.any(0))
    both = np.flatnonzero(gold.any(0) & ~gold.all(0))
    ranked = np.concatenate([scores, np.full((len(scores), 1), -1, np.float32)], axis=1)
    coded = whole.any(1)
    return {
        "micro_f1": metrics.f1_score(whole, predicted, average="micro", **options),
        "micro_precision": metrics.precision_score(whole, predicted, average="micro", **options),
        "micro_recall": metrics.recall_score(whole, predicted, average="micro", **options),
        "macro_f1": metrics.f1_score(
            whole, predicted, average="macro", labels=occurring, **options
        ),
        "exact_match": metrics.accuracy_score(whole, predicted),
        "jaccard": metrics.jaccard_score(whole, predicted, average="samples", zero_division=1.0),
        "auc_micro": metrics.roc_auc_score(gold.ravel(), scores.ravel()),
        "auc_macro": metrics.roc_auc_score(gold[:, both], scores[:, both], average="macro"),
        "map": _average_precision(metrics, whole[coded], ranked[coded]),
    }


def _average_precision(metrics: Any, gold: np.ndarray, scores: np.ndarray) -> float:
    """Mean average precision by contact, where equal probabilities stand in the order of labels."""
    values = []
    for right, score in zip(gold, scores, strict=True):
        # Its own would take equals together; ranks keep them apart.
        rank = np.empty(len(score))
        rank[np.argsort(-score, kind="stable")] = np.arange(len(score), 0, -1)
        value = metrics.average_precision_score(right[:-1], rank[:-1]) if right[:-1].any() else 0.0
        values.append(value * right[:-1].sum() / right.sum())
    return float(np.mean(values))


def _torchmetrics(scores: np.ndarray, gold: np.ndarray, absent: np.ndarray) -> dict[str, float]:
    """Those that do not need codes outside the label space."""
    torch = importlib.import_module("torch")
    functional = importlib.import_module("torchmetrics.functional.classification")
    probabilities, targets = torch.from_numpy(scores), torch.from_numpy(gold.astype(np.int64))
    labels = gold.shape[1]
    each = functional.multilabel_auroc(probabilities, targets, labels, average="none").numpy()
    both = gold.any(0) & ~gold.all(0)
    micro = functional.multilabel_auroc(probabilities, targets, labels, average="micro")
    return {
        "micro_precision": float(
            functional.multilabel_precision(
                probabilities, targets, labels, threshold=_THRESHOLD, average="micro"
            )
        ),
        "auc_micro": float(micro),
        "auc_macro": float(each[both].mean()),
    }


if __name__ == "__main__":
    entry.run(main)
