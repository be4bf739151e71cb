import functools
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import traceback
import types

import pytest
import tensorflow_datasets as tfds

from jaxcoder.errors import UserError
from jaxcoder.records import builder, store, writer
from jaxcoder.records.__main__ import main
from jaxcoder.records.data import contacts_folder, open_contacts
from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import (
    SPLITS,
    Code,
    Condition,
    Contact,
    Evidence,
    Lab,
    Medication,
    Note,
)
from jaxcoder.records.sources import Source

FULL = Contact(
    contact_id="c/1",
    patient_id="p 1",
    start="2020-01-01T00:00:00",
    end="2020-01-02T00:00:00",
    specialty="øre-næse-hals",
    age=57.3,
    sex="F",
    kind="ambulatory",
    notes=(Note("line\nline 🙂 \r\n\x00", "progress", "2020-01-01T10:00:00"), Note("")),
    medications=(Medication("A01BC02", "name", "5 mg", "oral", ""),),
    labs=(Lab("2345-7", "glucose", "> 30", "mmol/L", 3.5, 6.1, "H", ""), Lab(low=-0.1, high=1e-9)),
    codes=(Code("I10", "icd10", "primary", 1), Code("E11.9")),
    evidence=(Evidence("I10", 0, 0, 4, 0), Evidence("I10", 0, 5, 9, 0)),
    conditions=(Condition("I10", True, 0.1), Condition("J45", False, 1.0)),
)


class Memory(Source):
    """A source of contacts at hand."""

    name = "memory"
    descriptions = {"I10": "Essential (primary) hypertension", "J44": "Of a code that nobody has"}

    def __init__(self, contacts, version=1):
        self._held = contacts
        self._version = version

    @property
    def identity(self):
        return {"source": "memory", "options": {"version": self._version}}

    def parts(self, runner):
        left_out = Findings()
        left_out.add("lost", None)
        return {split: [functools.partial(self.part, split)] for split in SPLITS}, left_out

    def part(self, split, found):
        yield from self.stream(split)
        if split == "train":
            found.add("seen", None, 2)

    def stream(self, split):
        return iter(self._held.get(split, ()))


def some(count, start=0):
    return [Contact(f"c{i}", f"p{i}", codes=(Code("I10"),)) for i in range(start, start + count)]


def test_contacts_come_back_bit_for_bit_and_in_order(tmp_path):
    contacts = [FULL, Contact("2", "p"), *some(300)]
    data = builder.build(Memory({"train": contacts, "test": some(3, 500)}), tmp_path)
    assert data.name == "memory"
    assert data.path == tmp_path / "contact_records/memory/1.4.0"
    assert data.splits == ("train", "test")  # validation has no contacts
    assert list(data.split("train")) == contacts
    train = open_contacts(contacts_folder(tmp_path, "memory")).split("train")
    assert len(train) == 302
    assert train[-1] == contacts[-1]
    assert train[5:2:-2] == contacts[5:2:-2]
    assert train.__getitems__([7, 0]) == [contacts[7], FULL]
    with pytest.raises(IndexError):
        train[302]
    assert [path.name for path in tmp_path.iterdir()] == ["contact_records"]


def test_the_report_lies_beside_the_data(tmp_path):
    data = builder.build(Memory({"train": some(4), "validation": some(1)}), tmp_path)
    report = json.loads((data.path / "records_report.json").read_text())
    assert report == data.report
    assert report["splits"]["train"]["contacts"] == 4
    assert report["splits"]["train"]["dropped"] == {"seen": 2}
    assert report["dropped"] == {"lost": 1}
    assert report["patients_in_several_splits"] == 1
    assert report["identity"]["options"] == {"version": 1}
    assert report["descriptions"] == {"I10": "Essential (primary) hypertension"}


def test_what_is_there_is_reused_if_it_is_the_same(tmp_path):
    said = []
    builder.build(Memory({"train": some(4)}), tmp_path)
    # Same identity: not even looked at, so the other contacts do not appear.
    data = builder.build(Memory({"train": some(9)}), tmp_path, say=said.append)
    assert len(data.split("train")) == 4
    assert said == [f"Reusing contact records {data.path}"]
    message = r"memory/1.4.0: .*options.version: 1 there, 2 here.*--option version=2 .*--rebuild"
    with pytest.raises(UserError, match=message):
        builder.build(Memory({"train": some(9)}, version=2), tmp_path)
    assert len(open_contacts(contacts_folder(tmp_path, "memory")).split("train")) == 4
    data = builder.build(Memory({"train": some(9)}, version=2), tmp_path, rebuild=True)
    assert len(data.split("train")) == 9


def test_a_source_that_fails_leaves_nothing_that_opens(tmp_path):
    class Broken(Memory):
        def stream(self, split):
            yield from super().stream(split)
            if split == "train":
                raise UserError("labs.csv: row 7 is broken")

    with pytest.raises(UserError, match="labs.csv: row 7 is broken"):
        builder.build(Broken({"train": some(5)}), tmp_path)
    with pytest.raises(UserError, match="not there: no records_report.json; build it with"):
        open_contacts(contacts_folder(tmp_path, "memory"))
    assert len(builder.build(Memory({"train": some(5)}), tmp_path).split("train")) == 5


def test_no_contacts_at_all(tmp_path):
    with pytest.raises(
        UserError,
        match="source memory: no contacts in any split; expected some; left out: 1 × lost",
    ):
        builder.build(Memory({}), tmp_path)


def test_an_unknown_split_names_those_there_are(tmp_path):
    data = builder.build(Memory({"train": some(4)}), tmp_path)
    with pytest.raises(UserError, match=r"split 'dev': .* has train$"):
        data.split("dev")


def test_a_truncated_file_is_named_when_the_data_is_opened(tmp_path):
    data = builder.build(Memory({"train": some(400)}), tmp_path)
    (file,) = data.path.glob("*train.array_record*")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match=r"train.array_record.*: \d+ bytes, expected \d+: truncated"
    ):
        open_contacts(data.path)
    file.unlink()
    with pytest.raises(UserError, match=r"train.array_record.*: missing"):
        open_contacts(data.path)


def test_a_corrupt_record_names_its_file(tmp_path):
    contacts = [Contact(f"c{i}", "p", notes=(Note(os.urandom(400).hex()),)) for i in range(200)]
    data = builder.build(Memory({"train": contacts}), tmp_path)
    (file,) = data.path.glob("*train.array_record*")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    file.write_bytes(content)
    train = open_contacts(data.path).split("train")
    with pytest.raises(UserError, match=r"train.array_record.*: record \d+ of the split cannot be"):
        list(train)


def test_a_half_built_data_set_does_not_open(tmp_path):
    data = builder.build(Memory({"train": some(4)}), tmp_path)
    (data.path / "records_report.json").unlink()
    with pytest.raises(UserError, match="is not whole: no records_report.json"):
        open_contacts(contacts_folder(tmp_path, "memory"))
    (data.path / "records_report.json").write_text("{")
    with pytest.raises(UserError, match="records_report.json: not a report"):
        open_contacts(contacts_folder(tmp_path, "memory"))


BUILD = """
import sys, time
sys.path[:0] = {path!r}
from builder_test import Memory, some
from jaxcoder.records import builder

class Slow(Memory):
    def stream(self, split):
        for number, contact in enumerate(super().stream(split)):
            if number == 50:
                print("half", file=sys.__stdout__, flush=True)
                time.sleep(60)
            yield contact

builder.build(Slow({{"train": some(100)}}), {folder!r})
"""


def test_kill_in_the_middle_then_build_again(tmp_path):
    here = pathlib.Path(__file__).parent
    script = BUILD.format(path=[str(here), str(here.parents[1])], folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(UserError, match="build it with"):
        open_contacts(contacts_folder(tmp_path, "memory"))
    folder = tmp_path / "contact_records/memory"
    assert [path.name.partition(".")[0] for path in folder.iterdir()] == ["unfinished"]
    data = builder.build(Memory({"train": some(100)}), tmp_path)
    assert list(data.split("train")) == some(100)
    assert [path.name for path in folder.iterdir()] == ["1.4.0"]  # and nothing is left behind


def test_no_tensorflow_and_no_jax(tmp_path):
    script = f"""
import sys
sys.path[:0] = {[str(pathlib.Path(__file__).parent)]!r}
from builder_test import Memory, some
from jaxcoder.records import builder
list(builder.build(Memory({{"train": some(5)}}), {str(tmp_path)!r}).split("train"))
print(sorted({{"tensorflow", "jax", "flax"}} & set(sys.modules)))
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert done.stderr == ""


def test_random_access_from_several_threads(tmp_path):
    from concurrent import futures

    contacts = some(200)
    train = builder.build(Memory({"train": contacts}), tmp_path).split("train")
    with futures.ThreadPoolExecutor(4) as pool:
        for seen in pool.map(lambda start: [train[i] for i in range(start, 200, 4)], range(4)):
            assert seen == contacts[int(seen[0].contact_id[1:]) :: 4]


def test_records_options_open_their_source(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        builder.RecordsOptions("tables", str(tmp_path / "none")).open()
    assert builder.RecordsOptions().source == "synthetic"


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(self, _):
        # What ArrayRecord says on a full tmpfs.
        raise RuntimeError("write() failed: No space left on device; writing x-00000")

    monkeypatch.setattr(tfds.core.SequentialWriter, "add_examples", full)
    with pytest.raises(UserError, match=r"memory/1.4.0: no space left on its device; make room"):
        builder.build(Memory({"train": some(3)}), tmp_path)
    assert list((tmp_path / "contact_records/memory").iterdir()) == []


def test_what_is_replaced_stays_until_the_new_is_whole(tmp_path):
    builder.build(Memory({"train": some(4)}), tmp_path)

    class Broken(Memory):
        def stream(self, split):
            if split == "test":
                raise UserError("labs.csv: row 7 is broken")
            yield from super().stream(split)

    with pytest.raises(UserError, match="row 7"):
        builder.build(Broken({"train": some(9), "test": some(1)}), tmp_path, rebuild=True)
    assert list(open_contacts(contacts_folder(tmp_path, "memory")).split("train")) == some(4)


class Stop(BaseException):
    """As Ctrl-C."""


@pytest.mark.parametrize("killed", [True, False])
def test_between_the_two_renames_nothing_is_lost(tmp_path, monkeypatch, killed):
    path = builder.build(Memory({"train": some(4)}), tmp_path).path
    rename, remove = type(path).rename, writer._remove

    def stop_after_the_first(self, target):
        rename(self, target)
        if self == path:
            monkeypatch.undo()
            if killed:  # then nobody tidies up
                monkeypatch.setattr(writer, "_remove", lambda own, folder, held: held.close())
            raise Stop

    monkeypatch.setattr(type(path), "rename", stop_after_the_first)
    with pytest.raises(Stop):
        builder.build(Memory({"train": some(9)}), tmp_path, rebuild=True)
    monkeypatch.setattr(writer, "_remove", remove)
    assert path.exists() != killed

    class Broken(Memory):
        def stream(self, split):
            yield from super().stream(split)
            if split == "train":
                raise UserError("row 7")

    with pytest.raises(UserError, match="row 7"):  # the next one fails, too
        builder.build(Broken({"train": some(9)}), tmp_path, rebuild=True)
    assert list(open_contacts(contacts_folder(tmp_path, "memory")).split("train")) == some(4)
    assert [each.name for each in path.parent.iterdir()] == ["1.4.0"]


def test_two_writers_do_not_disturb_each_other(tmp_path):
    here = pathlib.Path(__file__).parent
    script = BUILD.format(path=[str(here), str(here.parents[1])], folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"half\n"  # it is in the middle, and alive
        data = builder.build(Memory({"train": some(100)}), tmp_path)
        folder = data.path.parent
        assert sorted(path.name.partition(".")[0] for path in folder.iterdir()) == [
            "1",
            "unfinished",
        ]
        process.kill()
        process.wait()
    assert list(data.split("train")) == some(100)


def test_several_files_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_SHARD", 100)
    data = builder.build(Memory({"train": some(300), "test": some(7)}), tmp_path)
    assert len(list(data.path.glob("*train.array_record*"))) == 3
    assert list(data.split("train")) == some(300)
    assert list(data.split("test")) == some(7)


def test_a_record_that_cannot_be_encoded_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "encode", lambda contact: {"contact_id": contact.notes[0].text})
    contact = Contact("c", "p", notes=(Note("a secret"),))
    with pytest.raises(RuntimeError, match="a record does not fit its features") as raised:
        builder.build(Memory({"train": [contact]}), tmp_path)
    assert "secret" not in "".join(traceback.format_exception(raised.value))


def test_the_remedy_is_a_command_that_works(tmp_path):
    folder = tmp_path / "a folder"
    source = builder.RecordsOptions(options={"patients": 30, "name": "small"}).open()
    data = builder.build(source, folder)
    before = list(data.split("train"))
    (file,) = data.path.glob("*train.array_record*")
    file.write_bytes(b"")
    with pytest.raises(UserError, match="truncated") as raised:
        open_contacts(data.path)
    command = str(raised.value).partition("`jaxcoder records ")[2].partition("`")[0]
    main(shlex.split(command))
    assert list(open_contacts(data.path).split("train")) == before


def test_a_sample_is_evenly_spaced():
    assert list(store.evenly(range(10), 0)) == list(store.evenly(range(10), 10)) == list(range(10))
    assert list(store.evenly(range(10), 5)) == [0, 2, 4, 6, 8]
    assert list(store.evenly(range(10), 3)) == [0, 3, 6]


def test_records_are_known_by_source_and_options_as_they_are_written_down():
    options = {"name": "population", "shares": [0.8, 0.05, 0.15]}
    data = types.SimpleNamespace(identity={"source": "tables", "options": options})
    for given in ({}, {"shares": (0.8, 0.05, 0.15)}, {"name": "population"}):
        assert builder._is_of(builder.RecordsOptions("tables", "", given), data)
    for given in ({"shares": (0.8, 0.1, 0.1)}, {"name": "other"}, {"more": 1}):
        assert not builder._is_of(builder.RecordsOptions("tables", "", given), data)
    assert not builder._is_of(builder.RecordsOptions("omop"), data)
