import pytest

from jaxcoder import entry
from jaxcoder.tokens import __main__ as command
from jaxcoder.tokens.builder import open_tokens
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer

CONFIG = """
def get_config(arg=""):
    return {
        "records": {"source": "tables", "source_dir": SOURCE, "options": {"name": "mine"}},
        "tokens": {"tokenizer": {"vocab_size": 300}, "mini": {"per_contact": 1.0}},
        "train": {"total": "1 epoch"},
    }
"""


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "extract"
    folder.mkdir()
    rows = range(40)
    (folder / "contacts.csv").write_text(
        "contact_id,patient_id,start,end,specialty,age,sex\n"
        + "".join(f"c{i},p{i},,,,,\n" for i in rows)
    )
    (folder / "codes.csv").write_text(
        "contact_id,code,system,role,rank\n" + "".join(f"c{i},I1{i % 3},icd10,,\n" for i in rows)
    )
    (folder / "notes.csv").write_text(
        "contact_id,time,kind,text\n" + "".join(f"c{i},,,Finding {i % 3} seen\n" for i in rows)
    )
    path = tmp_path / "config.py"
    path.write_text(CONFIG.replace("SOURCE", repr(str(folder))))
    return path


def run(*arguments):
    entry.launch(command.define_flags, command.main, command.__doc__, [*map(str, arguments)])


def test_builds_what_is_missing_and_prints_the_report(config, tmp_path, capsys):
    data_dir = tmp_path / "data"
    run("--config", config, "--data_dir", data_dir, "--config.tokens.labels.min_count=2")
    lines = capsys.readouterr().out.splitlines()
    data = open_tokens(lines[-1].removeprefix("Token records "))
    assert data.path.is_relative_to(data_dir)
    assert lines[0].split() == [
        *("split", "records", "tokens/record", "p95", "max", "truncated", "labels", "outside")
    ]
    assert lines[1].split()[:2] == ["train", str(len(data.split("train")))]
    assert lines[-2].startswith("3 labels, vocabulary of ")
    run("--config", config, "--data_dir", data_dir, "--config.tokens.labels.min_count=2")
    assert "Reusing token records" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["in the file", "on the command line"])
def test_an_encoder_from_a_checkpoint_brings_its_tokenizer(config, tmp_path, capsys, where):
    """As in training, which otherwise would not find these records."""
    published = train_tokenizer(["finding seen " * 9], TokenizerOptions(vocab_size=270))
    published.save(tmp_path / "encoder")
    file, flag = {"width": 16}, [f"--config.model.encoder.init={tmp_path / 'encoder'}"]
    if where == "in the file":
        file, flag = {"init": str(tmp_path / "encoder")}, []
    model = f'"model": {{"encoder": {file!r}}}, "train"'
    config.write_text(config.read_text().replace('"train"', model))
    run("--config", config, "--data_dir", tmp_path / "data", *flag)
    data = open_tokens(capsys.readouterr().out.splitlines()[-1].removeprefix("Token records "))
    assert data.tokenizer.vocab_size == published.vocab_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.tokens.labels.min_cout=2"], "labels has no key 'min_cout'; did you mean"),
        (["--config.tokens.tokenizer.vocab_size=2"], "vocab_size = 2: expected at least"),
        (["--config.records.source=mimic"], "unknown source"),
    ],
)
def test_mistakes_are_one_line(config, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run("--config", config, "--data_dir", tmp_path / "data", *arguments)
    assert stopped.value.code == 2
    found = capsys.readouterr().err
    assert message in found and found.count("\n") == 1
    assert not (tmp_path / "data" / "token_records").exists()
