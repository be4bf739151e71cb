import json

import pytest

from jaxcoder import train_log
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import UserError
from jaxcoder.train_log import TrainLog, Window
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


def test_what_has_yet_to_be_evaluated_is_forgotten_of_that_step_alone(tmp_path):
    workdir = Workdir(tmp_path)
    with TrainLog(workdir, 0) as log:
        for step in (10, 20):
            log.write(step, {"loss": 1.0}, "train")
            log.write(step, {"loss": 1.0}, "validation")
    with TrainLog(workdir, 20, pending=True):
        pass
    assert _steps(workdir) == [10, 10, 20]
    assert "train/loss" in workdir.train_metrics.read_text().splitlines()[-1]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    workdir = Workdir(tmp_path)
    with TrainLog(workdir, 0) as log:
        log.write(1, {"loss": float("nan"), "bce": 2.0}, "train")
    line = json.loads(workdir.train_metrics.read_text())
    assert line == {"step": 1, "train/loss": None, "train/bce": 2.0}


def steps(*losses, gradient=1.0):
    return [
        {"loss": loss, "grad_norm": gradient, "documents": 4.0, "tokens": 30.0} for loss in losses
    ]


@pytest.fixture
def window(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    yield Window(
        10,
        lambda step: {"train": [step * 100, step * 100 + 1], "background": range(40)},
        checkpoints,
    )
    checkpoints.close()


def test_a_window_is_the_mean_of_its_steps(window):
    for metrics in steps(1.0, 3.0):
        window.add(metrics, 40)
    numbers = window.close()
    assert numbers["loss"] == 2.0 and numbers["padding_share"] == 0.25
    assert numbers["tokens_per_second"] / numbers["documents_per_second"] == pytest.approx(7.5)
    window.add(steps(5.0)[0], 40)
    assert window.close()["loss"] == 5.0, "the next one has its own steps alone"


class Loss(float):
    """A loss that is there, or not yet."""

    done = True

    def is_ready(self):
        return self.done


def test_waiting_counts_where_the_devices_have_nothing_left_to_do(window, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(train_log.time, "monotonic", lambda: now[0])

    def feed():
        while True:
            now[0] += 1.0  # that a batch takes
            yield "batch"

    batches = feed()
    window.restart()
    for done in (False, True, True):
        assert window.take(batches) == "batch"  # 1, not counted after the first, 3
        loss = Loss(2.0)
        loss.done = done
        window.add(steps(loss)[0], 40)
        now[0] += 2.0
    now[0] += 1.0
    assert window.close()["waiting_share"] == pytest.approx(2.0 / 10.0)
    window.take(batches)
    window.restart()  # after an evaluation
    window.add(steps(Loss(2.0))[0], 40)
    now[0] += 1.0
    assert window.close()["waiting_share"] == 0.0


@pytest.mark.parametrize(
    ("losses", "gradient", "said"),
    [
        ([1.0, float("nan"), float("nan")], 1.0, "step 12: loss nan"),
        ([1.0, 2.0, float("inf")], 1.0, "step 13: loss inf"),
        ([1.0, 1.0, 1.0], float("nan"), "step 11: loss 1, gradient norm nan"),
    ],
)
def test_what_is_no_number_stops_and_names_the_first_step_and_its_records(
    window, losses, gradient, said
):
    for metrics in steps(*losses, gradient=gradient):
        window.add(metrics, 40)
    with pytest.raises(UserError) as raised:
        window.close()
    assert said in str(raised.value) and "No checkpoint yet" in str(raised.value)
    number = int(str(raised.value).split("step ")[1].split(":")[0]) - 1
    named = f"records train {number}00, {number}01; background 0, 1, 2, "
    assert named in str(raised.value) and "30, 31 and 8 more. " in str(raised.value)


def test_after_a_window_with_nothing_to_learn_a_loss_is_none_that_explodes(window):
    for loss in (0.0, 5.0):
        window.add(steps(loss)[0], 40)
        assert window.close()["loss"] == loss


def test_a_bucket_cannot_append_and_has_the_lines_at_each_save(tmp_path, monkeypatch):
    written = {}

    class Bucket(type(Workdir(tmp_path).train_metrics)):
        def __fspath__(self):
            return "gs://bucket/train_metrics.jsonl"

    workdir = Workdir(tmp_path)
    workdir.train_metrics = Bucket(workdir.train_metrics)
    monkeypatch.setattr(train_log, "write_bytes", lambda path, content: written.update(log=content))
    workdir.train_metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    with TrainLog(workdir, 2) as log:
        log.write(3, {"loss": 1.0}, "train")
        assert b'"step": 3' not in written["log"], "each line would write the whole file"
        log.save()
        assert [json.loads(line)["step"] for line in written["log"].splitlines()] == [1, 2, 3]
        log.write(4, {"loss": 1.0}, "train")
    assert [json.loads(line)["step"] for line in written["log"].splitlines()] == [1, 2, 3, 4]


def test_a_loss_explodes_against_the_window_before(window):
    for metrics in steps(900.0, 1.0):  # of the first window nothing is known
        window.add(metrics, 40)
    window.close()
    window.add(steps(450.0 * Window.EXPLODED)[0], 40)
    window.close()
    window.add(steps(451.0 * Window.EXPLODED**2)[0], 40)
    with pytest.raises(UserError, match=r"step 14: .*1000 times the mean before"):
        window.close()
