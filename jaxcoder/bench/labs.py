"""`jaxcoder bench labs`: a large laboratory relation becomes contacts; time and peak memory.

`tables` has 20 rows a contact in Parquet, in an order far from that of the contacts. `mimic4` is a
stand-in for MIMIC-IV's size: labevents as gzip CSV, with d_labitems, a quarter of the rows outside
any admission, by the real column names.
"""

import csv
import gzip
import pathlib
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from jaxcoder import entry
from jaxcoder.bench.footprint import measure
from jaxcoder.records.sources import open_source

_AT_A_TIME = 1_000_000
_A_CONTACT = 20


def read(source: str, folder: str) -> tuple[int, int, int]:
    """Streams all contacts; returns contacts, laboratory rows in them, rows of no contact."""
    opened = open_source(source, folder)
    contacts = labs = 0
    for split in opened.splits:
        for contact in opened.contacts(split):
            contacts += 1
            labs += len(contact.labs)
    lost = sum(count for reason, count in opened.dropped("").items() if reason.startswith("labs: "))
    return contacts, labs, lost


def write_tables(folder: str, rows: int) -> None:
    """Writes contacts.parquet and labs.parquet."""
    count = rows // _A_CONTACT
    ids = np.char.mod("c%08d", np.arange(count))
    empty = {
        name: pa.nulls(count, pa.string()) for name in ("start", "end", "specialty", "age", "sex")
    }
    contacts = pa.table({"contact_id": ids, "patient_id": ids, **empty})
    path = pathlib.Path(folder)
    parquet.write_table(contacts, path / "contacts.parquet")
    writer = None
    for places, times, values in _drawn(rows, count):
        size = len(places)
        labs = pa.table(
            {
                "contact_id": pa.array(ids[places]),
                "time": pa.array(times),
                "code": pa.array(np.char.mod("%d-1", values % 500)),
                "name": pa.array(np.char.mod("analyte %d", values % 500)),
                "value": pa.array(np.char.mod("%d", values)),
                "unit": pa.array(["mmol/L"] * size),
                "low": pa.array(np.full(size, 3.5)),
                "high": pa.array(np.full(size, 6.25)),
                "flag": pa.array(np.where(values > 900, "H", "")),
            }
        )
        writer = writer or parquet.ParquetWriter(path / "labs.parquet", labs.schema)
        writer.write_table(labs)
    if writer:
        writer.close()


def write_mimic4(folder: str, rows: int) -> None:
    """Writes hosp/ of a MIMIC-IV without notes."""
    count = rows * 3 // 4 // _A_CONTACT
    path = pathlib.Path(folder) / "hosp"
    path.mkdir()
    stays = range(count)

    def write(name: str, header: str, lines: Iterable[Iterable[object]]) -> None:
        with gzip.open(path / f"{name}.csv.gz", "wt", compresslevel=1, newline="") as file:
            table = csv.writer(file)
            table.writerow(header.split(","))
            table.writerows(lines)

    subjects = count // 3 + 1
    write(
        "patients",
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
        ((n, "FM"[n % 2], 20 + n % 70, 2150, "2011 - 2013", "") for n in range(subjects)),
    )
    write(
        "admissions",
        "subject_id,hadm_id,admittime,dischtime,admission_type",
        ((n // 3, 20_000_000 + n, "2151-01-01 08:00:00", "2151-01-09 08:00:00", "") for n in stays),
    )
    write(
        "diagnoses_icd",
        "subject_id,hadm_id,seq_num,icd_code,icd_version",
        ((n // 3, 20_000_000 + n, 1, f"I1{n % 10}", 10) for n in stays),
    )
    write(
        "d_labitems",
        "itemid,label,fluid,category",
        ((50_000 + n, f"analyte {n}", "Blood", "Chemistry") for n in range(500)),
    )
    header = (
        "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,"
        "value,valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments\n"
    )
    with gzip.open(path / "labevents.csv.gz", "wt", compresslevel=1) as file:
        file.write(header)
        before = 0
        for places, times, values in _drawn(rows, count):
            texts = np.datetime_as_string(times, unit="s")
            file.writelines(
                f"{before + n},{place // 3},{20_000_000 + place if n % 4 else ''},{n},"
                f"{50_000 + value % 500},,{time.replace('T', ' ')},,{value},{value},mmol/L,3.5,"
                f"6.25,{'abnormal' if value > 900 else ''},ROUTINE,\n"
                for n, (place, time, value) in enumerate(
                    zip(places.tolist(), texts.tolist(), values.tolist(), strict=True)
                )
            )
            before += len(places)


def _drawn(rows: int, contacts: int) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Contacts, times and values of all rows, some at a time."""
    rng = np.random.default_rng(0)
    first = np.datetime64("2151-01-01T08:00:00")
    for start in range(0, rows, _AT_A_TIME):
        size = min(_AT_A_TIME, rows - start)
        times = first + rng.integers(0, 8 * 86_400, size).astype("timedelta64[s]")
        yield rng.integers(0, contacts, size), times, rng.integers(0, 1000, size)


def main(argv: Sequence[str]) -> None:
    """Prints time and peak memory."""
    parser = entry.Parser(prog="jaxcoder bench labs", description=__doc__)
    parser.add_argument("--source", choices=("tables", "mimic4"), default="tables")
    parser.add_argument("--rows", type=int, default=20_000_000, help="of laboratory results")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        write = write_tables if arguments.source == "tables" else write_mimic4
        measure(write, folder, arguments.rows)
        size = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("lab*"))
        took = measure(read, arguments.source, folder)
    contacts, labs, lost = took.result
    print(
        f"{arguments.rows:,} rows in {size / 2**20:,.0f} MiB: {took.seconds:,.0f} s, peak "
        f"{took.peak / 2**20:,.0f} MiB; {labs:,} rows in {contacts:,} contacts, {lost:,} in none"
    )


if __name__ == "__main__":
    entry.run(main)
