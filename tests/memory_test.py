import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, threading
import numpy as np
from jaxcoder import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def allocate():
    before = faults()
    np.ones(64 << 20, np.uint8)
    return faults() - before

if {kept}:
    memory.keep_freed()
counts = []
thread = threading.Thread(target=lambda: counts.extend(allocate() for _ in range(3)))
thread.start()
thread.join()
print(*counts)
"""


def faults_of_three_arrays(kept):
    """Page faults of a thread that has 64 MiB three times, and frees them each time."""
    script = SCRIPT.format(kept=kept)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return [int(word) for word in result.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_what_was_freed_is_had_again_without_page_faults():
    first, *again = faults_of_three_arrays(kept=True)
    _, *without = faults_of_three_arrays(kept=False)
    assert max(again) < min(without) / 10, (first, again, without)
