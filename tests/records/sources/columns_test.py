import datetime
import os
import subprocess
import sys

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxcoder.errors import UserError
from jaxcoder.records.sources import columns, open_source

CONTACTS = "contact_id,patient_id,start,end,specialty,age,sex\n"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("1.0::DOUBLE", "1"),
        ("-7.0::DOUBLE", "-7.0"),
        ("1.5::DOUBLE", "1.5"),
        ("999999999999999::DOUBLE", "999999999999999"),
        ("9007199254740993::DOUBLE", "9007199254740992.0"),  # another's id: left unlike any
        ("123456789::FLOAT", "123456790.0"),
        ("'1.0'", "1.0"),  # as text it may be meant
        ("'007'", "007"),
        ("7::BIGINT", "7"),
        ("''", None),
        ("NULL", None),
    ],
)
def test_ids_are_text_and_floats_of_whole_numbers_integers(value, read):
    table = duckdb.connect().sql(f'SELECT {value} AS "an id"')
    assert table.project(columns.typed(columns.ID, "an id")).fetchall() == [(read,)]


def test_a_file_without_a_header_is_refused_without_its_first_row(tmp_path):
    (tmp_path / "contacts.csv").write_text(CONTACTS)
    (tmp_path / "notes.csv").write_text("02,2020-01-02,secret,secret text\n")
    with pytest.raises(UserError, match=r"found none of the names expected") as caught:
        list(open_source("tables", tmp_path, {}).contacts("train"))
    assert "secret" not in str(caught.value)


def test_times_with_a_zone_are_told_in_utc_wherever_the_machine_stands(tmp_path):
    (tmp_path / "contacts.csv").write_text(
        CONTACTS + "1,p,2020-07-01T00:30+02:00,2020-07-01 10:00,,,\n"
    )
    instant = datetime.datetime(
        2020, 7, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2))
    )
    notes = {
        "contact_id": ["1", "1"],
        "time": pa.array([instant, None], pa.timestamp("us", tz="Europe/Copenhagen")),
        "kind": ["x", "y"],
        "text": ["", ""],
    }
    parquet.write_table(pa.table(notes), tmp_path / "notes.parquet")
    code = f"""
from jaxcoder.records.sources import open_source
source = open_source("tables", {str(tmp_path)!r}, {{}})
(contact,) = source.contacts(*source.splits)
print(contact.start, contact.end, *(note.time for note in contact.notes))
"""
    for zone in ("America/New_York", "Asia/Tokyo"):
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "TZ": zone},
        )
        assert result.stdout.split() == [
            "2020-06-30T22:30:00",
            "2020-07-01T10:00:00",  # without a zone, as it is
            "2020-07-01T10:00:00",
        ]
