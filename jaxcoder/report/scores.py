"""Sections on how good the codes are: headline, groups, roles, granularity, each code."""

import math
from collections.abc import Sequence

import numpy as np

from jaxcoder.metrics.groups import GROUPINGS, UNKNOWN
from jaxcoder.report import figures
from jaxcoder.report.figures import Dot, Figure, Line
from jaxcoder.report.inputs import Evaluation, Row, number, percent
from jaxcoder.report.page import Absent, Beside, Listing, Part, Section, Table, Tile, Words

MEASURES = {
    "micro_f1": "micro-F1",
    "micro_precision": "precision (micro)",
    "micro_recall": "recall (micro)",
    "macro_f1": "macro-F1",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "recall_at_15": "recall@15",
    "map": "MAP",
    "exact_match": "exact match",
    "jaccard": "Jaccard",
    "auc_micro": "AUC (micro)",
    "auc_macro": "AUC (macro)",
}
"""Measures of metrics.json and what people call them."""

PAPER = {"micro_f1": "71.8", "recall_at_10": "95.5"}
"""Per cent, of Edin et al. (2026), arXiv:2603.00221: 270,000 patients held out."""

_BESIDE = ("micro_f1", "micro_precision", "micro_recall", "macro_f1", "recall_at_10", "map")
_MOST_SPECIALTIES = 60
_SHARES = np.linspace(0, 1, 6)
_OTHERS = {
    "sex": "sex",
    "age": "age in years",
    "kind": "kind of contact",
    "year": "year",
    "notes": "number of notes",
    "tokens": "length in tokens",
}


def interval(row: Row, name: str) -> str:
    """The 95 % interval of a measure in groups.csv, per cent, such as `70.1–73.4`."""
    low, high = number(row[f"{name}_low"]), number(row[f"{name}_high"])
    return "–" if math.isnan(low) else f"{percent(low)}–{percent(high)}"


def tiles(test: Evaluation, automated: float | None) -> list[Tile]:
    """The numbers that are looked at first.

    Args:
      test: the evaluation.
      automated: share of the contacts that need no person; None where it is not known.
    """
    found = []
    for name in ("micro_f1", "recall_at_10", "macro_f1"):
        note = ""
        if test.groups and f"{name}_low" in test.groups[0]:
            note = f"{interval(test.groups[0], name)}, 95 % interval"
        found.append(Tile(MEASURES[name], f"{percent(test.metrics[name])} %", note))
    if automated is not None:
        value = f"{percent(automated)} %" if automated else "none"
        found.append(Tile("automated contacts", value, "exact match ≥ 90 %, certified"))
    patients = f"of {int(test.groups[0]['patients']):,} patients" if test.groups else ""
    found.append(Tile("contacts", f"{test.metrics['num_contacts']:,}", patients))
    return found


def headline(test: Evaluation, automated: float | None) -> Section:
    """Measures with intervals, beside the paper's, beside baselines, in other conventions."""
    everybody = test.groups[0] if test.groups else {}
    rows = []
    for name, title in MEASURES.items():
        ends = interval(everybody, name) if f"{name}_low" in everybody else "–"
        rows.append((title, percent(test.metrics[name]), ends, PAPER.get(name, "–")))
    ranked = [row for row in of_grouping(test, "specialty") if row["group"] != UNKNOWN]
    if ranked:
        values = [number(row["micro_f1"]) for row in ranked]
        both = f"{percent(min(values))}–{percent(max(values))}"
        rows.append(("micro-F1 by specialty, lowest–highest", both, "–", "53–91"))
    share = "–" if automated is None else percent(automated) if automated else "none"
    rows.append(
        ("contacts automated (exact match ≥ 90 %, certified)", share, "–", "about half of cases")
    )
    rows.append(
        ("suggested missed secondary diagnoses confirmed", "needs chart review", "–", "76–86")
    )
    parts: list[Part] = [
        Table(
            "Scores, per cent",
            ("measure", "this run", "95 % interval", "Edin et al. 2026"),
            rows,
        ),
        Words(
            "The last column is arXiv:2603.00221, on 270,000 held-out patients of its own data, and "
            "stands here for orientation: scores on other data, with other codes and other habits "
            "of coding, are not comparable. Its share of automated cases is by its own criterion."
        ),
    ]
    if not test.groups:
        parts.append(
            Absent("Intervals", "groups.csv has none; it is of an older version.", test.command)
        )
    if ceiling := test.details.get("ceiling_micro_f1"):
        parts.append(
            Words(
                f"The truth of this synthetic cohort is known: no coder can exceed a micro-F1 of "
                f"{percent(ceiling)} %, because codes were left out on purpose. This one reaches "
                f"{percent(test.details['share_of_ceiling'])} % of it."
            )
        )
    parts.append(
        Words(
            f"{test.metrics['num_gold']:,} codes were given to these contacts; "
            f"{test.metrics['num_gold_outside_label_space']:,} of them are outside the "
            f"{test.metrics['num_labels']:,} that the coder knows, and count as missed."
        )
    )
    parts += [_baselines(test), _conventions(test)]
    return Section(
        "headline",
        "Scores",
        "How well the assigned codes agree with those that were given; an interval shows how far "
        "a score moves where other patients of the same kind are drawn (bootstrap over patients).",
        parts,
    )


def _baselines(test: Evaluation) -> Part:
    found = test.beside("baseline_")
    if not found:
        return Absent(
            "Baselines", "None was evaluated on this split.", f"{test.command} --baseline lexicon"
        )
    coders = {"this coder": test.metrics} | {f"baseline: {n}": m for n, m in found.items()}
    rows = [
        (name, *(percent(metrics[key]) for key in _BESIDE)) for name, metrics in coders.items()
    ]
    heads = ("coder", *(MEASURES[key] for key in _BESIDE))
    return Table("On the same contacts, per cent", heads, rows)


def _conventions(test: Evaluation) -> Part:
    if "comparable" not in test.details:
        return Absent(
            "Scores in the conventions of other studies",
            "details.json has none; it is of an older version.",
            test.command,
        )
    other = test.details["comparable"]
    rows = [
        (
            "macro-F1, of the mean precision and recall over all codes (Mullenbach et al. 2018)",
            percent(test.details["macro_f1_of_means"]),
        )
    ]
    rows += [
        (f"{MEASURES[key]} as in Edin et al. 2023 (arXiv:2304.10909)", percent(other[key]))
        for key in MEASURES
        if key in other
    ]
    return Table(
        "Scores in the conventions of other studies, per cent",
        ("measure", "this run"),
        rows,
        folded=True,
    )


def of_grouping(test: Evaluation, grouping: str) -> list[Row]:
    """The rows of a grouping."""
    return [row for row in test.groups if row["grouping"] == grouping]


def grouped(test: Evaluation) -> Section:
    """F1 by specialty, then by what else groups contacts."""
    parts: list[Part] = []
    specialties = of_grouping(test, "specialty")
    if specialties:
        parts += _specialties(test, specialties)
    else:
        parts.append(_no_grouping(test, "specialty"))
    drawn, absent = [], []
    rows = [row for grouping in _OTHERS for row in of_grouping(test, grouping)]
    limits = _limits(rows)  # the same, so that the figures can be compared
    for grouping, title in _OTHERS.items():
        if mine := of_grouping(test, grouping):
            caption = f"Micro-F1 by {title}."
            drawn.append(_dots(test, mine, f"f1_by_{grouping}", caption, limits))
        else:
            absent.append(_no_grouping(test, grouping))
    if drawn:
        parts.append(Beside(drawn))
    if rows:
        parts.append(_group_table("All other groups", rows, named=True))
    return Section(
        "groups",
        "By specialty and other groups",
        "Each dot is the micro-F1 of a group of contacts, each bar its 95 % interval over patients; "
        "a group whose bar crosses the dashed line may differ from the whole by chance alone.",
        parts + absent,
    )


def _no_grouping(test: Evaluation, grouping: str) -> Absent:
    if not test.groups:
        return Absent(f"By {grouping}", "groups.csv knows no such groups.", test.command)
    if grouping in test.details.get("groups_absent", ()):
        return Absent(
            f"By {grouping}", "The records do not know it of any contact; give it to the source."
        )
    every = ",".join(GROUPINGS)
    return Absent(
        f"By {grouping}", "It was not asked for.", f"{test.command} --groups {every}"
    )


def _specialties(test: Evaluation, rows: Sequence[Row]) -> list[Part]:
    largest = sorted(rows, key=lambda row: -int(row["contacts"]))[:_MOST_SPECIALTIES]
    ranked = sorted(largest, key=lambda row: -number(row["micro_f1"]))
    caption = "Micro-F1 by specialty, highest first."
    if len(largest) < len(rows):
        caption += f" The {len(largest)} with most contacts; the table has all {len(rows)}."
    every = sorted(rows, key=lambda row: -number(row["micro_f1"]))
    return [
        _dots(test, ranked, "f1_by_specialty", caption),
        _group_table("All specialties", every, named=False),
    ]


def _limits(rows: Sequence[Row]) -> tuple[float, float] | None:
    """Of an axis that holds all intervals."""
    ends = [number(row[f"micro_f1{end}"]) for row in rows for end in ("", "_low", "_high")]
    known = [end for end in ends if not math.isnan(end)]
    if not known:
        return None
    room = 0.06 * (max(known) - min(known)) + 0.001
    return min(known) - room, max(known) + room


def _dots(
    test: Evaluation,
    rows: Sequence[Row],
    name: str,
    caption: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    found = [
        Dot(
            f"{row['group']} ({int(row['contacts']):,})",
            *(number(row[f"micro_f1{end}"]) for end in ("", "_low", "_high")),
        )
        for row in rows
    ]
    overall = number(test.groups[0]["micro_f1"])
    label = "micro-F1 (contacts in brackets)"
    return figures.dots(
        name, caption, found, label, line=overall, line_name="all", limits=limits
    )


def _group_table(caption: str, rows: Sequence[Row], *, named: bool) -> Table:
    heads = ["group", "contacts", "patients", "codes a contact", "micro-F1", "95 % interval"]
    heads += ["precision", "recall", "recall@10", "its 95 % interval", "MAP", "exact match"]
    cells = []
    for row in rows:
        name = f"{_OTHERS[row['grouping']]}: {row['group']}" if named else row["group"]
        line = [name, f"{int(row['contacts']):,}", f"{int(row['patients']):,}"]
        line += [f"{number(row['codes_per_contact']):.2f}"]
        line += [percent(number(row["micro_f1"])), interval(row, "micro_f1")]
        line += [percent(number(row[f"micro_{name}"])) for name in ("precision", "recall")]
        line += [percent(number(row["recall_at_10"])), interval(row, "recall_at_10")]
        line += [percent(number(row[name])) for name in ("map", "exact_match")]
        cells.append(line)
    return Table(caption, heads, cells, folded=True)


def roles(test: Evaluation) -> Section:
    """F1 of codes against how often they are secondary, and how often training had them."""
    lead = (
        "Each faint point is a code; the black line is the mean F1 of codes alike. Secondary "
        "diagnoses are often rare ones, and rare codes are hard: the heat map keeps the two apart, "
        "down for the role, across for the frequency."
    )
    rows = test.table("roles")
    if not rows or not test.codes or "train_support" not in test.codes[0]:
        absent = Absent("Roles and frequency", "roles.csv is not there.", test.command)
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
    heads = ("share secondary", "occurrences in training", "codes", "occurrences")
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
    heads = (*heads, "macro-F1", "micro-F1")
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


def codes(test: Evaluation) -> Section:
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
    listing = Listing(caption, columns, values, f"eval/{test.split}/codes.csv")
    return Section("codes", "Each code", lead, [listing])
