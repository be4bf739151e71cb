"""The section of groups of contacts: F1 by specialty, and by what else is known of them."""

import math
from collections.abc import Sequence

from jaxcoder.metrics.groups import GROUPINGS, LEAST_PATIENTS
from jaxcoder.report import figures
from jaxcoder.report.canvas import Figure
from jaxcoder.report.figures import Dot
from jaxcoder.report.inputs import Evaluation, Row, number, percent
from jaxcoder.report.page import Absent, Beside, Part, Section, Table

_MOST = 60  # groups in a figure
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
    low, high = _ends(row, name)
    return "–" if math.isnan(low) else f"{percent(low)}–{percent(high)}"


def _ends(row: Row, name: str) -> tuple[float, float]:
    return number(row[f"{name}_low"]), number(row[f"{name}_high"])


def _prevalence(row: Row) -> str:
    """Codes a contact with their interval, where there is one, such as `2.88 (2.81–2.95)`."""
    mean = f"{number(row['codes_per_contact']):.2f}"
    if not row.get("codes_per_contact_low"):  # older files have none
        return mean
    low, high = (number(row[f"codes_per_contact_{end}"]) for end in ("low", "high"))
    return f"{mean} ({low:.2f}–{high:.2f})"


def of_grouping(test: Evaluation, grouping: str) -> list[Row]:
    """The rows of a grouping."""
    return [row for row in test.groups if row["grouping"] == grouping]


def section(test: Evaluation) -> Section:
    """F1 by specialty, then by what else groups contacts."""
    parts: list[Part] = []
    specialties = of_grouping(test, "specialty")
    if specialties:
        parts += _specialties(test, specialties)
    else:
        parts.append(_no_grouping(test, "specialty"))
    drawn: list[Figure] = []
    absent: list[Part] = []
    rows = [row for grouping in _OTHERS for row in of_grouping(test, grouping)]
    limits = _limits(rows)  # the same, so that the figures can be compared
    for grouping, title in _OTHERS.items():
        if mine := of_grouping(test, grouping):
            largest, more = _largest(mine)
            caption = f"Micro-F1 by {title}.{more}"
            drawn.append(_dots(test, largest, f"f1_by_{grouping}", caption, limits))
        else:
            absent.append(_no_grouping(test, grouping))
    if drawn:
        parts.append(Beside(drawn))
    if rows:
        parts.append(_group_table("All other groups", rows, named=True))
    return Section(
        "groups",
        "By specialty and other groups",
        "Each dot is the micro-F1 of a group of contacts, each bar its 95 % interval over "
        "patients; a group whose bar crosses the dashed line may differ from the whole by chance "
        "alone, one with a hollow dot has too few patients for an interval "
        f"({LEAST_PATIENTS} are needed), or patients who do not differ.",
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
    return Absent(f"By {grouping}", "It was not asked for.", f"{test.command} --groups {every}")


def _largest(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """The groups with most contacts, as many as a figure can show in their order, and what to say.

    Returns:
      The groups; and a sentence on the others, empty where there are none.
    """
    if len(rows) <= _MOST:
        return list(rows), ""
    least = sorted((int(row["contacts"]) for row in rows), reverse=True)[_MOST - 1]
    largest = [row for row in rows if int(row["contacts"]) >= least][:_MOST]
    return largest, f" The {_MOST} with most contacts; the table has all {len(rows):,}."


def _specialties(test: Evaluation, rows: Sequence[Row]) -> list[Part]:
    largest, more = _largest(rows)
    ranked = sorted(largest, key=lambda row: -number(row["micro_f1"]))
    caption = f"Micro-F1 by specialty, highest first.{more}"
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
            number(row["micro_f1"]),
            *_ends(row, "micro_f1"),
        )
        for row in rows
    ]
    overall = number(test.groups[0]["micro_f1"])
    label = "micro-F1 (contacts in brackets)"
    return figures.dots(name, caption, found, label, line=overall, line_name="all", limits=limits)


def _group_table(caption: str, rows: Sequence[Row], *, named: bool) -> Table:
    heads = ["group", "contacts", "patients", "codes a contact (95 %)", "micro-F1", "95 % interval"]
    heads += ["precision", "recall", "recall@10", "its 95 % interval", "MAP", "exact match"]
    cells = []
    for row in rows:
        name = f"{_OTHERS[row['grouping']]}: {row['group']}" if named else row["group"]
        line = [name, f"{int(row['contacts']):,}", f"{int(row['patients']):,}"]
        line += [_prevalence(row)]
        line += [percent(number(row["micro_f1"])), interval(row, "micro_f1")]
        line += [percent(number(row[f"micro_{name}"])) for name in ("precision", "recall")]
        line += [percent(number(row["recall_at_10"])), interval(row, "recall_at_10")]
        line += [percent(number(row[name])) for name in ("map", "exact_match")]
        cells.append(line)
    return Table(caption, heads, cells, folded=True)
