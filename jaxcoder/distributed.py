"""Many processes as one run: how they find each other, and how all of them end together.

A run on several hosts is the same command on each. With --distributed JAX finds the others on Cloud
TPU, GKE, SLURM and Open MPI; elsewhere --coordinator, --processes and --process say where they are.
Process 0 leads: it alone prints, logs and writes files beside the checkpoints.
"""

import os
import signal
import types
from collections.abc import Callable
from typing import Any

import jax
from absl import flags, logging
from jax.experimental import multihost_utils

from jaxcoder.errors import UserError

HEARTBEAT_SECONDS = 30
"""After so long without a sign of life a process counts as dead, and the others end."""
_JOIN_SECONDS = 300


def define_flags() -> None:
    """Declares the flags of a command that may run as several processes."""
    flags.DEFINE_boolean(
        "distributed",
        False,
        "Run as one of several processes, which Cloud TPU, GKE, SLURM or Open MPI has started.",
    )
    flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of process 0, the same for all; where nothing is recognised."
    )
    flags.DEFINE_integer("processes", 0, "How many there are.", lower_bound=0)
    flags.DEFINE_integer("process", -1, "Which of them this is, from 0.", lower_bound=-1)


def start(*, saves: bool = True) -> None:
    """Joins the other processes, where the flags say that there are some.

    Comes before anything that asks JAX for its devices.

    Where the others do not come within five minutes JAX ends the process, with a status that says
    that it may be started again.

    Args:
      saves: whether SIGTERM is heard by `Preemption`, from now on and not in its loop alone. Else
        it ends this process at once as it does any, and the others as when one has died.

    Raises:
      UserError: flags that do not go together, or no cluster is recognised.
    """
    wanted = flags.FLAGS
    explicit = bool(wanted.coordinator or wanted.processes or wanted.process >= 0)
    if not (explicit or wanted.distributed):
        return
    if _on_cpu(os.environ.get("JAX_PLATFORMS")):
        # Else XLA starts the collectives of a step in another order on another process (seen with
        # jaxlib 0.10.2: gloo then gets the parts of one in the place of another's).
        flag = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    jax.config.update("jax_enable_preemption_service", saves)
    known: dict[str, Any] = {}
    if explicit:
        known = _explicit(wanted.coordinator, wanted.processes, wanted.process)
    try:
        jax.distributed.initialize(
            **known,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        if explicit:
            raise
        raise UserError(
            f"--distributed: no cluster was recognised ({_first_line(error)}); expected Cloud TPU, "
            "GKE, SLURM or Open MPI; elsewhere give --coordinator, --processes and --process"
        ) from None
    if jax.process_index():
        logging.set_verbosity(logging.WARNING)
    else:
        logging.info("%d processes with %d devices", *(jax.process_count(), len(jax.devices())))


def _on_cpu(platforms: str | None) -> bool:
    """Whether JAX may choose the CPU, by JAX_PLATFORMS; where that is empty, only choosing tells.

    An accelerator that it then chooses is left alone all the same: what begins with xla_cpu is read
    by the compiler for CPUs alone.
    """
    return not platforms or platforms.split(",")[0] == "cpu"


def _explicit(coordinator: str, processes: int, process: int) -> dict[str, Any]:
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise UserError(f"--coordinator = {coordinator!r}: expected HOST:PORT of process 0")
    if not 0 <= process < processes:
        raise UserError(
            f"--process = {process}, --processes = {processes}: expected a number from 0 and, "
            "above it, how many there are"
        )
    return {
        "coordinator_address": coordinator,
        "num_processes": processes,
        "process_id": process,
        "cluster_detection_method": "deactivate",
    }


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


class Preemption:
    """Whether a run has been told to end, and if so after which step.

    SIGTERM is how Cloud TPU, GKE and SLURM say that a machine will be taken away. One process tells
    the others, and all of them end after the same step; a second SIGTERM ends a lone process at
    once. Use as a context manager around the loop.
    """

    def __init__(self) -> None:
        """Hears nothing yet."""
        self._told = False
        self._before: Callable[[int, types.FrameType | None], Any] | int | None = None

    def reached(self, step: int) -> bool:
        """Whether to save and end after this step; every process asks after every step.

        Args:
          step: steps done, the same for all processes.
        """
        if jax.process_count() > 1:  # JAX hears the signal
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self._told

    @staticmethod
    def message(workdir: object, step: int, total: int) -> str:
        """What a run says that has been told to end."""
        return f"{workdir}: told to end, saved at step {step} of {total}; the same command goes on"

    def _tell(self, number: int, frame: types.FrameType | None) -> None:
        self._told = True
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        """Lets the signal do again what it did before."""
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
