import dataclasses
import json

import pytest
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.fusion import Weights
from jaxcoder.tuned import Tuned, TunedFiles


@pytest.fixture
def files(tmp_path):
    return TunedFiles(epath.Path(tmp_path), lambda: "mine")


def test_a_threshold_is_for_one_checkpoint_and_one_label_space(files, tmp_path):
    assert files.read(5) is None
    for tuned in (Tuned(0.25), Tuned(0.5, Weights((1.0, 2.0, 3.0, 4.0), (5.0, 6.0)))):
        files.write(tuned, 5, 0.7)
        assert files.read(5) == tuned
    assert files.read(6) is None
    assert TunedFiles(epath.Path(tmp_path), lambda: "other").read(5) is None
    broken_files = (
        "{",
        "{}",
        '{"step": 5, "label_space": "mine"}',
    )
    for broken in broken_files:
        files.threshold.write_text(broken)
        with pytest.raises(UserError, match="not a threshold; delete it"):
            files.read(5)


def test_what_an_older_version_tuned_is_still_read(files):
    files.write(Tuned(0.25, None, 0.5, True), 5, 0.7)
    assert files.read(5) == Tuned(0.25, None, 0.5, True)
    content = json.loads(files.threshold.read_text())
    for key in ("comparable", "exact"):
        del content[key]
    files.threshold.write_text(json.dumps(content))
    assert files.read(5) == Tuned(0.25)


def test_thresholds_of_their_own_belong_to_a_checkpoint_and_what_was_tuned_with_it(files):
    tuned = Tuned(0.25, Weights((1.0, 2.0, 3.0, 4.0), (5.0, 6.0)), 0.5)
    assert files.read_own("code", 5, tuned) is None
    files.write_own("code", {"A00": 0.125}, 5, tuned)
    assert files.read_own("code", 5, tuned) == {"A00": 0.125}
    assert files.read_own("specialty", 5, tuned) is None
    assert files.read_own("code", 6, tuned) is None
    assert files.read_own("code", 5, dataclasses.replace(tuned, threshold=0.5)) is None
    files.own["code"].write_text("{}")
    with pytest.raises(UserError, match="thresholds_code.json: not thresholds; delete it"):
        files.read_own("code", 5, tuned)
    files.forget()
    assert files.read_own("code", 5, tuned) is None
