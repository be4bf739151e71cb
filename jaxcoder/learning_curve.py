r"""Trains a config on rising shares of the patients, and shows what more of them would bring.

    jaxcoder learning_curve --config configs/demo.py --workdir runs/curve
    jaxcoder learning_curve --config configs/tables.py --workdir runs/curve --shares 0.1,0.3,1 \
        --split test --config.records.source_dir=extract

Each share is a run of `jaxcoder train` with config.tokens.train_share in WORKDIR/SHARE, and of
`jaxcoder evaluate`: label space, tokenizer and lexicons come from the patients of the share alone,
and the patients of a smaller one are among those of a larger one. What is finished is not done
again. WORKDIR/learning_curve.csv has a line for each share, in rising order.

Where config.train.total counts epochs, a small share also has few steps; '2000 steps' gives all
shares as many.
"""

import csv
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxcoder import entry
from jaxcoder.errors import UserError
from jaxcoder.records.schema import SCORED
from jaxcoder.whole_file import whole_file, write_json
from jaxcoder.workdir import Workdir

COLUMNS = ("share", "patients", "contacts", "labels", "micro_f1", "macro_f1", "recall_at_10", "map")
"""Of learning_curve.csv: what was trained on, and how it did."""

_SHARES = "0.01,0.03,0.1,0.3,1"


def main(argv: Sequence[str]) -> None:
    """Trains and evaluates each share, writes the table and prints it."""
    parser = entry.Parser(prog="jaxcoder learning_curve", description=__doc__)
    parser.add_argument("--config", required=True, help="experiment, as of jaxcoder train")
    parser.add_argument("--workdir", required=True, help="folder of the runs")
    parser.add_argument("--shares", default=_SHARES, help="of the training patients")
    parser.add_argument("--split", default="test", choices=SCORED, help="what is evaluated")
    wanted, others = parser.parse_known_args(argv)
    if wrong := [each for each in others if not each.startswith("--config.")]:
        raise UserError(f"{wrong[0]}: unexpected argument; only --config.a.b=value goes to train")
    shares, rows = read_shares(wanted.shares), []
    _same(epath.Path(wanted.workdir), wanted.config, others)
    for share in shares:
        workdir = Workdir(epath.Path(wanted.workdir) / f"{share:g}")
        metrics = workdir.evaluation(wanted.split) / "metrics.json"
        if not workdir.finished.exists():
            metrics.unlink(missing_ok=True)
            _run(
                *("train", "--config", wanted.config, "--workdir", workdir.path, *others),
                f"--config.tokens.train_share={share:g}",
            )
            if not workdir.finished.exists():
                print(f"{workdir.path}: told to end; the same command goes on")
                return
        if not metrics.exists():
            _run("evaluate", "--workdir", workdir.path, "--split", wanted.split)
        rows.append(_row(workdir, share, json.loads(metrics.read_text())))
        write(epath.Path(wanted.workdir) / "learning_curve.csv", rows)
    print(table(rows))


def _same(folder: epath.Path, config: str, others: Sequence[str]) -> None:
    """Keeps what the shares are trained with, so that all of a curve are trained alike.

    Raises:
      UserError: the curve was begun with something else.
    """
    file = epath.Path(config.partition(":")[0])
    content = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
    now = {"config": config, "content": content, "options": sorted(others)}
    path = folder / "learning_curve.json"
    if not path.exists() or not any(folder.glob("*/config.json")):  # no share has begun
        write_json(path, now)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError:
        before = None
    if not isinstance(before, dict) or before.keys() != now.keys():
        raise UserError(
            f"{path}: cannot be read; expected what the curve was begun with; delete it if that "
            "was the same, or give another --workdir"
        )
    remedy = "give what the curve was begun with, or another --workdir"
    for key, what in (("config", "--config"), ("options", "options")):
        if before[key] != now[key]:
            raise UserError(f"{folder}: begun with {what} {before[key]}, now {now[key]}; {remedy}")
    if before["content"] != now["content"]:
        raise UserError(f"{folder}: {file} has changed since the curve was begun; {remedy}")


def read_shares(text: str) -> list[float]:
    """Reads `0.01,0.1,1`, in rising order.

    Raises:
      UserError: not shares in (0, 1].
    """
    try:
        shares = sorted({float(each) for each in text.split(",")})
    except ValueError:
        shares = []
    if not shares or not 0 < shares[0] <= shares[-1] <= 1:
        raise UserError(f"--shares {text}: expected shares in (0, 1], such as {_SHARES}")
    return shares


def write(path: epath.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the table, whole or not at all."""
    with whole_file(path) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: f"{x:.6g}" if isinstance(x := row[key], float) else x for key in COLUMNS}
            )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table for people."""
    lines = ["".join(f"{name:>13}" for name in COLUMNS)]
    for row in rows:
        cells = (row[key] for key in COLUMNS)
        lines.append("".join(f"{x:>13,}" if isinstance(x, int) else f"{x:>13.4g}" for x in cells))
    return "\n".join(lines)


def _row(workdir: Workdir, share: float, metrics: dict[str, Any]) -> dict[str, Any]:
    data = workdir.open_tokens()
    contacts = data.contacts().split("train")
    patients = len(set(data.contacts().patients("train")))
    return {
        "share": share,
        "patients": patients,
        "contacts": len(contacts),
        "labels": len(data.label_space),
    } | {key: metrics[key] for key in COLUMNS[4:]}


def _run(*words: object) -> None:
    """Runs a command of jaxcoder, and ends as it does where it fails; SIGTERM is passed on."""
    child = subprocess.Popen([sys.executable, "-m", "jaxcoder.cli", *map(str, words)])
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        status = child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if status:
        sys.exit(status if status > 0 else 128 - status)


if __name__ == "__main__":
    entry.run(main)
