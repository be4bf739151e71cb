import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxcoder.errors import UserError
from jaxcoder.records import builder, export, runner
from jaxcoder.records.runner import Beam, Local
from jaxcoder.records.sources import open_source, relations, table_files
from jaxcoder.records.sources.synthetic import source as synthetic
from jaxcoder.records.work_folder import work_folder
from jaxcoder.tokens import builder as tokens_builder
from jaxcoder.tokens.minidocs import MiniOptions
from jaxcoder.tokens.tokenizer import TokenizerOptions


def double(number):
    return {"twice": 2 * number}


def fail(number):
    if number == 2:
        raise UserError("labs.csv, row 7: broken")
    return number


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def runners(folder):
    return Local(1), Local(2), Beam(folder, "DirectRunner")


def test_results_have_the_order_of_the_parts(tmp_path):
    for each in runners(tmp_path / "work"):
        found = each.map(double, list(range(7)), apart=True)
        assert found == [{"twice": 2 * number} for number in range(7)]
    assert not list(tmp_path.iterdir())  # nor an empty folder of the work


def test_a_mistake_of_the_user_is_one_line_wherever_it_is_found(tmp_path):
    for each in runners(tmp_path):
        with pytest.raises(UserError) as raised:
            each.map(fail, [1, 2, 3], apart=True)
        assert str(raised.value) == "labs.csv, row 7: broken"


def test_a_process_that_is_killed_is_told():
    with pytest.raises(UserError, match="has ended early: .* 2 were too many: give fewer --jobs"):
        Local(2).map(die, [1, 2], apart=True)


def hold(part):
    """One fails once the other has a patient's data in a work folder."""
    number, folder = part
    if number == 0:
        with work_folder():
            (pathlib.Path(folder) / "ready").touch()
            time.sleep(300)
    while not (pathlib.Path(folder) / "ready").exists():
        time.sleep(0.05)
    raise UserError("labs.csv, row 7: broken")


def test_a_mistake_in_one_part_leaves_nothing_of_the_others(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with pytest.raises(UserError, match="row 7"):
        Local(2).map(hold, [(0, str(tmp_path)), (1, str(tmp_path))], apart=True)
    assert (tmp_path / "ready").exists() and not list(temporary.glob("*jaxcoder*"))


def test_small_parts_are_made_here():
    here = []
    Local(2).map(here.append, [1, 2], apart=False)  # a list of another process would stay empty
    assert here == [1, 2]


WAIT = """
import sys, time
sys.path.insert(0, {path!r})
import runner_test
from jaxcoder.records.runner import Local

if __name__ == "__main__":
    Local(2).map(runner_test.wait, [{folder!r}] * 2, apart=True)
"""


def wait(folder):
    (pathlib.Path(folder) / str(os.getpid())).touch()
    time.sleep(300)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_processes_end_with_the_one_that_began_them(tmp_path):
    script = tmp_path / "script.py"
    seen = tmp_path / "seen"
    seen.mkdir()
    script.write_text(WAIT.format(path=str(pathlib.Path(__file__).parent), folder=str(seen)))
    process = subprocess.Popen([sys.executable, script])
    deadline = time.monotonic() + 120
    while len(list(seen.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    pids = [path.name for path in seen.iterdir()]
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Tables of a cohort, in three files each, small as they are, in parts."""
    made = open_source("synthetic", None, {"patients": 60})
    folder = tmp_path / "extract"
    contacts = [(split, one) for split in made.splits for one in made.contacts(split)]
    for number in range(3):
        export.write_tables(contacts[number::3], tmp_path / str(number))
        for path in (tmp_path / str(number)).glob("*.parquet"):
            if path.stem != "splits":
                (folder / path.stem).mkdir(parents=True, exist_ok=True)
                path.rename(folder / path.stem / f"{number}.parquet")
    monkeypatch.setattr(relations, "_LARGE", 0)
    monkeypatch.setattr(table_files, "_MOST_SLICES", 2)  # of three files
    monkeypatch.setattr(synthetic, "_PATIENTS", 13)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tables", "synthetic"])
def test_every_runner_makes_the_same_records_in_the_same_order(cohort, tmp_path, kind):
    arguments = (cohort, {"system": "icd10cm"}) if kind == "tables" else (None, {"patients": 60})
    made = []
    for number, each in enumerate(runners(tmp_path / "work")):
        folder = tmp_path / f"data{number}"
        data = builder.build(open_source(kind, *arguments), folder, runner=each)
        report = {key: value for key, value in data.report.items() if key != "files"}
        made.append(({split: list(data.split(split)) for split in data.splits}, report))
        assert len(list(data.path.glob("*train.array_record*"))) > 1
        assert [path.name for path in data.path.parent.iterdir()] == [data.path.name]
    assert made[0] == made[1] == made[2]
    assert not (tmp_path / "work").exists()  # no patient's data stays behind
    source = open_source(kind, *arguments)
    assert made[0][0] == {split: list(source.contacts(split)) for split in source.splits}
    if kind == "tables":  # nothing is lost between the files
        cohort = open_source("synthetic", None, {"patients": 60})
        contacts = [one for split in cohort.splits for one in cohort.contacts(split)]
        found = [one for contacts in made[0][0].values() for one in contacts]
        assert sorted(found, key=lambda one: one.contact_id) == [
            dataclasses.replace(one, conditions=())
            for one in sorted(contacts, key=lambda one: one.contact_id)
        ]


def test_the_number_of_parts_decides_nothing(cohort, monkeypatch):
    found = []
    for most in (1, 3, 50):
        monkeypatch.setattr(relations, "MOST_PARTS", most)
        source = open_source("tables", cohort, {"system": "icd10cm", "memory_limit": "0.001MB"})
        parts, left_out = source.parts(Local())
        assert sum(map(len, parts.values())) == pytest.approx(max(3, most), abs=1)
        assert not left_out
        found.append([[one for one in source.contacts(split)] for split in source.splits])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", -1, [], "d"), "--jobs -1: expected 1 or more"),
        (("", 0, ["project=x"], "d"), "--beam_option: without --runner"),
        (("DirectRunner", 2, [], "d"), "--jobs 2 and --runner DirectRunner: expected one"),
        (("DirectRunner", 0, [], None), "--runner DirectRunner: needs --data_dir"),
        (("Nonsense", 0, [], "d"), "--runner Nonsense: unknown to Apache Beam; expected"),
    ],
)
def test_what_does_not_go_together(arguments, message):
    with pytest.raises(UserError, match=message):
        runner.open_runner(*arguments)


def test_the_command_line_chooses():
    assert isinstance(runner.open_runner("", 0, [], None), Local)
    assert runner.open_runner(None, 3, [], None).processes == 3
    assert isinstance(runner.open_runner("DirectRunner", 0, ["region=x"], "d"), Beam)


def test_without_beam_the_remedy_is_an_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"not installed; `pip install -e '\.\[beam\]'`"):
        runner.open_runner("DirectRunner", 0, [], "d")


@pytest.mark.slow
def test_every_runner_makes_the_same_token_records(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens_builder, "_PART", 50)
    contacts = builder.build(open_source("synthetic", None, {"patients": 60}), tmp_path)
    made = []
    for number, each in enumerate(runners(tmp_path / "work")):
        data = tokens_builder.build(contacts, tmp_path / str(number), OPTIONS, runner=each)
        assert len(list(data.path.glob("*train.array_record*"))) > 1
        records = {split: list(map(plain, data.split(split))) for split in data.splits}
        sizes = {split: data.sizes(split).tolist() for split in data.splits}
        report = {key: data.report[key] for key in ("splits", "label_space", "identity")}
        made.append((records, sizes, report))
    assert "mini" in made[0][0]
    assert made[0] == made[1] == made[2]


OPTIONS = tokens_builder.TokensOptions(
    tokenizer=TokenizerOptions(vocab_size=400), mini=MiniOptions(per_contact=0.2)
)


def plain(record):
    return {
        key: getattr(value, "tolist", lambda value=value: value)() for key, value in record.items()
    }
