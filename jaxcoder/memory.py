"""Keeping memory that has been freed, so that it need not be had from the system again."""

import contextlib
import ctypes

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1


def keep_freed() -> None:
    """Lets the C library keep what is freed, up to 2 GiB, for the next who asks; once, at start.

    XLA on CPU frees the arrays of a step at its end, and the C library gives large ones back to the
    system, which clears each page before it gives it out again: a fifth to a third of a step (2
    cores, `jaxcoder bench train_step`, `jaxcoder bench epoch`). Only the first heap can hold large
    arrays, and a thread that has another one stays with it: hence before any thread starts.

    Does nothing where the C library is not glibc, or one that refuses so high a limit, as older
    ones do.
    """
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):
        libc.gnu_get_libc_version  # noqa: B018  # of glibc alone; others may have a mallopt
        if libc.mallopt(_MMAP_THRESHOLD, _MOST):  # 0 where it was refused, and nothing has changed
            libc.mallopt(_TRIM_THRESHOLD, _MOST)
            libc.mallopt(_ARENA_MAX, 1)
