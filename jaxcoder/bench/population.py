"""`jaxcoder bench population`: contact records at two sizes, and how long 5.8 million would take.

Contacts come from the synthetic cohort or, with `--source tables`, from Parquet tables of about 500
words and 20 laboratory rows a contact, written beforehand. That the peak memory is the same at both
sizes, and time a multiple, shows that a hospital's own millions need no larger machine.
"""

import tempfile
from collections.abc import Sequence

from jaxcoder import entry
from jaxcoder.bench.footprint import measure
from jaxcoder.bench.records import write_extract
from jaxcoder.errors import UserError
from jaxcoder.records import builder
from jaxcoder.records.runner import Local
from jaxcoder.records.sources import open_source

_ALL = 5_800_000  # contacts of 1.8 million patients (arXiv:2603.00221)
_A_PATIENT = 5.8 / 1.8


def build(folder: str, source: str, contacts: int, jobs: int) -> int:
    """Builds contact records below a folder; returns how many."""
    if source == "tables":
        opened = open_source("tables", f"{folder}/extract", {"name": f"n{contacts}"})
    else:
        options = {
            "name": f"n{contacts}",
            "patients": round(contacts / _A_PATIENT),
            "contacts_per_patient": _A_PATIENT,
        }
        opened = open_source("synthetic", None, options)
    data = builder.build(opened, folder, runner=Local(jobs), say=lambda line: None)
    return sum(len(data.split(split)) for split in data.splits)


def main(argv: Sequence[str]) -> None:
    """Prints contacts a second and peak memory at both sizes, and the projection."""
    parser = entry.Parser(prog="jaxcoder bench population", description=__doc__)
    parser.add_argument("--source", choices=("synthetic", "tables"), default="synthetic")
    parser.add_argument("--contacts", type=int, default=100_000, help="of the smaller build")
    parser.add_argument("--times", type=int, default=4, help="how many times larger the other is")
    parser.add_argument("--jobs", type=int, default=0, help="processes; all cores unless given")
    arguments = parser.parse_args(argv)
    if arguments.contacts < 1 or arguments.times < 2:
        raise UserError(
            f"--contacts {arguments.contacts} --times {arguments.times}: expected at least 1 and 2"
        )
    print(f"{'contacts':>10}{'seconds':>10}{'contacts/s':>12}{'peak MiB':>10}")
    rows = []
    for contacts in (arguments.contacts, arguments.contacts * arguments.times):
        with tempfile.TemporaryDirectory() as folder:
            if arguments.source == "tables":
                measure(write_extract, f"{folder}/extract", contacts)
            took = measure(build, folder, arguments.source, contacts, arguments.jobs)
        rows.append((took.result, took.seconds))
        speed = took.result / took.seconds
        print(
            f"{took.result:>10,}{took.seconds:>10,.0f}{speed:>12,.0f}{took.peak / 2**20:>10,.0f}",
            flush=True,
        )
    (few, first), (many, last) = rows
    a_contact = (last - first) / (many - few)
    seconds = last + a_contact * (_ALL - many)
    print(
        f"{_ALL:>10,}{seconds:>10,.0f}{_ALL / seconds:>12,.0f}  projected, {seconds / 3600:.1f} h"
    )


if __name__ == "__main__":
    entry.run(main)
