"""Splits made by chance, and what plain NumPy says of them."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from jaxcoder import sharding
from jaxcoder.metrics import grid, statistics, summary
from jaxcoder.metrics import measures as measures_names


@dataclasses.dataclass
class Case:
    """A whole split as [N, L] matrices, which only a test may hold; M codes are never scored."""

    probabilities_NxL: np.ndarray
    gold_NxL: np.ndarray
    missing_NxM: np.ndarray
    loss_N: np.ndarray
    group_N: np.ndarray

    @property
    def gold_NxA(self) -> np.ndarray:
        return np.concatenate([self.gold_NxL, self.missing_NxM], axis=1)

    @property
    def scores_NxA(self) -> np.ndarray:
        """Probabilities with those of absent codes, which stand below everything."""
        below = np.full(self.missing_NxM.shape, -1.0, np.float32)
        return np.concatenate([self.probabilities_NxL, below], axis=1)

    def batches(self, size: int):
        """Rows as batches have them; padding rows would spoil everything if they counted."""
        contacts, labels = self.gold_NxL.shape
        slots = 20  # the same for all cases, which then compile once
        for start in range(0, contacts, size):
            rows = range(start, min(start + size, contacts))
            batch = {
                "probabilities": np.ones((size, labels), np.float32),
                "loss": np.full(size, 1e6, np.float32),
                "labels": np.tile(np.arange(slots, dtype=np.int32) % labels, (size, 1)),
                "missing": np.full(size, 7, np.int32),
                "mask": np.arange(size) < len(rows),
                "group": np.zeros(size, np.int32),
            }
            for place, row in enumerate(rows):
                ids = np.flatnonzero(self.gold_NxL[row])
                batch["probabilities"][place] = self.probabilities_NxL[row]
                batch["loss"][place] = self.loss_N[row]
                batch["labels"][place] = np.pad(ids, (0, slots - len(ids)), constant_values=-1)
                batch["missing"][place] = self.missing_NxM[row].sum()
                batch["group"][place] = self.group_N[row]
            yield batch

    def totals(
        self,
        rows: NamedSharding,
        batch: int = 8,
        threshold: float | None = None,
        decision: np.ndarray | None = None,
    ) -> statistics.Totals:
        return self.gather(rows, batch, threshold, decision)[0]

    def gather(
        self,
        rows: NamedSharding,
        batch: int,
        threshold: float | None,
        decision: np.ndarray | None = None,
    ) -> tuple[statistics.Totals, dict[str, np.ndarray]]:
        """The statistics, and the outcomes of the real rows as columns."""
        labels = self.gold_NxL.shape[1]
        if decision is None and threshold is not None:
            decision = np.full((1, 1), threshold, np.float32)
        accumulator = statistics.Accumulator(
            grid.threshold_grid(labels, threshold),
            labels,
            rows,
            decision=decision,
            occurring=self.gold_NxL.any(0),
            groups=3,
        )
        counts, measures = [], []
        for arrays in self.batches(batch):
            found = accumulator.update(*sharding.put_batch(arrays, rows).values())
            counts.append(np.asarray(found.counts)[arrays["mask"]])
            measures.append(np.asarray(found.measures)[arrays["mask"]])
        columns: dict[str, np.ndarray] = {}
        if counts:
            names = measures_names.OUTCOME_COUNTS
            columns |= zip(names, np.concatenate(counts).T, strict=True)
            names = measures_names.OUTCOME_MEASURES
            columns |= zip(names, np.concatenate(measures).T, strict=True)
        return accumulator.totals(), columns

    def summary(
        self,
        rows: NamedSharding,
        batch: int = 8,
        threshold: float | None = None,
        decision: np.ndarray | None = None,
        comparable_threshold: float | None = None,
    ) -> summary.Summary:
        labels = self.gold_NxL.shape[1]
        counts = self.missing_NxM.sum(0)
        return summary.summarise(
            self.totals(rows, batch, threshold, decision),
            codes=[f"A{label:02}" for label in range(labels)],
            descriptions=[f"disease {label}" for label in range(labels)],
            missing={f"Z{number:02}": int(count) for number, count in enumerate(counts) if count},
            threshold=threshold,
            decided=decision is not None,
            comparable_threshold=comparable_threshold,
        )


def random_case(seed: int, contacts: int = 45, labels: int = 30, ties: bool = True) -> Case:
    """Scores that know something, with ties; contacts without codes; codes without contacts."""
    rng = np.random.default_rng(seed)
    gold = rng.random((contacts, labels)) < rng.beta(0.6, 6, labels)
    gold[:, 3] = False
    gold[::9] = False
    missing = rng.random((contacts, 5)) < 0.1
    missing[:, 4] = False
    missing[::9] = False
    scores = 1 / (1 + np.exp(-(rng.normal(-2, 1.5, (contacts, labels)) + 2.5 * gold)))
    if ties:
        scores = np.round(scores, 1)
    return Case(
        scores.astype(np.float32),
        gold,
        missing,
        rng.random(contacts).astype(np.float32),
        rng.integers(0, 3, contacts),
    )


@pytest.fixture(scope="session")
def rows() -> NamedSharding:
    """Rows on one device."""
    return sharding.batch_sharding(
        sharding.make_mesh(devices=jax.devices()[:1]), sharding.ShardingRules()
    )


@pytest.fixture(params=[0, 1, 2])
def case(request) -> Case:
    return random_case(request.param, ties=request.param != 2)


@pytest.fixture
def make_case():
    return random_case
