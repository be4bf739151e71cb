"""`jaxcoder records`: from a source to contact records."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from jaxcoder import entry
from jaxcoder.errors import UserError
from jaxcoder.records import builder, runner, sources
from jaxcoder.records.export import write_tables
from jaxcoder.records.report import SplitReport, table
from jaxcoder.records.sources import Source

_EPILOG = r"""
examples:
  jaxcoder records --source synthetic --data_dir data --option patients=2000
  jaxcoder records --source codiesp --source_dir final_dataset_v4_to_publish --data_dir data \
      --option language=en --option codes=D
  jaxcoder records --source tables --source_dir my_extract --option name=my_hospital --check
  jaxcoder records --source synthetic --option patients=100 --tables example  # to see the format
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = entry.Parser(
        prog="jaxcoder records",
        description="Reads contacts from a source and writes contact records, split by patient.",
        epilog=_EPILOG,
    )
    parser.add_argument("--source", required=True, help=f"one of {', '.join(sources.NAMES)}")
    parser.add_argument("--source_dir", help="folder with the source's files")
    parser.add_argument("--data_dir", help="folder that data sets are written to")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the source; may be repeated",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="read everything and print the report, but write nothing",
    )
    parser.add_argument(
        "--tables",
        metavar="DIR",
        help="write the five tables of the source's contacts to DIR, as Parquet, and nothing else",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="whatever would be left out or emptied is an error, and nothing is written",
    )
    parser.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="processes; all cores unless given"
    )
    parser.add_argument("--runner", metavar="NAME", help=runner.RUNNER_HELP)
    parser.add_argument(
        "--beam_option", action="append", default=[], metavar="KEY=VALUE", help=runner.OPTION_HELP
    )
    parser.add_argument(
        "--rebuild", action="store_true", help="replace records of that name if there are any"
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
      argv: the arguments, without the program's name.

    Raises:
      UserError: a mistake in the arguments or the source.
    """
    # Batch systems and clusters end a job so: its traces are removed, as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = parser().parse_args(argv)
    options = {}
    for option in arguments.option:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise UserError(f"--option {option}: expected KEY=VALUE")
        options[key] = value
    asked = [name for name in ("check", "tables", "data_dir") if getattr(arguments, name)]
    if not asked:
        raise UserError(
            "--data_dir is missing: expected the folder to write to, or --check to write nothing"
        )
    if len(asked) > 1:
        raise UserError(f"--{' and --'.join(asked)}: expected one of them")
    for way in ("check", "tables"):
        if getattr(arguments, way) and arguments.runner:
            raise UserError(f"--{way} and --runner: expected one; --{way} runs on this machine")
    if arguments.tables and arguments.jobs:
        raise UserError("--tables and --jobs: expected one; tables are written by one process")
    if arguments.tables and epath.Path(arguments.tables).exists():
        raise UserError(f"--tables {arguments.tables}: is there already; expected a new folder")
    source = sources.open_source(arguments.source, arguments.source_dir, options)
    run = runner.open_runner(
        arguments.runner, arguments.jobs, arguments.beam_option, arguments.data_dir
    )
    if arguments.check or arguments.tables:
        summary = (
            builder.check(source, run) if arguments.check else _export(source, arguments.tables)
        )
        print(table(summary))
        if arguments.strict:
            builder.check_nothing_dropped(summary)
        if arguments.tables:
            print(f"Tables {arguments.tables}")
        return
    data = builder.build(
        source,
        arguments.data_dir,
        arguments.rebuild,
        source_dir=arguments.source_dir,
        strict=arguments.strict,
        runner=run,
    )
    print(table(data.report))
    print(f"Contact records {data.path}")


def _export(source: Source, folder: str) -> dict[str, Any]:
    """Writes the tables of a source's contacts; returns their report."""
    reports = {split: SplitReport() for split in source.splits}
    contacts = (
        (split, contact)
        for split, report in reports.items()
        for contact in report.watch(source.contacts(split))
    )
    bar = tqdm(contacts, unit="contact", disable=not sys.stderr.isatty())
    write_tables(bar, folder)
    return builder.summarise(reports, {split: source.dropped(split) for split in ("", *reports)})


if __name__ == "__main__":
    entry.run(main)
