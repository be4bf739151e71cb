import errno
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import StorageError, UserError
from jaxcoder.progress import Progress


def _params(value):
    return {"encoder": {"kernel": jnp.full((3, 4), value)}, "bias": jnp.full((2,), value)}


def _abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _saved(folder, scores, larger_is_better=True, killed_after=None):
    """Saves at steps 10, 20, …; a score of None is a checkpoint without an evaluation."""
    checkpoints = Checkpoints(folder)
    best_value, best_step = None, 0
    for step, score in zip(range(10, 1000, 10), scores, strict=False):
        if score is not None and (best_value is None or (score > best_value) == larger_is_better):
            best_value, best_step = score, step
        checkpoints.save(Progress(step, "hash", best_value, best_step), {"params": _params(step)})
        if step == killed_after:
            checkpoints.close()
            checkpoints = Checkpoints(folder)
    checkpoints.close()


@pytest.mark.parametrize("killed_after", [None, 10, 20, 30])
@pytest.mark.parametrize(
    ("scores", "larger_is_better", "best"),
    [
        ([0.3, 0.5, 0.4, None], True, 20),
        ([3.0, 2.0, 2.5, 2.1], False, 20),
        ([0.5, 0.5, 0.4], True, 10),  # of equal ones the first
        ([None, None], True, 20),
    ],
)
def test_keeps_the_last_and_the_best(tmp_path, scores, larger_is_better, best, killed_after):
    _saved(tmp_path / "c", scores, larger_is_better, killed_after)
    checkpoints = Checkpoints(tmp_path / "c", read_only=True)
    last = 10 * len(scores)
    assert (checkpoints.step("last"), checkpoints.step("best")) == (last, best)
    assert {int(p.name) for p in (tmp_path / "c").iterdir()} == {last, best}
    _, items = checkpoints.restore(best, {"params": _abstract(_params(0.0))}, "hash")
    np.testing.assert_array_equal(items["params"]["encoder"]["kernel"], np.full((3, 4), best))


def test_a_best_checkpoint_that_is_gone_is_said(tmp_path, caplog):
    _saved(tmp_path / "c", [0.5, 0.4])
    shutil.rmtree(tmp_path / "c" / "10")
    assert Checkpoints(tmp_path / "c", read_only=True).step("best") == 20
    (record,) = (each for each in caplog.records if each.name == "jaxcoder.checkpoint")
    assert record.getMessage().endswith("of step 10, is gone; taking the last, of step 20")


def test_what_a_checkpoint_says_is_replaced_beside_its_arrays(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(Progress(10, "hash", pending=True), {"params": _params(1.0)})
    checkpoints.wait()
    progress = checkpoints.progress(10).judged(0.5, larger=True)
    checkpoints.amend(progress)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "c", read_only=True)
    read, items = checkpoints.restore(10, {"params": _abstract(_params(0.0))}, "hash")
    assert read == progress == Progress(10, "hash", best_value=0.5, best_step=10)
    np.testing.assert_array_equal(items["params"]["bias"], [1.0, 1.0])


def test_restores_onto_another_mesh(tmp_path):
    _saved(tmp_path / "c", [0.1])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P(None, "data"))
    abstract = _abstract(_params(0.0))
    abstract["encoder"]["kernel"] = jax.ShapeDtypeStruct((3, 4), jnp.float32, sharding=sharding)
    _, items = Checkpoints(tmp_path / "c", read_only=True).restore(10, {"params": abstract}, "hash")
    assert items["params"]["encoder"]["kernel"].sharding == sharding


def test_another_label_space_is_refused(tmp_path):
    _saved(tmp_path / "c", [0.1])
    with pytest.raises(UserError, match="label space hash, but .* has hash other"):
        Checkpoints(tmp_path / "c").restore(10, {"params": _abstract(_params(0.0))}, "other")


def test_another_shape_is_named(tmp_path):
    _saved(tmp_path / "c", [0.1])
    abstract = _abstract(_params(0.0)) | {"bias": jax.ShapeDtypeStruct((5,), jnp.float32)}
    with pytest.raises(UserError, match=r"params/bias is \(2,\) in the checkpoint and \(5,\)"):
        Checkpoints(tmp_path / "c").restore(10, {"params": abstract}, "hash")


def test_a_missing_item_is_named(tmp_path):
    _saved(tmp_path / "c", [0.1])
    with pytest.raises(UserError, match="holds no 'optimiser'"):
        Checkpoints(tmp_path / "c").restore(10, {"optimiser": _abstract(_params(0.0))}, "hash")


def test_leftovers_of_a_killed_save_are_no_checkpoint_and_in_no_ones_way(tmp_path):
    _saved(tmp_path / "c", [0.1])
    leftover = tmp_path / "c" / "20.orbax-checkpoint-tmp"
    (leftover / "params.orbax-checkpoint-tmp").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.step("last") == 10
    checkpoints.save(Progress(20, "hash"), {"params": _params(2.0)})
    checkpoints.close()
    assert checkpoints.step("last") == 20
    assert not leftover.exists()


def test_a_reader_wants_a_folder(tmp_path):
    with pytest.raises(UserError, match="no checkpoints here"):
        Checkpoints(tmp_path / "absent", read_only=True)
    assert not (tmp_path / "absent").exists()


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match="no space left for a checkpoint") as caught:
        checkpoints.save(Progress(10, "hash"), {"params": _params(1.0)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_save_that_fails_in_the_background_is_heard_without_waiting(
    tmp_path, monkeypatch, number
):
    _saved(tmp_path / "c", [0.1])
    checkpoints = Checkpoints(tmp_path / "c")

    def fails(step):
        raise OSError(number, "no", "arrays")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "_finalize_checkpoint", fails)
        checkpoints.check()
        checkpoints.save(Progress(20, "hash"), {"params": _params(2.0)})
        while checkpoints._error is None:
            time.sleep(0.01)
    if number == errno.EIO:  # may be gone in a moment
        checkpoints.check()
    else:
        with pytest.raises(StorageError, match=r"c/20: was not written \(PermissionErr") as caught:
            checkpoints.check()
        assert "goes on at step " in str(caught.value)
        assert not caught.value.alone, "there is one process"
    checkpoints.save(Progress(30, "hash"), {"params": _params(3.0)})
    checkpoints.wait()
    checkpoints.check()


def test_a_cut_checkpoint_is_one_clear_line(tmp_path):
    _saved(tmp_path / "c", [0.1])
    # Not its arrays: TensorStore's threads would complain of them in the middle of another test.
    path = tmp_path / "c" / "10" / "params" / "_METADATA"
    path.write_bytes(path.read_bytes()[:5])
    abstract = {"params": _abstract(_params(0.0))}
    with pytest.raises(UserError, match="c/10: cannot be read") as caught:
        Checkpoints(tmp_path / "c", read_only=True).restore(10, abstract, "hash")
    assert "\n" not in str(caught.value)


def test_what_would_not_fit_is_not_begun(tmp_path, monkeypatch):
    _saved(tmp_path / "c", [0.1])
    checkpoints = Checkpoints(tmp_path / "c")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=7))
    with pytest.raises(UserError, match=r"\(0.0 are free\); .* goes on at step 10"):
        checkpoints.save(Progress(20, "hash"), {"params": _params(1.0)})
    checkpoints.close()
    assert [path.name for path in (tmp_path / "c").iterdir() if path.is_dir()] == ["10"]


def test_a_folder_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _saved("runs/c", [0.1])
    abstract = {"params": _abstract(_params(0.0))}
    _, items = Checkpoints("runs/c", read_only=True).restore(10, abstract, "hash")
    np.testing.assert_array_equal(items["params"]["bias"], [10.0, 10.0])
