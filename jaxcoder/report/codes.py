"""The sections of codes: how role and frequency bear on F1, coarser codes, and each code."""

import math
from collections.abc import Sequence

import numpy as np

from jaxcoder.report import figures
from jaxcoder.report.canvas import Figure
from jaxcoder.report.figures import Line
from jaxcoder.report.inputs import MEASURES, Evaluation, Row, number, percent
from jaxcoder.report.page import Absent, Beside, Listing, Part, Section, Table

_SHARES = np.linspace(0, 1, 6)


def roles(test: Evaluation) -> Section:
    """F1 of codes against how often they are secondary, and how often training had them."""
    lead = (
        "Each faint point is a code; the black line is the mean F1 of codes alike. Secondary "
        "diagnoses are often rare ones, and rare codes are hard: the heat map keeps the two apart, "
        "down for the role, across for the frequency."
    )
    rows = test.table("roles")
    if not rows or not test.codes or "train_support" not in test.codes[0]:
        reason = "roles.csv, or the column train_support of codes.csv, is not there."
        absent = Absent("Roles and frequency", reason, test.command)
        return Section("roles", "Secondary diagnoses and rare codes", lead, [absent])
    held = [row for row in test.codes if int(row["support"])]
    f1 = np.array([number(row["f1"]) for row in held])
    train = np.array([number(row["train_support"]) for row in held])
    share = np.array([number(row["share_secondary"]) for row in held])
    known = ~np.isnan(share)
    drawn: list[Figure] = []
    parts: list[Part] = []
    if known.any():
        drawn.append(
            figures.scatter(
                "f1_by_share_secondary",
                f"F1 of the {known.sum():,} codes whose role is known, by the share of their "
                "occurrences in which they are secondary.",
                share[known],
                f1[known],
                _means(share[known], f1[known], _SHARES),
                "share secondary",
                "F1",
                share_x=True,
            )
        )
    drawn.append(
        figures.scatter(
            "f1_by_train_support",
            f"F1 of the {len(held):,} codes of the split, by their occurrences in training.",
            train,
            f1,
            _means(train, f1, np.array([0, 1, *10.0 ** np.arange(1, 7)]), log=True),
            "occurrences in training",
            "F1",
            share_x=False,
        )
    )
    heat, table = _role_map(rows)
    parts += [Beside(drawn), heat, table]
    if not known.any():
        parts.append(
            Absent(
                "F1 by share secondary",
                "No code has a known role; give the column role of the codes to the source.",
            )
        )
    return Section("roles", "Secondary diagnoses and rare codes", lead, parts)


def _means(x: np.ndarray, y: np.ndarray, edges: np.ndarray, *, log: bool = False) -> Line:
    """Means of y over bins of x that hold something; the last bin holds both its ends."""
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    there = np.unique(place)
    means = [float(y[place == each].mean()) for each in there]
    if log:  # the middle of the logarithms; 0, which has none, stays where it is
        middles = [float(np.expm1(np.log1p(x[place == each]).mean())) for each in there]
    else:
        middles = [float(x[place == each].mean()) for each in there]
    return Line("mean F1 of codes alike", middles, means)


def _role_map(rows: Sequence[Row]) -> tuple[Figure, Table]:
    def shares(row: Row) -> str:
        if not row["share_low"]:
            return "role unknown"
        return f"{percent(number(row['share_low']), 0)}–{percent(number(row['share_high']), 0)} %"

    def counts(row: Row) -> str:
        low, high = number(row["train_low"]), number(row["train_high"])
        if math.isnan(high):
            return f"{low:,.0f}+"
        return f"{low:,.0f}" if low == high else f"{low:,.0f}–{high:,.0f}"

    down = list(dict.fromkeys(shares(row) for row in rows))
    across = list(
        dict.fromkeys(counts(row) for row in sorted(rows, key=lambda row: number(row["train_low"])))
    )
    values = np.full((len(down), len(across)), np.nan)
    texts = [[""] * len(across) for _ in down]
    for row in rows:
        at = down.index(shares(row)), across.index(counts(row))
        values[at] = number(row["macro_f1"])
        plural = "s" * (row["codes"] != "1")
        texts[at[0]][at[1]] = f"{percent(values[at])}\n{int(row['codes']):,} code{plural}"
    cells = [
        (
            f"{shares(row)} secondary" if row["share_low"] else shares(row),
            counts(row),
            f"{int(row['codes']):,}",
            f"{int(row['occurrences']):,}",
            percent(number(row["macro_f1"])),
            percent(number(row["micro_f1"])),
        )
        for row in rows
    ]
    heads = ["share secondary", "occurrences in training", "codes", "occurrences"]
    heads += ["macro-F1", "micro-F1"]
    heat = figures.heat(
        "f1_by_role_and_frequency",
        "Mean F1 of codes, per cent, by share secondary and by frequency.",
        values,
        texts,
        down,
        across,
        "occurrences in training",
        "share secondary",
    )
    return heat, Table("F1 by share secondary and frequency", heads, cells, folded=True)


def granularity(test: Evaluation) -> Section:
    """Scores where a code of the right category counts."""
    lead = (
        "The same predictions, counted at coarser codes: where the right category or chapter is "
        "enough, a neighbouring code counts as right."
    )
    rows = test.table("granularity")
    if not rows:
        absent = Absent("Granularity", "granularity.csv is not there.", test.command)
        return Section("granularity", "Granularity", lead, [absent])
    keys = ("micro_f1", "micro_precision", "micro_recall", "macro_f1")
    cells = [(row["granularity"], *(percent(number(row[key])) for key in keys)) for row in rows]
    place = range(len(rows))
    lines = [
        Line(MEASURES[key], place, [number(row[key]) for row in rows])
        for key in ("micro_f1", "macro_f1")
    ]
    names = [row["granularity"] for row in rows]
    return Section(
        "granularity",
        "Granularity",
        lead,
        [
            Beside(
                [
                    figures.steps("granularity", "F1 by granularity.", lines, names),
                    Table(
                        "Scores by granularity, per cent",
                        ("granularity", "micro-F1", "precision", "recall", "macro-F1"),
                        cells,
                    ),
                ]
            )
        ],
    )


def listing(test: Evaluation) -> Section:
    """Every code, to be searched."""
    lead = (
        "Every code that the coder knows or that the split holds, with what became of it; search, "
        "or sort by a column's head. Rates over a few occurrences say little."
    )
    rows = test.codes
    if not rows:
        absent = Absent("Codes", "codes.csv is not there.", test.command)
        return Section("codes", "Each code", lead, [absent])

    def shares(key: str) -> list[float | None]:
        found = (number(row[key]) for row in rows)
        return [None if math.isnan(value) else round(value, 3) for value in found]

    values: dict[str, list[str] | list[int] | list[float | None]] = {
        "code": [row["code"] for row in rows],
        "description": [row["description"] for row in rows],
    }
    columns = [("code", "code", "text"), ("description", "description", "text")]
    known = rows[0].keys()
    if "chapter" in known:
        values["chapter"] = [row["chapter"] for row in rows]
        columns.append(("chapter", "chapter", "text"))
    values["support"] = [int(row["support"]) for row in rows]
    values["predicted"] = [int(row["tp"]) + int(row["fp"]) for row in rows]
    columns += [("support", "given", "count"), ("predicted", "predicted", "count")]
    if "train_support" in known:
        values["train_support"] = [int(row["train_support"]) for row in rows]
        columns.append(("train_support", "in training", "count"))
    titles = {"precision": "precision", "recall": "recall", "f1": "F1", "auc": "AUC"}
    titles |= {"share_secondary": "secondary"}
    for key, title in titles.items():
        if key in known:
            values[key] = shares(key)
            columns.append((key, title, "percent"))
    caption = f"{len(rows):,} codes; rates and shares are per cent"
    found = Listing(caption, columns, values, f"eval/{test.split}/codes.csv")
    return Section("codes", "Each code", lead, [found])
