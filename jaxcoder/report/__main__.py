"""`jaxcoder report`: from a workdir to one page for people."""

import argparse
import datetime
import importlib.util
import os
import shlex
from collections.abc import Sequence

from etils import epath

from jaxcoder import entry
from jaxcoder.errors import UserError
from jaxcoder.report import inputs
from jaxcoder.whole_file import write_bytes

_EPILOG = """
examples:
  jaxcoder report --workdir runs/demo
  jaxcoder report --workdir runs/mine --split test --data_dir data
  jaxcoder report --workdir runs/mine --compare runs/other --output comparison

OUTPUT/index.html is one file that needs no network: send it, print it, open it in any browser. Its
figures lie beside it as SVG and PNG. A split that has not been evaluated is evaluated first.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = entry.Parser(
        prog="jaxcoder report",
        description="Writes a page with scores, figures and tables of a trained coder.",
        epilog=_EPILOG,
    )
    parser.add_argument("--workdir", required=True, help="folder that `jaxcoder train` has written")
    parser.add_argument("--split", default="test", choices=("test", "validation", "train"))
    parser.add_argument(
        "--compare", metavar="WORKDIR", help="another run, evaluated on the same contacts"
    )
    parser.add_argument("--output", metavar="DIR", help="folder to write; WORKDIR/report if none")
    parser.add_argument(
        "--curve",
        metavar="FILE",
        help="a learning curve: its workdir, or CSV with share, patients, contacts, micro_f1, "
        f"recall_at_10; {inputs.LEARNING_CURVE} beside the workdir unless given",
    )
    parser.add_argument(
        "--data_dir", default="", help="where the records lie, if not where the config says"
    )
    parser.add_argument(
        "--no_evaluate",
        action="store_true",
        help="say what has to be evaluated first, and do not do it",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
      argv: the arguments, without the program's name.

    Raises:
      UserError: a mistake in the arguments, the workdir or its evaluations.
    """
    wanted = parser().parse_args(argv)
    for library in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(library) is None:
            raise UserError(
                f"a report needs {library}, which is not installed; pip install 'jaxcoder[report]'"
            )
    run = inputs.Run(wanted.workdir)
    other = inputs.Run(wanted.compare) if wanted.compare else None
    curve = _curve(run, wanted.curve)
    if not wanted.no_evaluate:
        for split in ("validation", wanted.split):
            _evaluate(run, split, wanted.data_dir)
        if other:
            _evaluate(other, wanted.split, wanted.data_dir)
    test = run.evaluation(wanted.split)
    validation = test if wanted.split == "validation" else run.evaluation("validation")
    inputs.check_together(test, validation)

    # They bring matplotlib, which nothing above needs.
    from jaxcoder.report import sections
    from jaxcoder.report.compare import compare, thresholds

    comparison = None
    if other:
        theirs = other.evaluation(wanted.split)
        name = other.name if other.name != run.name else os.fspath(other.workdir)
        comparison = sections.Comparison(name, *compare(test, theirs), thresholds(test, theirs))
    found = sections.report(
        run,
        test,
        validation,
        curve=curve,
        comparison=comparison,
        data_dir=wanted.data_dir,
        command=shlex.join(["jaxcoder", "report", *argv]),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    )
    folder = epath.Path(wanted.output or run.workdir / "report")
    for figure in found.figures:
        write_bytes(folder / f"{figure.name}.svg", figure.svg)
        write_bytes(folder / f"{figure.name}.png", figure.png)
    page = folder / "index.html"
    write_bytes(page, found.html.encode())  # last: its figures are there
    print(f"Report {os.fspath(page)}, open it in a browser; {len(found.figures)} figures beside it")


def _evaluate(run: inputs.Run, split: str, data_dir: str) -> None:
    reason = run.missing(split)
    if not reason:
        return
    print(f"{reason}; evaluating {split}")
    from jaxcoder import evaluate  # brings jax

    words = ["--workdir", os.fspath(run.workdir), "--split", split]
    words += ["--data_dir", data_dir] if data_dir else []
    entry.launch(evaluate.define_flags, evaluate.main, evaluate.__doc__, words)


def _curve(run: inputs.Run, path: str | None) -> Sequence[inputs.Row]:
    if path:
        return inputs.read_curve(path)
    beside = run.workdir.resolve().parent / inputs.LEARNING_CURVE
    return inputs.read_curve(beside) if beside.exists() else []


if __name__ == "__main__":
    entry.run(main)
