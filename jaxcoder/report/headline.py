"""The section that is read first: scores with intervals, beside the paper's and baselines."""

from jaxcoder.metrics.groups import UNKNOWN
from jaxcoder.report.groups import interval, of_grouping
from jaxcoder.report.inputs import MEASURES, OUTDATED, Evaluation, number, percent
from jaxcoder.report.page import Absent, Part, Section, Table, Tile, Words

PAPER = {"micro_f1": "71.8", "recall_at_10": "95.5"}
"""Per cent, of Edin et al. (2026), arXiv:2603.00221: 270,000 patients held out."""

_BESIDE = ("micro_f1", "micro_precision", "micro_recall", "macro_f1", "recall_at_10", "map")


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


def section(test: Evaluation, automated: float | None) -> Section:
    """Measures with intervals, beside the paper's, beside baselines, in other conventions."""
    everybody = test.groups[0] if test.groups else {}
    rows = []
    for name, title in MEASURES.items():
        ends = interval(everybody, name) if f"{name}_low" in everybody else "–"
        rows.append((title, percent(test.metrics[name]), ends, PAPER.get(name, "–")))
    ranked = [row for row in of_grouping(test, "specialty") if row["group"] != UNKNOWN]
    values = [number(row["micro_f1"]) for row in ranked if interval(row, "micro_f1") != "–"]
    if values:  # of a few patients, the lowest and the highest are chance
        both = f"{percent(min(values))}–{percent(max(values))}"
        what = f"micro-F1, lowest to highest of {len(values)} specialties with an interval"
        rows.append((what, both, "–", "53–91"))
    share = "–" if automated is None else percent(automated) if automated else "none"
    rows.append(("automated contacts (exact match ≥ 90 %)", share, "–", "about 50"))
    rows.append(("missed secondary diagnoses confirmed", "–", "–", "76–86"))
    parts: list[Part] = [
        Table(
            "Scores, per cent",
            ("measure", "this run", "95 % interval", "Edin et al. 2026"),
            rows,
        ),
        Words(
            "The last column is arXiv:2603.00221, on 270,000 held-out patients of its own data. It "
            "stands here for orientation: scores on other data, with other codes and other habits "
            "of coding, are not comparable. Its share of automated cases is by its own criterion; "
            "how many suggested missed diagnoses are confirmed takes a review of charts by people."
        ),
    ]
    if not test.groups:
        parts.append(
            Absent("Intervals", "groups.csv is not there, or of an older version.", test.command)
        )
    if ceiling := test.details.get("ceiling_micro_f1"):
        parts.append(
            Words(
                "The truth of this synthetic cohort is known: the best that a coder can expect is "
                f"a micro-F1 of {percent(ceiling)} %, because codes were left out on purpose. This "
                f"one reaches {percent(test.details['share_of_ceiling'])} % of it."
            )
        )
    parts.append(
        Words(
            f"{test.metrics['num_gold']:,} codes were given to these contacts; "
            f"{test.metrics['num_gold_outside_label_space']:,} of them are outside the "
            f"{test.metrics['num_labels']:,} that the coder knows, and count as missed."
        )
    )
    parts += [*_beside(test), _conventions(test)]
    return Section(
        "headline",
        "Scores",
        "How well the assigned codes agree with those that were given; an interval shows how far "
        "a score moves where other patients of the same kind are drawn (bootstrap over patients).",
        parts,
    )


def _beside(test: Evaluation) -> list[Part]:
    """Baselines, and this coder with other thresholds."""
    baselines, outdated = test.beside("baseline_")
    coders = {"this coder": test.metrics} | {f"baseline: {n}": m for n, m in baselines.items()}
    absent: list[Part] = [
        Absent(f"Baseline {name}", OUTDATED, f"{test.command} --baseline {name}")
        for name in outdated
    ]
    thresholds, outdated = test.beside("thresholds_")
    absent += [
        Absent(f"A threshold for each {by}", OUTDATED, f"{test.command} --thresholds {by}")
        for by in outdated
    ]
    for by, metrics in thresholds.items():
        coders[f"this coder, a threshold for each {by}"] = metrics
    parts: list[Part] = []
    if len(coders) > 1:
        heads = ("coder", *(MEASURES[key] for key in _BESIDE))
        rows = [(name, *(percent(found[key]) for key in _BESIDE)) for name, found in coders.items()]
        parts.append(Table("On the same contacts, per cent", heads, rows))
    if not baselines:
        reason, command = "None was evaluated on this split.", f"{test.command} --baseline lexicon"
        parts.append(Absent("Baselines", reason, command))
    return parts + absent


def _conventions(test: Evaluation) -> Part:
    if "comparable" not in test.details:
        return Absent(
            "Scores in the conventions of other studies",
            "details.json has none; it is of an older version.",
            test.command,
        )
    other = test.details["comparable"]
    titles = MEASURES | {"r_precision": "R-precision"}
    titles |= {f"precision_at_{depth}": f"precision@{depth}" for depth in (5, 8, 15)}
    rows = [
        (
            "macro-F1, of the mean precision and recall over all codes (Mullenbach et al. 2018)",
            percent(test.details["macro_f1_of_means"]),
        )
    ]
    rows += [
        (f"{title}, as in Edin et al. 2023 (arXiv:2304.10909)", percent(other[key]))
        for key, title in titles.items()
        if key in other
    ]
    return Table(
        "Scores in the conventions of other studies, per cent",
        ("convention", "this run"),
        rows,
        folded=True,
    )
