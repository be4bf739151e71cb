"""What a report reads: whole, of this label space and checkpoint, or one line that says why not."""

import json
import math
import shutil

import pytest

from jaxcoder.errors import UserError
from jaxcoder.report import inputs


def test_reads_what_evaluation_left(finished):
    run = inputs.Run(finished)
    test = run.evaluation("test")
    assert run.missing("test") == ""
    assert test.groups[0]["group"] == "all"
    assert len(test.contacts["gold"]) == test.metrics["num_contacts"] == 240
    assert len(test.codes) == len(run.label_space) == 30
    found, outdated = test.beside("baseline_")
    assert list(found) == ["lexicon"] and not outdated
    assert run.train_lines()[-1]["step"] == 300, "the line that was cut short is left out"


@pytest.mark.parametrize("key", ["step", "label_space"])
def test_what_is_of_another_checkpoint_or_label_space_is_not_compared(workdir, key):
    beside = workdir / "eval" / "test" / "without_labs_medications"
    test = inputs.Run(workdir).evaluation("test")
    assert list(test.beside("without_")[0]) == ["labs_medications"]
    edit(beside / "details.json", **{key: "another"})
    assert test.beside("without_") == ({}, ["labs_medications"])


def test_what_is_at_another_threshold_is_not_compared_but_for_baselines(workdir):
    folder = workdir / "eval" / "test"
    test = inputs.Run(workdir).evaluation("test")
    for name in ("without_labs_medications", "baseline_lexicon"):
        edit(folder / name / "metrics.json", threshold=0.99)
    assert test.beside("without_") == ({}, ["labs_medications"])
    assert list(test.beside("baseline_")[0]) == ["lexicon"]


def test_thresholds_of_their_own_stand_beside_one_that_was_given(workdir):
    """They cannot be had with it, so that no command would mend it."""
    folder = workdir / "eval" / "test"
    shutil.copytree(folder / "without_labs_medications", folder / "thresholds_code")
    edit(folder / "metrics.json", threshold=0.5)
    assert inputs.Run(workdir).evaluation("test").beside("thresholds_") == ({}, ["code"])
    edit(folder / "details.json", threshold_from="given")
    test = inputs.Run(workdir).evaluation("test")
    assert list(test.beside("thresholds_")[0]) == ["code"]
    assert test.given_threshold == " --threshold 0.5"


def test_an_absent_table_is_empty(workdir):
    (workdir / "eval" / "test" / "contacts.parquet").unlink()
    (workdir / "eval" / "test" / "roles.csv").unlink()
    test = inputs.Run(workdir).evaluation("test")
    assert test.contacts == {} and test.table("roles") == []


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_table_that_was_cut_is_one_line(workdir, kept):
    folder = workdir / "eval" / "test"
    rows = len((folder / "groups.csv").read_text().splitlines()) - 1
    edit(folder / "details.json", rows={"groups": rows})
    content = (folder / "groups.csv").read_text()
    assert len(inputs.Run(workdir).evaluation("test").table("groups")) == rows
    (folder / "groups.csv").write_text(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=f"expected {rows} .* was cut.* run `jaxcoder evaluate"):
        inputs.Run(workdir).evaluation("test").table("groups")
    lines = content.splitlines(keepends=True)
    (folder / "groups.csv").write_text("".join(lines[:-1]))  # cut between two rows
    with pytest.raises(UserError, match=f"{rows - 1} rows, expected {rows}"):
        inputs.Run(workdir).evaluation("test").table("groups")


def test_groups_of_an_older_version_are_none(workdir):
    (workdir / "eval" / "test" / "groups.csv").write_text("specialty,contacts\nlung,3\n")
    assert inputs.Run(workdir).evaluation("test").groups == []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda w: (w / "eval/test/metrics.json").unlink(),
            "eval/test: half written; run `jaxcoder",
        ),
        (
            lambda w: (w / "eval/test").rename(w / "gone"),
            "eval/test: not there; run `jaxcoder eval",
        ),
        (
            lambda w: (w / "checkpoints/300").rename(w / "checkpoints/400"),
            "of the checkpoint of step 300, which training has replaced since; run",
        ),
        (lambda w: (w / "eval/test/metrics.json").write_text("{"), "metrics.json: not JSON; run"),
        (
            lambda w: edit(w / "eval/test/details.json", label_space="0123456789abcdef"),
            "evaluated with the label space 0123456789abcdef, but",
        ),
        (lambda w: edit(w / "eval/test/metrics.json", num_contacts=0), "eval/test: no contacts"),
    ],
)
def test_a_broken_evaluation_is_one_line(workdir, break_it, message):
    break_it(workdir)
    with pytest.raises(UserError) as raised:
        inputs.Run(workdir).evaluation("test")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_contacts_of_another_evaluation_are_refused(workdir):
    edit(workdir / "eval" / "test" / "metrics.json", num_contacts=119)
    with pytest.raises(UserError, match="120 contacts, but metrics.json beside it has 119"):
        _ = inputs.Run(workdir).evaluation("test").contacts


def test_contacts_cut_short_are_refused(workdir):
    path = workdir / "eval" / "test" / "contacts.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    remedy = "run `jaxcoder evaluate --workdir .* --split test` again"
    with pytest.raises(UserError, match=f"contacts.parquet: cannot be read .* {remedy}"):
        _ = inputs.Run(workdir).evaluation("test").contacts


def test_splits_of_two_coders_are_refused(workdir):
    edit(workdir / "eval" / "validation" / "metrics.json", threshold=0.7)
    run = inputs.Run(workdir)
    with pytest.raises(
        UserError, match=r"threshold 0.4, but .*validation has 0.7; expected the sa"
    ):
        inputs.check_together(run.evaluation("test"), run.evaluation("validation"))


def test_no_workdir(tmp_path):
    with pytest.raises(UserError, match="config.json: not found; --workdir must name a folder"):
        inputs.Run(tmp_path)


def test_a_curve_without_a_column(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("share,patients\n1,2\n")
    with pytest.raises(UserError, match="column contacts is missing"):
        inputs.read_curve(path)


@pytest.mark.parametrize(
    ("value", "text"), [(0.7184, "71.8"), (1.0, "100.0"), (None, "–"), (math.nan, "–"), (0, "0.0")]
)
def test_per_cent(value, text):
    assert inputs.percent(value) == text


def test_points_have_a_sign():
    assert (inputs.points(0.0123), inputs.points(-0.0456)) == ("+1.2", "−4.6")
