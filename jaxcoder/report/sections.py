"""The report of a run: its sections, from the files of a workdir."""

import dataclasses
import math
from collections.abc import Sequence

from jaxcoder.report import codes, figures, groups, headline, history, trust
from jaxcoder.report.canvas import Figure
from jaxcoder.report.compare import Difference
from jaxcoder.report.figures import Dot
from jaxcoder.report.inputs import MEASURES, Evaluation, Row, Run, percent, points
from jaxcoder.report.page import Beside, Part, Section, Table, Tile, render

_MOST_SPECIALTIES = 30


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Another run on the same contacts.

    Attributes:
      name: of its workdir.
      measures: differences, this run less the other.
      specialties: those of micro-F1 by specialty.
      thresholds: a sentence on both runs' thresholds.
    """

    name: str
    measures: Sequence[Difference]
    specialties: Sequence[Difference]
    thresholds: str


@dataclasses.dataclass(frozen=True)
class Report:
    """A page and its figures."""

    html: str
    figures: Sequence[Figure]


def report(
    run: Run,
    test: Evaluation,
    validation: Evaluation,
    *,
    curve: Sequence[Row],
    comparison: Comparison | None,
    data_dir: str,
    command: str,
    date: str,
) -> Report:
    """Makes the report.

    Args:
      run: the workdir.
      test: the evaluation that is shown.
      validation: what mending and cuts are fitted on.
      curve: a learning curve; empty for none.
      comparison: with another run; None for none.
      data_dir: where the records lie now; that of the config when empty.
      command: that makes it.
      date: of today.

    Raises:
      UserError: a file that is broken.
    """
    cuts = trust.operating_points(test, validation)
    share = trust.share_automated(cuts)
    sections = [
        headline.section(test, share),
        *([compared(run.name, comparison)] if comparison else []),
        groups.section(test),
        codes.roles(test),
        codes.granularity(test),
        trust.calibrated(test, validation),
        trust.automated(test, validation, cuts),
        codes.listing(test),
        history.training(run, test, curve),
        history.data(run, data_dir),
        history.making(run, test, command, date),
    ]
    source = run.config.get("records", {}).get("source", "")
    subtitle = f"Medical coding by jaxcoder: {test.split} split"
    subtitle += f" of {source}" if source else ""
    subtitle += f", checkpoint of step {test.details.get('step', 'unknown')}, {date}."
    tiles: list[Tile] = headline.tiles(test, share)
    drawn = [figure for section in sections for figure in section.figures]
    return Report(render(f"Report: {run.name}", subtitle, tiles, sections), drawn)


def compared(name: str, comparison: Comparison) -> Section:
    """Two runs on the same contacts."""
    heads = ("measure", name, comparison.name, "difference", "95 % interval", "so they")
    drawn = [_dots("difference", "Difference of each measure.", comparison.measures, named=True)]
    if comparison.specialties:
        caption = "Difference of micro-F1 by specialty, those of most contacts first."
        shown = comparison.specialties[:_MOST_SPECIALTIES]
        if len(shown) < len(comparison.specialties):
            caption += f" {len(shown)} of them; the table has all {len(comparison.specialties)}."
        drawn.append(_dots("difference_by_specialty", caption, shown))
    parts: list[Part] = [
        Beside(drawn),
        Table(
            "Both runs, per cent and points",
            heads,
            [_cells(each, MEASURES[each.name]) for each in comparison.measures],
        ),
    ]
    if comparison.specialties:
        parts.append(
            Table(
                "Micro-F1 by specialty, per cent and points",
                ("specialty", *heads[1:]),
                [_cells(each, each.name) for each in comparison.specialties],
                folded=True,
            )
        )
    return Section(
        "comparison",
        f"Beside {comparison.name}",
        f"How much {name} is better (right of 0) or worse than {comparison.name} on the same "
        "contacts; where a bar crosses 0, other patients might have turned it round. Each line "
        "stands by itself: of many, 1 in 20 differs by chance. Training again with another seed is "
        f"not in the intervals. {comparison.thresholds}",
        parts,
    )


def _dots(name: str, caption: str, rows: Sequence[Difference], *, named: bool = False) -> Figure:
    found = [
        Dot(
            MEASURES[row.name] if named else row.name,
            *(100 * value for value in (row.difference, row.low, row.high)),
        )
        for row in rows
    ]
    return figures.dots(name, caption, found, "difference, points", line=0.0, share=False)


def _cells(row: Difference, name: str) -> tuple[str, ...]:
    ends = "–" if math.isnan(row.low) else f"{points(row.low)} to {points(row.high)}"
    told = "differ" if row.low > 0 or row.high < 0 else "may be alike"
    told = "–" if math.isnan(row.low) else told
    both = percent(row.this), percent(row.other)
    return name, *both, points(row.difference), ends, told
