"""Sections on how far the coder can be trusted: calibration, and what it may code alone."""

from typing import Any

import numpy as np

from jaxcoder.metrics import automation, calibration
from jaxcoder.report import figures
from jaxcoder.report.figures import Line
from jaxcoder.report.inputs import Evaluation, percent
from jaxcoder.report.page import Absent, Beside, Part, Section, Table, Words

_UNDRAWN = "and a bias"  # hardly to be told from the temperature's line
_QUALITIES = {"exact_match": "exact match", "jaccard": "Jaccard", "f1": "F1 of the contact"}
HEADLINE = ("exact_match", 0.90)
"""The quality and target whose share of contacts stands at the head of the page."""


def _absent(what: str, file: str, test: Evaluation, validation: Evaluation) -> Absent | None:
    """Why a section that is fitted on validation cannot be; None where both splits have a file."""
    if test.split == validation.split:
        return Absent(
            what,
            "It is fitted on validation, and would say nothing when judged on the same contacts.",
            f"jaxcoder report --workdir {test.folder.parent.parent} --split test",
        )
    for each in (test, validation):
        if not (each.folder / file).exists():
            return Absent(what, f"eval/{each.split}/{file} is not there.", each.command)
    return None


def calibrated(test: Evaluation, validation: Evaluation) -> Section:
    """Reliability before and after mending on validation."""
    lead = (
        "Of the codes to which the coder gives a probability of 70 %, 70 % should be right: points "
        "below the dotted diagonal are promises that are not kept. Mending is fitted on validation "
        "and judged on these contacts."
    )

    def section(*parts: Part) -> Section:
        return Section("calibration", "Calibration", lead, parts)

    if absent := _absent("Calibration", "reliability.csv", test, validation):
        return section(absent)
    before, after = (
        calibration.Reliability.of(each.table("reliability")) for each in (validation, test)
    )
    fitted = calibration.Mends.fit(before)
    ways: dict[str, calibration.Mend | None] = {
        "as they are": None,
        "temperature": fitted.temperature,
        _UNDRAWN: fitted.temperature_and_bias,
        "isotonic": fitted.isotonic,
    }
    lines = [
        _reliable(name, after, after.probability if mend is None else mend(after.probability))
        for name, mend in ways.items()
        if name != _UNDRAWN
    ]
    cells = []
    for name, mend in ways.items():
        found = calibration.scores(after, mend)
        errors = percent(found["ece"], 3), percent(found["ece_adaptive"], 2)
        cells.append((name, *errors, f"{found['brier']:.5f}", f"{found['log_loss']:.5f}"))
    drawn = figures.curves(
        "reliability",
        "Share of codes that are right, by probability, in 15 groups of equal width.",
        lines,
        "probability",
        "share right",
        share_x=True,
        diagonal=True,
    )
    table = Table(
        "Calibration before and after mending",
        ("probabilities", "ECE, %", "adaptive ECE, %", "Brier score", "log loss"),
        cells,
    )
    return section(
        Beside([drawn, table]),
        Words(
            f"The temperature fitted on validation is {fitted.temperature.temperature:.3f}; above "
            "1, probabilities are too sure of themselves. ECE, the calibration error, is over all "
            "pairs of a contact and a code, of which nearly all are near 0; the adaptive one is "
            "over those above 1 % and tells more."
        ),
    )


def _reliable(name: str, found: calibration.Reliability, probability_C: np.ndarray) -> Line:
    """Mean probability and share of gold in groups of equal width that hold something."""
    groups = calibration.GROUPS
    place = np.minimum((probability_C * groups).astype(int), groups - 1)
    seen = np.bincount(place, found.seen, groups)
    there = seen > 0
    x, y = (
        np.bincount(place, weight, groups)[there] / seen[there]
        for weight in (found.seen * probability_C, found.positive)
    )
    return Line(name, x.tolist(), y.tolist())


def operating_points(test: Evaluation, validation: Evaluation) -> list[dict[str, Any]]:
    """Cuts chosen on validation, applied to test; empty where they cannot be.

    Raises:
      UserError: a broken contacts.parquet.
    """
    if test.split == validation.split or not test.contacts or not validation.contacts:
        return []
    return automation.operating_points(*(_contacts(each) for each in (validation, test)))


def share_automated(points: list[dict[str, Any]]) -> float | None:
    """The share of contacts at `HEADLINE`, in [0, 1]; None where there are no points."""
    found = [row for row in points if (row["quality"], row["target"]) == HEADLINE]
    return float(found[0]["test_share"]) if found else None


def automated(test: Evaluation, validation: Evaluation, points: list[dict[str, Any]]) -> Section:
    """How many contacts need no person, and how well they are then coded."""
    lead = (
        "Contacts are sorted by how sure the coder is. From left to right ever more are coded "
        "without a person, and the quality of those falls; a star is a cut that validation "
        "certifies."
    )

    def section(*parts: Part) -> Section:
        return Section("automation", "Automation", lead, parts)

    if absent := _absent("Automation", "contacts.parquet", test, validation):
        return section(absent)
    before, after = _contacts(validation), _contacts(test)
    rows = automation.curve(after, automation.exact_match_line(before))
    share = [row["share"] for row in rows]
    lines = []
    for key, title in _QUALITIES.items():
        # A curve has the micro-F1 of all these contacts; cuts are for the mean of each one's.
        quality = after.quality(key)
        means = [float(quality[after.confidence >= row["confidence"]].mean()) for row in rows]
        lines.append(Line(title, share, means))
    stars = [
        (row["test_share"], row["test_quality"], f"{row['target']:.0%}".replace("%", " %"))
        for row in points
        if row["test_contacts"]
    ]
    drawn = figures.curves(
        "automation",
        "Quality of the contacts that are coded without a person, by their share.",
        lines,
        "share of contacts without a person",
        "quality of these",
        share_x=True,
        marked=stars,
    )
    certified = [row for row in points if row["confidence"] is not None]
    parts: list[Part] = [Beside([drawn, _guarantee()]), _points(points)]
    if len(certified) < len(points):
        parts.append(
            Words(
                f"{len(points) - len(certified)} of {len(points)} targets are not certified: the "
                f"{len(before):,} validation contacts do not show that even the surest reach them."
            )
        )
    return section(*parts)


def _guarantee() -> Words:
    return Words(
        "A cut is certified where a lower bound of the quality on validation reaches the target: "
        f"of all the validation patients that could have been drawn, at most "
        f"{100 * (1 - automation.LEVEL):.0f} % give a cut above which the quality on all patients "
        "is below the target. That holds for each row of the table by itself, and for patients "
        "like those of validation: not for another hospital or another year. Threshold and "
        "checkpoint were chosen on the same contacts, which favours them a little. What is left is "
        "coded "
        "by a person who sees the first suggestions; the last columns say how many of the right "
        "codes are among these."
    )


def _points(points: list[dict[str, Any]]) -> Table:
    heads = ["quality, at least", "share automated", "contacts", "quality reached"]
    heads += ["bound on validation", "left to a person", "recall@5 of these"]
    heads += ["recall@10", "recall@15"]
    cells = []
    for row in points:
        name = f"{_QUALITIES[row['quality']]} {row['target']:.0%}".replace("%", " %")
        recalls = [percent(row[f"rest_recall_at_{depth}"]) for depth in (5, 10, 15)]
        if row["confidence"] is None:
            cells.append([name, "not certified", *["–"] * 3, f"{row['rest_contacts']:,}", *recalls])
            continue
        line = [name, percent(row["test_share"]), f"{row['test_contacts']:,}"]
        line += [percent(row["test_quality"]), percent(row["validation_bound"])]
        cells.append([*line, f"{row['rest_contacts']:,}", *recalls])
    return Table("Operating points chosen on validation; shares and rates per cent", heads, cells)


def _contacts(each: Evaluation) -> automation.Contacts:
    return automation.Contacts.of(each.contacts, str(each.folder / "contacts.parquet"))
