import dataclasses
import json
import pathlib

import pytest

from jaxcoder.errors import UserError
from jaxcoder.records.codes import LabelSpace
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon, EvidenceLexiconOptions
from jaxcoder.tuned import Tuned
from jaxcoder.workdir import Workdir

CONFIG = {"data_dir": "data", "model": {"encoder": {"width": 16, "layers": 2}}, "seed": 0}


@dataclasses.dataclass
class Data:
    """As much of token records as a workdir keeps."""

    path: pathlib.Path
    tokenizer_dir: pathlib.Path
    label_space: LabelSpace = LabelSpace(("A00", "B00"))


@pytest.fixture
def data(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    return Data(pathlib.Path("data/token_records/demo/1.0.0"), tmp_path / "tokenizer")


@pytest.fixture
def workdir(tmp_path, data):
    workdir = Workdir(tmp_path / "run")
    workdir.create(CONFIG, data)
    return workdir


def trained(workdir):
    (workdir.checkpoints / "1").mkdir(parents=True)


def test_holds_all_that_prediction_needs(workdir):
    assert json.loads(workdir.config.read_text()) == CONFIG
    assert workdir.read_label_space().codes == ("A00", "B00")
    assert (workdir.tokenizer / "tokenizer.json").read_text() == "{}"
    assert json.loads(workdir.data.read_text()) == {"tokens": "token_records/demo/1.0.0"}
    assert workdir.evaluation("test", "lexicon") == workdir.path / "eval/test/baseline_lexicon"


def test_one_run_at_a_time(workdir):
    first = workdir.lock()
    with pytest.raises(UserError, match="run: another process trains here; wait for it"):
        workdir.lock()
    first.close()
    workdir.lock().close()


def test_other_records_are_told(workdir, data):
    trained(workdir)
    data.path = pathlib.Path("data/token_records/other/1.0.0")
    assert workdir.check(CONFIG, data) == [
        "the token records: were token_records/demo/1.0.0, now token_records/other/1.0.0"
    ]


def test_without_checkpoints_everything_may_change(workdir, data):
    data.label_space = LabelSpace(("C00",))
    workdir.create(CONFIG | {"model": {}}, data)
    assert workdir.read_label_space().codes == ("C00",)


def test_with_checkpoints_what_they_depend_on_may_not(workdir, data):
    trained(workdir)
    assert workdir.check(CONFIG | {"seed": 1}, data) == ["config.seed: was 0, now 1"]
    workdir.create(CONFIG | {"seed": 1}, data)
    with pytest.raises(UserError, match=r"config.tokens.serialise.max_tokens = 512"):
        workdir.create(CONFIG | {"tokens": {"serialise": {"max_tokens": 512}}}, data)
    other = {"encoder": {"width": 16, "layers": 3}}
    with pytest.raises(UserError, match=r"config\.model\.encoder\.layers = 3: .* trained with 2"):
        workdir.create(CONFIG | {"model": other}, data)
    elsewhere = {"init": "elsewhere", "attention": "xla"}
    moved = CONFIG | {"model": {"encoder": CONFIG["model"]["encoder"] | elsewhere}}
    assert set(workdir.check(moved, data)) == {
        "config.seed: was 1, now 0",
        "config.model.encoder.init: was '', now 'elsewhere'",
        "config.model.encoder.attention: was 'auto', now 'xla'",
    }
    (data.tokenizer_dir / "tokenizer.json").write_text('{"other": 1}')
    with pytest.raises(UserError, match="is not the tokenizer that the data now have"):
        workdir.create(CONFIG, data)
    data.label_space = LabelSpace(("C00",))
    with pytest.raises(UserError, match=data.label_space.hash):
        workdir.create(CONFIG, data)
    assert json.loads(workdir.config.read_text()) == CONFIG | {"seed": 1}
    assert workdir.read_label_space().codes == ("A00", "B00")


def test_records_that_are_not_there_are_named(workdir, tmp_path):
    with pytest.raises(UserError, match="no token records here; pass --data_dir"):
        workdir.open_tokens(str(tmp_path))
    workdir.data.unlink()
    with pytest.raises(UserError, match="--workdir must name a folder of `jaxcoder train`"):
        workdir.open_tokens()


def test_another_lexicon_forgets_what_was_tuned_with_the_one_before(workdir):
    one, other = (
        EvidenceLexicon.fit(
            ["fever"], [["R50.9"]], [[("fever", code, True)]], EvidenceLexiconOptions(max_share=1.0)
        )
        for code in ("R50.9", "R50.8")
    )
    workdir.write_lexicon(one)
    workdir.tuned.write(Tuned(0.25), 5, 0.7)
    workdir.write_lexicon(one)  # as when training is started again
    assert workdir.tuned.read(5) == Tuned(0.25)
    workdir.write_lexicon(other)
    assert workdir.tuned.read(5) is None
    assert EvidenceLexicon.load(workdir.lexicon).scores("fever") == other.scores("fever")


def test_a_run_begun_anew_forgets_the_threshold_of_the_one_before(workdir, data):
    workdir.tuned.write(Tuned(0.25), 5, 0.7)
    workdir.tuned.write_own("code", {"A00": 0.125}, 5, Tuned(0.25))
    workdir.create(CONFIG, data)
    assert workdir.tuned.read(5) is None
    assert workdir.tuned.read_own("code", 5, Tuned(0.25)) is None


@pytest.mark.parametrize("what", ["fusion", "records"])
def test_what_was_tuned_with_other_options_or_records_is_forgotten(workdir, data, what):
    trained(workdir)
    workdir.create(CONFIG, data)
    workdir.tuned.write(Tuned(0.25), 5, 0.7)
    workdir.create(CONFIG | {"seed": 1}, data)
    assert workdir.tuned.read(5) == Tuned(0.25)
    if what == "records":
        data = dataclasses.replace(data, path=data.path.parent / "1.0.1")
    workdir.create(CONFIG | ({"fusion": {"candidates": 7}} if what == "fusion" else {}), data)
    assert workdir.tuned.read(5) is None


def test_a_damaged_config_is_one_clear_line(workdir, data):
    trained(workdir)
    for broken in ("{", "[]"):
        workdir.config.write_text(broken)
        with pytest.raises(UserError, match=r"config\.json: not"):
            workdir.check(CONFIG, data)
