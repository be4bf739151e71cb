"""Checkpoints: the state of a training run on disk, its last and its best step."""

import dataclasses
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from jaxcoder.errors import StorageError, UserError
from jaxcoder.progress import Progress
from jaxcoder.retries import passes, retried
from jaxcoder.whole_file import write_json

PyTree = Any
T = TypeVar("T")
_COMMIT_SECONDS = 300  # that the processes of a run wait for each other in a save


class _LastAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the last step and the best one.

    Which one that is comes from the progress. Orbax's own policy forgets it: a manager that is
    opened again has no metrics of the checkpoints that are there, and deletes the best.
    """

    best = 0

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        last = max((each.step for each in checkpoints), default=0)
        return [each.step in (last, self.best) for each in checkpoints]


class Checkpoints:
    """Saves in the background, keeps the last and the best checkpoint, and restores either.

    A checkpoint holds named items, each a tree of arrays, so that prediction reads the parameters
    without the optimiser. It appears whole or not at all: Orbax writes to a temporary folder first.
    """

    def __init__(self, folder: epath.PathLike, *, read_only: bool = False):
        """Opens the folder of checkpoints.

        Args:
          folder: `WORKDIR/checkpoints`; created unless `read_only`.
          read_only: for readers beside a running training: nothing is created, cleaned or deleted.

        Raises:
          UserError: `read_only` and there is no such folder.
        """
        self.folder = epath.Path(folder)
        if not self.folder.is_absolute():  # a bucket is
            self.folder = self.folder.absolute()  # Orbax takes nothing else
        if read_only and not self.folder.exists():
            raise UserError(
                f"{self.folder}: no checkpoints here; train first, or pass another --workdir"
            )
        self._kept = _LastAndBest()
        self._saving = 0
        self._error: BaseException | None = None  # of the save in the background
        options = (
            ocp.CheckpointManagerOptions(read_only=True)
            if read_only
            else ocp.CheckpointManagerOptions(
                preservation_policy=self._kept,
                # Leftovers of a process killed in the middle of a save.
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(
                    timeout_secs=_COMMIT_SECONDS, barrier_sync_fn=self._barrier()
                ),
            )
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, progress: Progress, items: Mapping[str, PyTree]) -> None:
        """Starts to save in the background; returns once the arrays are copied off the devices.

        Checkpoints other than this one and that of the best step are then deleted.

        Args:
          progress: its step names the checkpoint.
          items: trees of arrays by name.

        Raises:
          UserError: this save or the one before it did not fit on the disk.
          StorageError: it could not be written for another reason.
        """
        try:
            # What is still being written is not yet taken from the free space.
            self._manager.wait_until_finished()
        except Exception as error:
            if not _may_pass(error):
                raise self._explained(error) from error
            logging.getLogger(__name__).warning(
                "the last checkpoint was not written (%s); this one takes its place",
                type(error).__name__,
            )
        self._saving = progress.step
        self._error = None
        self._check_space(items)
        self._kept.best = progress.best_step
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        arguments["progress"] = ocp.args.JsonSave(dataclasses.asdict(progress))
        try:
            _retried(
                lambda: self._manager.save(progress.step, args=ocp.args.Composite(**arguments)),
                f"{self.folder / str(progress.step)}",
            )
        except Exception as error:
            raise self._explained(error) from error

    def amend(self, progress: Progress) -> None:
        """Replaces what the checkpoint of the progress' step says beside its arrays.

        That is for an evaluation that was pending. One process calls it, while nothing is saved.

        Args:
          progress: its step has a checkpoint.
        """
        # Orbax neither saves a step twice nor replaces an item of it.
        file = self.folder / str(progress.step) / "progress" / "metadata"
        write_json(file, dataclasses.asdict(progress))

    def wait(self) -> None:
        """Returns when what was saved is on the disk.

        Raises:
          UserError: it did not fit.
          StorageError: it could not be written for another reason.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._explained(error) from error

    def check(self) -> None:
        """Says of a save in the background that it has failed, and waits for none.

        Of one that the next save takes the place of nothing is said.

        Raises:
          UserError: as `wait`.
          StorageError: as `wait`.
        """
        if self._error is not None and not _may_pass(self._error):
            self.wait()  # raises it

    def close(self) -> None:
        """Waits for the last save and lets go of the folder."""
        self.wait()
        self._manager.close()

    def step(self, which: str = "last") -> int | None:
        """The step of the `last` or the `best` checkpoint; None when there is none.

        The best is the one that the last checkpoint's progress names, or the last itself before any
        evaluation, or where the best is gone, which a line of the log says.
        """
        last = self._manager.latest_step()
        if last is None or which == "last":
            return last
        best = self.progress(last).best_step
        if best in self._manager.all_steps():
            return best
        if best:
            logging.getLogger(__name__).warning(
                "%s: the best checkpoint, of step %d, is gone; taking the last, of step %d",
                *(self.folder, best, last),
            )
        return last

    def progress(self, step: int) -> Progress:
        """Reads what the run knew at a step."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
        )
        return Progress(**restored["progress"])

    def has(self, step: int, item: str) -> bool:
        """Whether the checkpoint of a step holds an item."""
        return (self.folder / str(step) / item).exists()

    def restore(
        self, step: int, abstract: Mapping[str, PyTree], label_space: str
    ) -> tuple[Progress, dict[str, PyTree]]:
        """Restores items onto the devices that their abstract form names.

        Args:
          step: which checkpoint.
          abstract: trees of `jax.ShapeDtypeStruct` with shardings, by item; another mesh than at
            saving is fine.
          label_space: hash of the label space in use.

        Returns:
          The progress and the items.

        Raises:
          UserError: the checkpoint belongs to another label space, or to a model of another shape,
            or is damaged.
        """
        where = self.folder / str(step)
        try:
            return _retried(lambda: self._restore(step, where, abstract, label_space), str(where))
        except UserError:
            raise
        except Exception as error:  # whatever the storage says of a file that is cut or gone
            raise UserError(
                f"{where}: cannot be read ({type(error).__name__}): a file of this checkpoint is "
                "cut or gone; restore it from a copy, or delete the folder to use another one"
            ) from None

    def _restore(
        self, step: int, where: epath.Path, abstract: Mapping[str, PyTree], label_space: str
    ) -> tuple[Progress, dict[str, PyTree]]:
        progress = self.progress(step)
        if progress.label_space != label_space:
            raise UserError(
                f"{where}: made for label space {progress.label_space}, but label_space.json "
                f"here has hash {label_space}; restore the label space that this workdir was "
                "trained with, or train in a new workdir"
            )
        for item, tree in abstract.items():
            self._check_shapes(step, item, tree)
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        return progress, {name: restored[name] for name in abstract}

    def _check_shapes(self, step: int, item: str, tree: PyTree) -> None:
        where = self.folder / str(step)
        if not self.has(step, item):
            raise UserError(
                f"{where}: holds no {item!r}; use the config of this workdir, or a new workdir"
            )
        saved = ocp.StandardCheckpointer().metadata(where / item).item_metadata
        have = {_path(key): tuple(leaf.shape) for key, leaf in _leaves(saved)}
        want = {_path(key): tuple(leaf.shape) for key, leaf in _leaves(tree)}
        if not have:  # Orbax says no more than that to a list of arrays that is cut
            raise ValueError(f"{where / item}: no arrays")
        for key in sorted(have.keys() | want.keys()):
            if have.get(key) != want.get(key):
                raise UserError(
                    f"{where}: {item}/{key} is {have.get(key, 'absent')} in the checkpoint and "
                    f"{want.get(key, 'absent')} in the config's model; use the config of this "
                    "workdir, or a new workdir"
                )

    def _check_space(self, items: Mapping[str, PyTree]) -> None:
        """Refuses what would not fit: Orbax, when a disk runs full, leaves traces on every thread.

        Raises:
          UserError: the arrays of this process are larger than what the disk has free.
        """
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:  # a bucket
            return
        needed = sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(dict(items))
            for shard in getattr(leaf, "addressable_shards", ())
            if shard.replica_id == 0
        )
        if needed > free:
            raise self._no_space(f" of {needed / 2**20:,.1f} MiB ({free / 2**20:,.1f} are free)")

    def _no_space(self, sizes: str = "") -> UserError:
        return UserError(
            f"{self.folder}: no space left for a checkpoint{sizes}; free some, "
            f"then run the same command, which goes on {self._kept_step()}"
        )

    def _barrier(self) -> Callable[..., None]:
        """Orbax's barrier of all processes, at which one whose save has failed does not wait.

        Else it would wait for the others, which wait for it elsewhere, until both give up.
        """
        together = ocp.multihost.get_barrier_sync_fn()

        def wait(*, key: str, timeout_ms: int) -> None:
            error = sys.exc_info()[1]  # Orbax comes here in the `finally` of a save
            if error is None:
                together(key=key, timeout_ms=timeout_ms)
            else:
                self._error = error

        return wait

    def _kept_step(self) -> str:
        # On the disk: the manager has forgotten those that a save is to replace before it has.
        last = max(ocp.utils.checkpoint_steps(self.folder), default=None)
        return "from the start: no checkpoint is whole yet" if last is None else f"at step {last}"

    def _explained(self, error: Exception) -> Exception:
        text = str(error)
        full = getattr(error, "errno", None) == 28 or any(
            sign in text for sign in ("No space left", "RESOURCE_EXHAUSTED", "Disk quota", "ENOSPC")
        )
        if full:
            return self._no_space()
        return StorageError(
            f"{self.folder / str(self._saving)}: was not written ({type(error).__name__}: "
            f"{text[:1000]}); the same command goes on {self._kept_step()}",
            alone=jax.process_count() > 1,
        )


def _may_pass(error: BaseException) -> bool:
    """Whether another save may succeed; of several processes the others wait for this one."""
    return passes(error) and jax.process_count() == 1


def _retried(work: Callable[[], T], what: str) -> T:
    """As `retried`, of one process: several do it together, and one alone would wait for ever."""
    return work() if jax.process_count() > 1 else retried(work, what)


def _leaves(tree: PyTree) -> list[tuple[Any, Any]]:
    return [
        (key, leaf)
        for key, leaf in jax.tree_util.tree_flatten_with_path(
            tree, is_leaf=lambda x: hasattr(x, "shape")
        )[0]
        if hasattr(leaf, "shape")
    ]


def _path(key: Any) -> str:
    names = (getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))) for k in key)
    return "/".join(str(name) for name in names)
