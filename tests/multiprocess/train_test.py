"""Two processes of two devices train and evaluate as one process does on one device."""

import json
import pathlib
import re
import shutil

import polars
import pytest

from jaxcoder.workdir import Workdir

pytestmark = pytest.mark.slow

LAYOUTS = {
    "data": {},
    "fsdp": {"mesh.data": 2, "mesh.fsdp": 2},
    "tensor": {"mesh.data": 1, "mesh.tensor": 4},  # every process makes every row
}


def losses(workdir):
    lines = map(json.loads, workdir.train_metrics.read_text().splitlines())
    return [
        {
            key: value
            for key, value in line.items()
            if not key.endswith(("_per_second", "waiting_share"))
        }
        for line in lines
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_trains_as_one_device(one, run, train, folder, assert_same, layout):
    results = run(*train(layout, **LAYOUTS[layout]))
    workdir = Workdir(folder / layout)
    for ours, expected in zip(losses(workdir), losses(one), strict=True):
        assert ours == pytest.approx(expected, rel=3e-6)
    assert_same(workdir, one)
    (_, out, err), (_, other_out, other_err) = results
    assert "8 of 8 steps" in out and "2 processes with 4 devices" in err
    assert "steps" not in other_out + other_err, "process 0 alone speaks"
    assert json.loads(workdir.finished.read_text()) == {"step": 8}


def evaluated(run, workdir, processes, *options):
    """Metrics, predictions and outcomes of an evaluation by so many processes of four devices."""
    flags = (f"--workdir={workdir.path}", "--split=validation", "--top=1000", *options)
    results = run("evaluate", *flags, processes=processes, devices=4 // processes)
    assert ["micro_f1" in out for _, out, _ in results] == [True, False][:processes]
    found = re.search("^Evaluation (.*)$", results[0][1], re.M)
    evaluation = pathlib.Path(found[1])
    metrics = json.loads((evaluation / "metrics.json").read_text())
    rows = polars.read_parquet(str(evaluation / "predictions.parquet")).sort("contact_id")
    contacts = polars.read_parquet(str(evaluation / "contacts.parquet")).sort("contact_id")
    return metrics, rows, contacts


def assert_same_evaluation(ours, expected):
    (metrics, rows, contacts), (other_metrics, other_rows, other_contacts) = ours, expected
    assert metrics == pytest.approx(other_metrics, rel=2e-6)
    assert rows["contact_id"].equals(other_rows["contact_id"])
    assert contacts["contact_id"].equals(rows["contact_id"]) and len(contacts.columns) == 20
    for name, dtype in contacts.schema.items():
        expected = contacts[name].to_list()
        expected = pytest.approx(expected, rel=1e-4) if dtype.is_float() else expected
        assert other_contacts[name].to_list() == expected, name
    for one_row, other_row in zip(rows["probabilities"], other_rows["probabilities"], strict=True):
        assert one_row.to_list() == pytest.approx(other_row.to_list(), rel=1e-4)


def test_evaluation_gives_the_numbers_of_one_process(one, run, folder):
    """17 contacts: the last batch is ragged."""
    found = []
    for processes in (1, 2):
        workdir = Workdir(folder / f"evaluated_{processes}")
        shutil.copytree(one.path, workdir.path)
        found.append(evaluated(run, workdir, processes, "--tune=exact"))
    assert_same_evaluation(*found)
    assert found[0][0]["num_contacts"] == 17
    # Thresholds by specialty differ from row to row of a batch. So few contacts give no specialty
    # its own, hence some are put there.
    one_process, two_processes = (Workdir(folder / f"evaluated_{count}") for count in (1, 2))
    specialties = sorted(set(found[0][2]["specialty"]))
    step = json.loads(one_process.tuned.threshold.read_text())["step"]
    threshold = one_process.tuned.read(step).threshold
    own = {name: threshold * (1 + 0.02 * k) for k, name in enumerate(specialties)}
    for workdir in (one_process, two_processes):
        workdir.tuned.write_own("specialty", own, step, workdir.tuned.read(step))
    ours = evaluated(run, one_process, 1, "--thresholds=specialty")
    assert_same_evaluation(ours, evaluated(run, two_processes, 2, "--thresholds=specialty"))
    assert ours[2]["predicted"].to_list() != found[0][2]["predicted"].to_list()


def test_what_goes_wrong_is_said(start, train, folder):
    said = [err for _, _, err in start("evaluate", "--workdir=none", "--baseline=lexicon").wait()]
    assert any("counts on one process; start it on one host" in err for err in said)
    (status, _, err), _ = start(*train("unbuilt", data_dir=folder / "empty")).wait()
    assert status == 2 and "run `jaxcoder tokens --config CONFIG --data_dir" in err
