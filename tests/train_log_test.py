import json

from jaxcoder.train_log import TrainLog
from jaxcoder.workdir import Workdir


def _steps(workdir):
    return [json.loads(line)["step"] for line in workdir.train_metrics.read_text().splitlines()]


def test_going_on_forgets_what_will_be_done_again(tmp_path):
    workdir = Workdir(tmp_path)
    with TrainLog(workdir, 0) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": 1.0}, "train")
    with workdir.train_metrics.open("a") as file:
        file.write('{"step": 40, "train/lo')  # killed in the middle of a line
    with TrainLog(workdir, 20) as log:
        assert _steps(workdir) == [10, 20]
        log.write(30, {"loss": 2.0}, "train")
    assert _steps(workdir) == [10, 20, 30]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    workdir = Workdir(tmp_path)
    with TrainLog(workdir, 0) as log:
        log.write(1, {"loss": float("nan"), "bce": 2.0}, "train")
    line = json.loads(workdir.train_metrics.read_text())
    assert line == {"step": 1, "train/loss": None, "train/bce": 2.0}
