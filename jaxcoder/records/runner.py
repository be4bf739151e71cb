"""Where the parts of a data set are made: in this process, in several, or by Apache Beam.

A task is a part, and its result is JSON values; neither depends on where it runs, so that every
runner makes the same records in the same order.
"""

import atexit
import json
import multiprocessing
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import tqdm
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.work_folder import remove_abandoned, work_folder

T = TypeVar("T")
Task = Callable[[T], Any]
"""From a part to JSON values; picklable, as its argument is."""


class Runner(Protocol):
    """Runs the same function over many parts.

    Attributes:
      processes: how many tasks may share the memory of this machine.
      shared: a folder that every process of it sees; None where the temporary folder will do.
    """

    processes: int
    shared: epath.Path | None

    def map(self, task: Task[T], parts: Sequence[T], apart: bool, bar: str = "") -> list[Any]:
        """The results, in the order of the parts.

        Args:
          task: what is done with each part.
          parts: the parts.
          apart: whether they are large enough for processes of their own.
          bar: what a progress bar calls them; without it parts that are made here show none, for
            they have their own.

        Raises:
          UserError: whatever a task raises.
        """


RUNNER_HELP = "a runner of Apache Beam, such as DirectRunner or DataflowRunner, in place of --jobs"
OPTION_HELP = "an option of Apache Beam, such as project=NAME; may be repeated"


def open_runner(
    beam: str | None, jobs: int, options: Sequence[str], data_dir: epath.PathLike | None
) -> Runner:
    """The runner that a command line asks for.

    Args:
      beam: name of a runner of Apache Beam; None or empty for this machine.
      jobs: processes of this machine; 0 for all cores.
      options: Beam's, without dashes.
      data_dir: a folder that all of Beam's workers see.

    Raises:
      UserError: options that do not go together, or Beam is not installed.
    """
    if not beam:
        if options:
            raise UserError("--beam_option: without --runner; name one, such as DirectRunner")
        if jobs < 0:
            raise UserError(f"--jobs {jobs}: expected 1 or more, or 0 for all cores")
        return Local(jobs)
    if jobs:
        raise UserError(f"--jobs {jobs} and --runner {beam}: expected one of them")
    if data_dir is None:
        raise UserError(f"--runner {beam}: needs --data_dir, a folder that all its workers see")
    return Beam(epath.Path(data_dir) / "work", beam, [f"--{option}" for option in options])


class Local:
    """This machine."""

    shared = None

    def __init__(self, processes: int = 1) -> None:
        """Uses so many processes; 0 stands for all cores."""
        self.processes = processes or len(os.sched_getaffinity(0))

    def map(self, task: Task[T], parts: Sequence[T], apart: bool, bar: str = "") -> list[Any]:
        """As `Runner.map`; each process imports anew, which takes it some seconds."""
        if self.processes == 1 or not apart:
            return [task(part) for part in (_shown(parts, len(parts), bar) if bar else parts)]
        # Not forked: a fork of a process with threads (DuckDB, JAX) may stand still.
        context = multiprocessing.get_context("spawn")
        others = set(multiprocessing.active_children())
        processes = min(self.processes, len(parts))
        try:
            with ProcessPoolExecutor(processes, context, _begin, (task,)) as pool:
                try:
                    futures = [pool.submit(_do, part) for part in parts]
                    for future in _shown(as_completed(futures), len(parts), bar or "parts"):
                        future.result()  # an error is raised when it comes
                    return [future.result() for future in futures]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    children = set(multiprocessing.active_children()) - others
                    for child in children:
                        child.terminate()
                    for child in children:
                        child.join()
                    raise
        except BrokenProcessPool:
            remove_abandoned()  # the killed ones could not
            raise UserError(
                "a process that made parts has ended early: the system kills it where memory runs "
                f"out, and then {self.processes} were too many: give fewer --jobs, or a smaller "
                "memory_limit; or it could not begin: a script of your own needs its calls below "
                "`if __name__ == '__main__':`"
            ) from None


class Beam:
    """Apache Beam: as many machines as its runner has."""

    processes = 1

    def __init__(self, shared: epath.PathLike, name: str, options: Sequence[str] = ()) -> None:
        """Remembers where to run; runs nothing.

        Args:
          shared: a folder that every worker can read and write; parts and results go there.
          name: of a runner of Beam, such as `DataflowRunner`.
          options: Beam's own, such as `--project=…`.

        Raises:
          UserError: Beam is not installed, or has no such runner.
        """
        self.shared = epath.Path(shared)
        self._options = [f"--runner={name}", *options]
        try:
            import apache_beam as beam  # an extra
        except ImportError:
            raise UserError(
                f"--runner {name}: Apache Beam is not installed; `pip install -e '.[beam]'`"
            ) from None
        try:
            beam.runners.create_runner(name)
        except (ValueError, ImportError, AttributeError):
            raise UserError(
                f"--runner {name}: unknown to Apache Beam; expected one of its runners, such as "
                "DirectRunner, FlinkRunner, PortableRunner, DataflowRunner"
            ) from None

    def map(self, task: Task[T], parts: Sequence[T], apart: bool, bar: str = "") -> list[Any]:
        """As `Runner.map`; results come back as files, for a runner hands none to its launcher."""
        del apart, bar  # Beam has its own
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        with work_folder(self.shared) as folder:
            options = PipelineOptions(self._options, save_main_session=False)
            with beam.Pipeline(options=options) as pipeline:
                _ = (
                    pipeline
                    | "parts" >> beam.Create(list(enumerate(parts)))
                    | "spread" >> beam.Reshuffle()
                    | "make" >> beam.Map(_keep, task, str(folder))
                )
            return [_kept(folder, number) for number in range(len(parts))]


def _keep(numbered: tuple[int, T], task: Task[T], folder: str) -> None:
    """Leaves the result of a part in a file; a user's mistake, too, without Beam's trace."""
    number, part = numbered
    try:
        content = {"result": task(part)}
    except UserError as error:
        content = {"error": str(error)}
    path = epath.Path(folder) / f"{number}.json"
    # A worker may be given the same part again; the last one to end renames over the others.
    own = path.with_suffix(f".{uuid.uuid4().hex[:12]}")
    own.write_text(json.dumps(content))
    own.replace(path)


def _kept(folder: epath.Path, number: int) -> Any:
    content = json.loads((folder / f"{number}.json").read_text())
    if "error" in content:
        raise UserError(content["error"])
    return content["result"]


_task: Task[Any]


def _do(part: Any) -> Any:
    return _task(part)


def _begin(task: Task[Any]) -> None:
    """Prepares a process of a pool: one core, and no longer alive than the one that began it.

    The task comes but once, for it may hold a lexicon.
    """
    global _task
    _task = task
    # Without tearing down modules, at which DuckDB's bindings print what they think has leaked.
    atexit.register(os._exit, 0)
    signal.signal(signal.SIGTERM, _end)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pa.set_cpu_count(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _end(*_: Any) -> None:
    """Tidies up on the way out, once: work folders hold patients' data."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def _shown(each: Iterable[T], count: int, bar: str) -> Iterator[T]:
    return iter(tqdm.tqdm(each, desc=bar, total=count, disable=not sys.stderr.isatty()))
