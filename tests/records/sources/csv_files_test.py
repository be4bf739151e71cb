import gzip

import duckdb
import pyarrow as pa
import pytest
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.sources import csv_files, open_source


def packed(content, codec):
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, codec) as out:
        out.write(content)
    return stream.getvalue().to_pybytes()


def rows(path):
    return duckdb.connect().sql(csv_files.query(epath.Path(path))).fetchall()


@pytest.mark.parametrize(("ending", "codec"), [(".gz", "gzip"), (".zst", "zstd")])
def test_compressed_files_are_read_and_cut_ones_refused(tmp_path, ending, codec):
    path = tmp_path / f"notes.csv{ending}"
    content = "\ufeffcontact_id;time;kind;text\n" + "".join(
        f"{i};;;å{i * i}\n" for i in range(50_000)
    )
    whole = packed(content.encode(), codec)
    path.write_bytes(whole)
    assert len(rows(path)) == 50_000
    assert rows(path)[3] == ("3", None, None, "å9")
    (tmp_path / "contacts.csv").write_text("contact_id,patient_id,start,end,specialty,age,sex\n")
    for length in (0, 100, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"{path}: .*(expected CSV|no header)") as caught:
            list(open_source("tables", tmp_path, {}).contacts("train"))
        assert "compressed as its name says and whole" in str(caught.value) or length == 0


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_line_ends_within_quotes_are_text(tmp_path, ending):
    path = tmp_path / "notes.csv"
    path.write_bytes(ending.join([b"id,text", b'1,"a\nb\r\nc"', b"2,d", b""]))
    assert rows(path) == [("1", "a\nb\r\nc"), ("2", "d")]


def test_a_column_without_a_name_is_passed_over(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text(",contact_id,text\n0,1,a\n1,2,b\n")  # as pandas writes its index
    table = duckdb.connect().sql(csv_files.query(epath.Path(path)))
    assert table.columns == ["column 1", "contact_id", "text"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "notes.csv: no header"),
        ("contact_id,tekst på dansk\n".encode("latin-1"), "notes.csv, row 1: is not UTF-8"),
        (
            "contact_id,text\n".encode("utf-16"),
            "notes.csv, row 1: is UTF-16; expected UTF-8; convert .*iconv -f UTF-16 ",
        ),
        (
            b"contact_id,text,Text \n",
            r"notes.csv: columns 2 and 3 have the same name 'text'; expected each once; rename",
        ),
        (b"secret note,x,secret note\n", "notes.csv: columns 1 and 3 have the same name; expected"),
    ],
)
def test_headers_are_checked(tmp_path, content, message):
    path = tmp_path / "notes.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        csv_files.query(epath.Path(path))
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


NOTE = b'1,,,"secret\nof two lines"\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            NOTE + "1,,,secret å\n".encode("latin-1"),
            r"row 3 \(the header is row 1\): is not UTF-8; expected that; convert .*iconv",
        ),
        (NOTE + b"1,,,secret,secret\n", r"row 3 .*: has 5 cells; expected 4, .*; quote cells"),
        (NOTE + b"1,,secret\n", r"row 3 .*: has 3 cells; expected 4"),
        (NOTE + b'1,,,"secret\n2,,,x\n', r"row 3 .*: has a quote that is not closed.* doubled"),
        (NOTE + b'1,,,"secret "word""\n', r"row 3 .*: has a quote that is not closed, or text"),
        (
            NOTE + b"1,,,secret\r\n2,,,x\n",
            r"notes\.csv\S*: lines end in more than one way \(LF, CR LF or CR\), as in line 4; "
            r"expected one; make it LF: `sed",
        ),
        (
            NOTE + b"1,,,sec\rret\n",
            r"notes\.csv\S*: lines end in more than one way \(LF, CR LF or CR\); expected one",
        ),
        (
            NOTE + b'1,,,"' + b"secret " * 2_500_000 + b'"\n',
            r"row 3 .*: is longer than 16 MB",
        ),
    ],
    ids=["latin-1", "more", "fewer", "open", "undoubled", "endings", "stray", "long"],
)
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_what_is_wrong_with_a_row_is_told_without_it(tmp_path, content, message, ending):
    (tmp_path / "contacts.csv").write_text(
        "contact_id,patient_id,start,end,specialty,age,sex\n1,p,,,,,\n"
    )
    content = b"contact_id,time,kind,text\n" + content
    (tmp_path / f"notes{ending}").write_bytes(
        gzip.compress(content, 1) if ending == ".csv.gz" else content
    )
    with pytest.raises(UserError, match=message) as caught:
        list(open_source("tables", tmp_path, {}).contacts("train"))
    told = str(caught.value)
    assert told.startswith(str(tmp_path / f"notes{ending}"))
    assert "\n" not in told and "secret" not in told and "Exception" not in told
