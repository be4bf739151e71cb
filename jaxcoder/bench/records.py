"""`jaxcoder bench records`: how fast contact records are written and read, and built from tables.

First in two layouts, by CPU time: `nested` keeps notes, medications, labs and codes as TFDS
`Sequence` features, a list a column; `rows` is the layout of `records/contact_features.py`, a
matrix of text a relation. Both start from and end in `Contact`. Then the whole way from Parquet
tables to contact records, by wall time on one core and on all.
"""

import dataclasses
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from jaxcoder import entry
from jaxcoder.bench import footprint
from jaxcoder.records import builder, contact_features, store, writer
from jaxcoder.records.export import write_tables
from jaxcoder.records.runner import Local
from jaxcoder.records.schema import Code, Contact, Lab, Medication, Note
from jaxcoder.records.sources import open_source

_REPORT = "report.json"
_ROWS: dict[str, type] = {"notes": Note, "medications": Medication, "labs": Lab, "codes": Code}
_SCALARS = ("contact_id", "patient_id", "start", "end", "specialty", "sex")


def contact(number: int) -> Contact:
    """A contact of 2 notes, 500 words in all, 6 medications, 20 laboratory results and 5 codes."""
    rng = random.Random(number)
    when = "2020-01-01T08:00:00"
    words = ["".join(rng.choices("aeiourstlmnpd", k=rng.randint(2, 9))) for _ in range(500)]
    return Contact(
        contact_id=f"contact-{number}",
        patient_id=f"patient-{number}",
        start=when,
        end=when,
        specialty="cardiology",
        age=50.0,
        sex="F",
        notes=tuple(Note(" ".join(half), "progress", when) for half in (words[:250], words[250:])),
        medications=tuple(Medication("A01BC02", words[i], "5 mg", "oral", when) for i in range(6)),
        labs=tuple(
            Lab("2345-7", words[i], str(i), "mmol/L", 3.5, 6.25, "H", when) for i in range(20)
        ),
        codes=tuple(Code(f"I1{i}.9", "icd10", "secondary", i + 1) for i in range(5)),
    )


def write_extract(folder: str, contacts: int) -> None:
    """Writes the tables of so many contacts, three a patient."""
    known = [contact(number) for number in range(min(contacts, 1000))]

    def made() -> Iterator[tuple[str, Contact]]:
        for number in range(contacts):
            yield (
                "",
                dataclasses.replace(
                    known[number % len(known)],
                    contact_id=f"c{number:09d}",
                    patient_id=f"p{number // 3:09d}",
                ),
            )

    write_tables(made(), folder)
    (epath.Path(folder) / "splits.parquet").unlink()  # by hash


def nested_features() -> tfds.features.FeaturesDict:
    """The features of the layout `nested`."""
    kinds = {"low": np.float32, "high": np.float32, "rank": np.int32}
    text = tfds.features.Text
    rows = {
        key: tfds.features.Sequence(
            {field.name: kinds.get(field.name, text()) for field in dataclasses.fields(row)}
        )
        for key, row in _ROWS.items()
    }
    return tfds.features.FeaturesDict(
        {**{key: text() for key in _SCALARS}, "age": np.float32, **rows}
    )


def nested_encode(contact: Contact) -> dict[str, Any]:
    """A contact in the layout `nested`."""
    record = {key: getattr(contact, key) for key in (*_SCALARS, "age")}
    for key, row in _ROWS.items():
        names = [field.name for field in dataclasses.fields(row)]
        record[key] = [
            {name: getattr(item, name) for name in names} for item in getattr(contact, key)
        ]
    return record


def nested_decode(record: dict[str, Any]) -> Contact:
    """The inverse of `nested_encode`."""
    values: dict[str, Any] = {key: record[key].decode() for key in _SCALARS}
    for key, row in _ROWS.items():
        columns = [
            [
                value.decode() if isinstance(value, bytes) else value.item()
                for value in record[key][field.name]
            ]
            for field in dataclasses.fields(row)
        ]
        values[key] = tuple(row(*items) for items in zip(*columns, strict=True))
    return Contact(**values, age=float(record["age"]))


def measure(
    contacts: Sequence[Contact],
    features: Callable[[], tfds.features.FeaturesDict],
    encode: Callable[[Contact], dict[str, Any]],
    decode: Callable[[dict[str, Any]], Contact],
) -> tuple[float, float, float]:
    """Writes and reads contacts in a temporary folder.

    Returns:
      Contacts written and contacts read a second of CPU time (wall time says more about the
      neighbours), bytes a contact on disk.
    """

    def stream(part: Sequence[Contact]) -> writer.Stream:
        yield from map(encode, part)

    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        path = f"{folder}/bench/layout/1.0.0"
        writer.write(path, features, {"train": [contacts]}, stream, lambda *_: {}, _REPORT)
        written = time.process_time() - started
        data = store.Store(path, _REPORT, lambda _: "run again")
        records = data.split("train", decode)
        started = time.process_time()
        same = all(record == contact for record, contact in zip(records, contacts, strict=True))
        read = time.process_time() - started
        size = sum(data.report["files"].values())
    if not same:
        raise RuntimeError("what was read is not what was written")
    return len(contacts) / written, len(contacts) / read, size / len(contacts)


def build_from_tables(folder: str, cores: int) -> int:
    """Builds contact records of the tables below a folder; returns how many."""
    source = open_source("tables", f"{folder}/extract", {"name": f"cores{cores}"})
    data = builder.build(source, folder, runner=Local(cores), say=lambda line: None)
    return sum(len(data.split(split)) for split in data.splits)


def main(argv: Sequence[str]) -> None:
    """Prints contacts a CPU second, written and read, for both layouts."""
    parser = entry.Parser(prog="jaxcoder bench records", description=__doc__)
    parser.add_argument("--contacts", type=int, default=5000, help="of the layouts")
    parser.add_argument("--tables", type=int, default=100_000, help="contacts in the tables")
    arguments = parser.parse_args(argv)
    contacts = [contact(number) for number in range(arguments.contacts)]
    print(f"{'layout':<8}{'written/s':>12}{'read/s':>12}{'bytes':>10}")
    for name, layout in {
        "nested": (nested_features, nested_encode, nested_decode),
        "rows": (contact_features.features, contact_features.encode, contact_features.decode),
    }.items():
        written, read, size = measure(contacts, *layout)
        print(f"{name:<8}{written:>12,.0f}{read:>12,.0f}{size:>10,.0f}")
    print(f"{'cores':<8}{'contacts/s':>12}{'peak MiB':>12}")
    with tempfile.TemporaryDirectory() as folder:
        write_extract(f"{folder}/extract", arguments.tables)
        for cores in dict.fromkeys((1, len(os.sched_getaffinity(0)))):
            took = footprint.measure(build_from_tables, folder, cores)
            speed = took.result / took.seconds
            print(f"{cores:<8}{speed:>12,.0f}{took.peak / 2**20:>12,.0f}")


if __name__ == "__main__":
    entry.run(main)
