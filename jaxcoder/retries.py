"""Storage that fails for a moment: what was asked of it is asked again."""

import errno
import logging
from collections.abc import Callable
from typing import TypeVar

import tenacity

T = TypeVar("T")

ATTEMPTS = 5
_SECONDS = 1.0  # before the second attempt; then twice as long each time
_PASSING = frozenset(
    {
        *(errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.ECONNABORTED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EPIPE),
    }
)
# Of gRPC and HTTP, as the libraries that speak to buckets write them.
_SIGNS = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "Too Many Requests", "Service Unavailable")


def passes(error: BaseException) -> bool:
    """Whether an error of a disk, a network file system or a bucket may be gone in a moment."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    return any(sign in str(error) for sign in _SIGNS)


def retried(work: Callable[[], T], what: str) -> T:
    """Does a piece of work, and again where the storage fails for a moment.

    Args:
      work: can be done again.
      what: it is, for the line that says so.

    Raises:
      Exception: of the last attempt, or one that does not pass.
    """

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logging.getLogger(__name__).warning(
            "%s: %s; attempt %d of %d failed, trying again",
            *(what, type(error).__name__, state.attempt_number, ATTEMPTS),
        )

    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception(passes),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(multiplier=_SECONDS),
        before_sleep=say,
        reraise=True,
    )
    return again(work)
