"""PostgreSQL: what is read from a database is what is read from the same tables as files.

JAXCODER_POSTGRES is the URI, without a password, of a database (PostgreSQL 15 or newer) in which
schemas and roles may be made, such as postgresql://me@127.0.0.1/test; the password in PGPASSWORD.
"""

import contextlib
import csv
import gc
import os
import pathlib
import secrets
import socket
import sys

import pyarrow as pa
import pytest

from jaxcoder.errors import UserError
from jaxcoder.records import builder
from jaxcoder.records.__main__ import main
from jaxcoder.records.data import contacts_folder, open_contacts
from jaxcoder.records.sources import open_source
from tests.records.sources.omop_test import cdm

URI = os.environ.get("JAXCODER_POSTGRES", "")
DRIVER = "adbc_driver_postgresql"
TYPES = {"vocabulary_id": "text", "relationship_id": "text"}
TYPES |= {"_datetime": "timestamp", "_date": "date", "_low": "numeric", "_high": "numeric"}
TYPES |= {"_id": "integer", "_id_1": "integer", "_id_2": "integer", "_of_birth": "integer"}


class Database:
    """A schema for one test, and how to write to it."""

    def __init__(self, cursor):
        self.schema, self._cursor = f"jaxcoder_{secrets.token_hex(4)}", cursor
        self.run(f"CREATE SCHEMA {self.schema}", f"SET search_path = {self.schema}")

    def uri(self, **parameters):
        mark = "&" if "?" in URI else "?"
        more = {"schema": self.schema} | parameters
        return URI + mark + "&".join(f"{key}={value}" for key, value in more.items())

    def run(self, *statements):
        for statement in statements:
            self._cursor.execute(statement)

    def load(self, folder):
        """Makes a table of each CSV file of a CDM, with the types of the CDM."""
        for path in sorted(folder.iterdir()):
            plain = {"quoting": csv.QUOTE_NONE} if path.stem.startswith("concept") else {}
            with open(path, newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file, delimiter="\t", **plain)
            name = path.stem.lower()
            columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
            self._cursor.adbc_ingest("texts", pa.table(columns), mode="create")
            typed = ", ".join(
                f"nullif({column}, '')::{TYPES[ending]} AS {column}"
                if (ending := next((each for each in TYPES if column.endswith(each)), ""))
                else column
                for column in header
            )
            self.run(f"CREATE TABLE {name} AS SELECT {typed} FROM texts", "DROP TABLE texts")


@pytest.fixture(scope="module")
def cohort():
    source = open_source("synthetic", None, {"patients": "25"})
    return [contact for split in source.splits for contact in source.contacts(split)]


@pytest.fixture
def database():
    if not URI:
        pytest.skip("needs a PostgreSQL server: its URI in the environment as JAXCODER_POSTGRES")
    dbapi = pytest.importorskip(f"{DRIVER}.dbapi")
    with dbapi.connect(URI, autocommit=True) as connection, connection.cursor() as cursor:
        made = Database(cursor)
        yield made
        gc.collect()  # DROP would wait for a transaction that a source keeps
        made.run("SET lock_timeout = '20s'", f"DROP SCHEMA {made.schema} CASCADE")


def contacts(source):
    return [(split, each) for split in source.splits for each in source.contacts(split)]


@pytest.mark.parametrize("codes", ["source", "mapped"])
def test_contacts_are_those_of_the_same_tables_as_files(tmp_path, cohort, database, codes):
    folder = cdm(tmp_path / "cdm", cohort)
    database.load(folder)
    files = open_source("omop", folder, {"codes": codes})
    tables = open_source("omop", database.uri(), {"codes": codes})
    found = contacts(tables)
    assert len(found) == len(cohort)
    assert any(contact.labs and contact.medications and contact.notes for _, contact in found)
    assert found == contacts(files)
    assert tables.dropped("") == files.dropped("") == {"notes: no contact_id": 1}


def test_views_of_the_five_relations_are_an_extract(database):
    database.run(
        "CREATE TABLE stays (id integer, who text, came timestamptz, place text)",
        "INSERT INTO stays VALUES (7, 'p', '2024-03-01 01:30+02', ''), (8, 'q', NULL, 'ward')",
        "CREATE TABLE given (id integer, code text)",
        "INSERT INTO given VALUES (7, 'DI109'), (8, 'DE119')",
        """CREATE VIEW contacts AS SELECT id AS contact_id, who AS patient_id, came AS start,
          NULL AS "end", place AS specialty, 61 AS age, 'F' AS sex FROM stays""",
        """CREATE VIEW "CODES" AS SELECT id AS "CONTACT_ID", code AS "CODE", 'sks' AS system,
          'primary' AS role, 1 AS rank FROM given""",
    )
    source = open_source("tables", database.uri(), {"shares": "1,0,0"})
    found = {contact.contact_id: contact for _, contact in contacts(source)}
    first, second = found["7"], found["8"]
    assert (first.start, first.specialty) == ("2024-02-29T23:30:00", "")
    assert [code.code for code in first.codes + second.codes] == ["I10.9", "E11.9"]
    assert (second.specialty, second.age, second.start) == ("ward", 61, "")


def state(database, **parameters):
    return open_source("omop", database.uri(**parameters)).identity["database"]


def test_the_identity_changes_when_a_row_below_a_view_does(tmp_path, cohort, database):
    database.load(cdm(tmp_path / "cdm", cohort))
    database.run(
        "ALTER TABLE note RENAME TO every_note",
        "CREATE VIEW note AS SELECT * FROM every_note WHERE visit_occurrence_id IS NOT NULL",
        "SELECT pg_stat_force_next_flush()",
    )
    first, named = state(database), state(database, snapshot="may")
    assert first == state(database) != named
    database.run(
        "UPDATE every_note SET note_title = 'x' WHERE visit_occurrence_id = 1",
        "SELECT pg_stat_force_next_flush()",
    )
    assert state(database) != first
    assert state(database, snapshot="may") == named != state(database, snapshot="june")


def test_all_tables_are_read_as_they_were_when_the_first_was(tmp_path, cohort, database):
    database.load(cdm(tmp_path / "cdm", cohort))
    source = open_source("omop", database.uri())
    assert source.identity  # the first question
    database.run("DELETE FROM measurement", "DELETE FROM person")
    found = [contact for _, contact in contacts(source)]
    assert sum(len(contact.labs) for contact in found) == sum(len(each.labs) for each in cohort)
    assert {contact.sex for contact in found} == {contact.sex for contact in cohort}


def test_what_is_missing_or_forbidden_is_one_line(tmp_path, cohort, database):
    folder = cdm(tmp_path / "cdm", cohort)
    database.load(folder)
    with refused(rf"no table person in schema nowhere; .* have it: .*{database.schema}"):
        contacts(open_source("omop", database.uri(schema="nowhere")))
    role = f"{database.schema}_reader"
    database.run(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        with refused(r"concept: no permission to read column concept_id; .* USAGE on its schema"):
            contacts(open_source("omop", database.uri(options=f"-c%20role={role}")))
    finally:
        database.run(f"DROP ROLE {role}")
    database.run("ALTER TABLE note DROP COLUMN note_date")
    with refused(r"\.note: column note_date is missing; found .*note_text"):
        contacts(open_source("omop", database.uri()))
    database.run("DROP TABLE concept")
    with refused(r"no table concept in schema .*; it is compulsory"):
        contacts(open_source("omop", database.uri()))


def test_a_query_that_fails_quotes_no_value(tmp_path, cohort, database):
    database.load(cdm(tmp_path / "cdm", cohort))
    database.run(
        "ALTER TABLE note RENAME TO every_note",
        "CREATE VIEW note AS SELECT visit_occurrence_id, note_date, note_datetime, note_title, "
        "note_text::date::text AS note_text FROM every_note",
    )
    with refused(r"\.note: PostgreSQL broke off; .* its log says why") as error:
        contacts(open_source("omop", database.uri()))
    words = {word for each in cohort for note in each.notes for word in note.text.split()}
    assert not {word for word in words if len(word) > 9} & set(str(error.value).split())


def test_a_wrong_password_is_not_repeated(database, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    try:
        source = open_source("omop", database.uri(user="nobody_of_that_name"))
        with refused(r"no connection \(.*nobody_of_that_name.*~/\.pgpass") as error:
            contacts(source)
    finally:
        monkeypatch.undo()
    assert "hunter2" not in str(error.value)


@contextlib.contextmanager
def refused(match):
    with pytest.raises(UserError, match=match) as error:
        yield error
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:hunter2@host/omop?schema=cdm",
        "postgres://ann:hun/ter2@host/omop",
        "postgresql://ann:hun?ter2@host/omop",
        "postgresql://host/omop?user=ann&password=hunter2",
        "postgresql://host/omop?sslpassword=hunter2",
    ],
)
def test_a_password_in_the_uri_is_refused_and_not_repeated(uri):
    with refused(r"holds a password.*PGPASSWORD, ~/\.pgpass or a service file") as error:
        open_source("omop", uri)
    assert "hun" not in str(error.value) and "ter2" not in str(error.value)


def test_a_server_that_is_not_there_is_one_line():
    pytest.importorskip(DRIVER)
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        uri = f"postgresql://ann@127.0.0.1:{taken.getsockname()[1]}/omop"
        with refused(r"ann@127.*: no connection \(.*refused.*\); expected server, .*PGPASSWORD"):
            contacts(open_source("omop", uri))


def test_without_the_driver_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, DRIVER, None)
    with refused(r"pip install -e '\.\[postgres\]'"):
        contacts(open_source("omop", "postgresql://ann@host/omop"))


def test_records_of_a_named_snapshot_need_no_server(tmp_path, cohort, database, capsys):
    database.load(cdm(tmp_path / "cdm", cohort))
    uri, data = database.uri(snapshot="may"), str(tmp_path / "data")
    main(["--source", "omop", "--source_dir", uri, "--data_dir", data])
    capsys.readouterr()
    held = open_contacts(contacts_folder(data, "omop"))
    assert held.report["source_dir"] == uri
    database.run("DROP TABLE person")
    assert builder.build(open_source("omop", uri), data).report == held.report
    with refused(r"holds contact records of another content \(database: "):
        builder.build(open_source("omop", database.uri(snapshot="june")), data)


def test_sources_of_files_alone_say_so():
    with refused("--source mimic4: does not read databases; .*omop, tables"):
        open_source("mimic4", "postgresql://ann@host/mimic")


def test_a_folder_is_still_a_folder(tmp_path):
    with refused("no such folder"):
        open_source("omop", pathlib.Path("postgresql"))
