import pytest

from jaxcoder.errors import UserError
from jaxcoder.records import __main__ as command
from jaxcoder.records.data import contacts_folder, open_contacts


@pytest.fixture
def extract(tmp_path):
    folder = tmp_path / "extract"
    folder.mkdir()
    (folder / "contacts.csv").write_text(
        "contact_id,patient_id,start,end,specialty,age,sex\n"
        + "".join(f"c{i},p{i},,,,,\n" for i in range(40))
    )
    (folder / "codes.csv").write_text(
        "contact_id,code,system,role,rank\n" + "".join(f"c{i},I10,icd10,,\n" for i in range(40))
    )
    return folder


def test_builds_and_prints_the_report(extract, tmp_path, capsys):
    arguments = ["--source", "tables", "--source_dir", str(extract), "--data_dir", str(tmp_path)]
    command.main([*arguments, "--option", "name=mine"])
    lines = capsys.readouterr().out.splitlines()
    data = open_contacts(contacts_folder(tmp_path, "mine"))
    assert lines[-1] == f"Contact records {data.path}"
    assert lines[1].split()[:2] == ["train", str(len(data.split("train")))]
    command.main([*arguments, "--option", "name=mine"])
    assert capsys.readouterr().out.startswith("Reusing contact records ")


def test_check_writes_nothing(extract, tmp_path, capsys):
    command.main(["--source", "tables", "--source_dir", str(extract), "--check"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("train")
    assert lines[-2:] == [
        "no contact has notes, medications, labs, evidence",
        "nothing dropped",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["extract"]


def test_strict_takes_nothing_that_does_not_fit(extract, tmp_path, capsys):
    with open(extract / "contacts.csv", "a") as file:
        file.write("c99,p99,2020-02-02,2020-02-01,,-4,\nc98,p98,,,,-3,\n")
    arguments = ["--source", "tables", "--source_dir", str(extract), "--strict"]
    message = r"--strict: 2 × contacts.age: outside 0-130 .* such as contact_id 'c9\d', and 1 more"
    with pytest.raises(UserError, match=message):
        command.main([*arguments, "--check"])
    assert "1 × contacts.end: before its start (kept)" in capsys.readouterr().out
    with pytest.raises(UserError, match=message):
        command.main([*arguments, "--data_dir", str(tmp_path / "data")])
    assert not list((tmp_path / "data").glob("*/*/*"))


def test_tables_are_an_extract_that_can_be_read(tmp_path, capsys):
    folder = tmp_path / "example"
    command.main(["--source", "synthetic", "--option", "patients=20", "--tables", str(folder)])
    written = capsys.readouterr().out.splitlines()
    assert written[-1] == f"Tables {folder}"
    command.main(["--source", "tables", "--source_dir", str(folder), "--check"])
    read = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in read[1:3]] == [line.split()[:3] for line in written[1:3]]
    assert [path.name for path in tmp_path.iterdir()] == ["example"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "tables", "--option", "name"], "--option name: expected KEY=VALUE"),
        (["--source", "tables"], "--data_dir is missing"),
        (["--source", "tables", "--check", "--tables", "x"], "--check and --tables: expected one"),
        (["--source", "synthetic", "--tables", "."], r"--tables \.: is there already"),
        (["--source", "nothing", "--check"], "--source nothing: unknown source"),
        ([], "--source"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        command.main(arguments)
    assert "\n" not in str(caught.value)


def test_strict_takes_what_the_options_leave_out(extract, tmp_path):
    (extract / "splits.csv").write_text("contact_id,split\nc1,train\n")
    command.main(["--source", "tables", "--source_dir", str(extract), "--strict", "--check"])
