"""`jaxcoder bench synthetic`: how fast the synthetic cohort is generated, and in how much memory.

The cohort is generated at two sizes, one after the other: that the peak memory of the second is
that of the first shows that memory does not grow with the cohort.
"""

import resource
import sys
import time
from collections.abc import Sequence

from jaxcoder import entry
from jaxcoder.records.sources.synthetic.ceiling import Ceiling
from jaxcoder.records.sources.synthetic.source import Synthetic


def main(argv: Sequence[str]) -> None:
    """Prints contacts a CPU second, peak memory and the ceiling at both sizes."""
    parser = entry.Parser(prog="jaxcoder bench synthetic", description=__doc__)
    parser.add_argument("--patients", type=int, default=1000, help="of the smaller cohort")
    parser.add_argument("--times", type=int, default=10, help="how many times larger the other is")
    arguments = parser.parse_args(argv)
    print(f"{'patients':>10}{'contacts':>10}{'contacts/s':>12}{'peak MiB':>10}{'ceiling':>9}")
    for patients in (arguments.patients, arguments.patients * arguments.times):
        source = Synthetic(None, {"patients": patients})
        ceiling, contacts, started = Ceiling(), 0, time.process_time()
        for split in source.splits:
            for contact in source.contacts(split):
                contacts += 1
                ceiling.add(contact)
        speed = contacts / (time.process_time() - started)
        # Kilobytes, but bytes on macOS.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        peak /= 1024 if sys.platform == "darwin" else 1
        score = ceiling.micro_f1()
        print(f"{patients:>10,}{contacts:>10,}{speed:>12,.0f}{peak:>10,.0f}{score:>9.3f}")


if __name__ == "__main__":
    entry.run(main)
