"""`jaxcoder bench input`: from token records on disk to ready batches, without a model.

The records are made up (tokens as frequent as words are, lengths even from half of --tokens to one
and a half times that, a dozen labels, six spans), written as `jaxcoder tokens` writes them and read
from the disk's cache in random order, as training does:

    files      the floor: every byte of the files, read in order
    copy       the floor: tokens that lie in memory, copied into a batch
    stored     records in random order, as bytes
    TFDS       the same, read by plain TFDS
    records    decoded, as batches want them
    batches    what `jaxcoder train` takes: planned, read, decoded, put together in its thread

A core's rate is by CPU time of all threads, so that what else the machine does counts little. Runs
alternate, and the best of each counts.
"""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from jaxcoder import entry
from jaxcoder.batches import BatchOptions, TrainingPlan
from jaxcoder.errors import UserError
from jaxcoder.records import writer
from jaxcoder.records.codes import LabelSpace
from jaxcoder.sharding import Share
from jaxcoder.tokens.data import (
    LABEL_SPACE,
    REPORT,
    TokenData,
    features,
    pack_characters,
    tokens_folder,
)

_LABELS, _CODES, _SPANS, _VOCABULARY = 1767, 12, 6, 8000
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class MadeUp:
    """The records of a part, whose sizes are known before; picklable.

    Attributes:
      lengths: int [N], tokens of each.
    """

    lengths: np.ndarray

    def __call__(self, seed: int) -> writer.Stream:
        """The records."""
        rng = np.random.default_rng(seed)
        often = 1 / np.arange(1, _VOCABULARY + 1)
        for number, length in enumerate(self.lengths.tolist()):
            places = np.cumsum(rng.integers(1, 8, 2 * length), dtype=np.int32).reshape(-1, 2)
            labels = np.sort(rng.choice(_LABELS, _CODES, replace=False)).astype(np.int32)
            first = rng.integers(0, length - 1, _SPANS)
            spans = np.stack([labels[:_SPANS], first, first + 1, 0 * first], axis=1)
            yield {
                "tokens": rng.choice(_VOCABULARY, length, p=often / often.sum()).astype(np.int32),
                "labels": labels,
                "roles": np.zeros(_CODES, np.uint8),
                "missing": np.int32(0),
                "missing_codes": np.array([], object),
                "contact_id": f"c{number:08d}",
                "patient_id": f"p{number:08d}",
                "specialty": "medicine",
                "sex": "F",
                "kind": "inpatient",
                "age": np.float32(50),
                "year": np.int32(2020),
                "notes": np.int32(2),
                "evidence": spans.astype(np.int32),
                "characters": pack_characters(places, np.zeros((1, 5), np.int32)),
            }


def write(data_dir: epath.PathLike, lengths: np.ndarray) -> TokenData:
    """Writes token records of these lengths, and opens them."""
    path = tokens_folder(data_dir, "made_up")

    def finish(folder: epath.Path, _: Any) -> dict[str, Any]:
        space = LabelSpace(tuple(f"A{number:04d}" for number in range(_LABELS)))
        space.save(folder / LABEL_SPACE)
        sizes = np.stack([lengths, np.full_like(lengths, _CODES), np.full_like(lengths, _SPANS)])
        with (folder / "sizes_train.npy").open("wb") as file:
            np.save(file, sizes.T.astype(np.int32), allow_pickle=False)
        return {"name": path.parent.name, "label_space": space.hash}

    writer.write(path, features, {"train": [0]}, MadeUp(lengths), finish, REPORT)
    return TokenData(path)


def ways(data: TokenData) -> dict[str, Callable[[], object]]:
    """From the name of a way through all records to what goes it."""
    files = [data.path / name for name in data.report["files"]]
    builder = tfds.builder_from_directory(data.path)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    stored = builder.as_data_source("train", deserialize_method=raw)
    plain = builder.as_data_source("train")
    records = data.batch_source("train")
    plan = TrainingPlan(data, BatchOptions(documents=_BATCH), seed=0)
    order = [item for planned in plan.epoch(0) for item in planned.items.tolist() if item >= 0]
    tokens = [record["tokens"].copy() for record in records]
    longest = max(map(len, tokens))

    def copy() -> None:
        for start in range(0, len(order), _BATCH):
            batch = np.zeros((_BATCH, longest), np.int32)
            for place, item in enumerate(order[start : start + _BATCH]):
                batch[place, : len(tokens[item])] = tokens[item]

    def batches() -> None:
        for _ in itertools.islice(plan.batches(0, Share()), plan.steps_per_epoch):
            pass

    return {
        "files": lambda: [path.read_bytes() for path in files],
        "copy": copy,
        "stored": lambda: [stored[item] for item in order],
        "TFDS": lambda: [plain[item] for item in order],
        "records": lambda: [records[item] for item in order],
        "batches": batches,
    }


def main(argv: Sequence[str]) -> None:
    """Prints records and tokens a second of each way, by CPU time and by the clock."""
    parser = entry.Parser(prog="jaxcoder bench input", description=__doc__)
    parser.add_argument("--records", type=int, default=4000, help="token records")
    parser.add_argument("--tokens", type=int, default=2000, help="of a record, on average")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each")
    wanted = parser.parse_args(argv)
    for name, least in (("records", _BATCH), ("tokens", 4), ("repeats", 1)):
        if getattr(wanted, name) < least:
            raise UserError(f"--{name} {getattr(wanted, name)}: expected at least {least}")
    rng = np.random.default_rng(0)
    lengths = rng.integers(wanted.tokens // 2, wanted.tokens * 3 // 2 + 1, wanted.records)
    with tempfile.TemporaryDirectory() as folder:
        data = write(folder, lengths)
        size = sum(data.report["files"].values())
        best: dict[str, tuple[float, float]] = {}
        for name, way in list(ways(data).items()) * wanted.repeats:
            clock, cpu = time.perf_counter(), time.process_time()
            way()
            took = time.process_time() - cpu, time.perf_counter() - clock
            best[name] = min(best.get(name, took), took)
    count, tokens = len(lengths), int(lengths.sum())
    print(
        f"{count:,} records of {tokens / count:,.0f} tokens, {size / count:,.0f} bytes each on disk"
    )
    print(f"{'':<10}{'records/s a core':>18}{'tokens/s a core':>18}{'us':>8}{'by the clock':>14}")
    for name, (cpu, clock) in best.items():
        print(
            f"{name:<10}{count / cpu:>18,.0f}{tokens / cpu:>18,.0f}{cpu / count * 1e6:>8.1f}"
            f"{count / clock:>14,.0f}"
        )


if __name__ == "__main__":
    entry.run(main)
