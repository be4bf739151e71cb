r"""`jaxcoder bench planted`: what the synthetic cohort planted, and how much of it a run found.

    jaxcoder train --config configs/demo.py --workdir runs/cohort \
        --config.records.options.patients=12500
    jaxcoder evaluate --workdir runs/cohort --split validation
    jaxcoder evaluate --workdir runs/cohort --split test
    jaxcoder bench planted --workdir runs/cohort

The cohort leaves further conditions uncoded by chance, and knows by which chance: so there is a
best F1, the ceiling, of each specialty and of each code. The run should fall where the ceiling
falls, by as much. Specialties differ in how many of their conditions show outside of the notes, in
a medication or a laboratory result (by the tables that the package carries): where few do, the
signature is vague, and less of the ceiling should be reached. What automation promises is tried on
other draws: a cut is certified on those patients of validation and test that are drawn, and
judged by all of them. (That the threshold was tuned on some of them is not tried.)
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from jaxcoder import entry
from jaxcoder.errors import UserError
from jaxcoder.metrics import automation
from jaxcoder.metrics.automation import Contacts
from jaxcoder.records.schema import Contact
from jaxcoder.records.sources.synthetic.catalogue import Catalogue
from jaxcoder.records.sources.synthetic.ceiling import Ceiling
from jaxcoder.report.inputs import Run, number
from jaxcoder.workdir import Workdir

_LEAST = 20  # occurrences of a code, below which its F1 is mostly noise
_EDGES = (0.0, 0.2, 0.8, 1.0)  # of bands of a code's share secondary


def main(argv: Sequence[str]) -> None:
    """Prints ceiling and F1 by specialty and by share secondary, and broken promises."""
    parser = entry.Parser(prog="jaxcoder bench planted", description=__doc__)
    parser.add_argument("--workdir", required=True, help="a run on the synthetic cohort, evaluated")
    parser.add_argument("--data_dir", default="", help="if not where the config says")
    parser.add_argument("--draws", type=int, default=200, help="of patients, for automation")
    wanted = parser.parse_args(argv)
    if wanted.draws < 1:
        raise UserError(f"--draws {wanted.draws}: expected at least 1")
    run = Run(wanted.workdir)
    validation, test = run.evaluation("validation"), run.evaluation("test")
    for each, name, held in (
        (validation, "contacts.parquet", validation.contacts),
        (test, "contacts.parquet", test.contacts),
        (test, "codes.csv", test.codes),
    ):
        if not held:
            raise UserError(f"{each.folder}: has no {name}; {each.remedy}")
    data = Workdir(wanted.workdir).open_tokens(wanted.data_dir)
    contacts = list(data.contacts().split("test"))  # read once
    if not any(contact.conditions for contact in contacts):
        raise UserError(f"{data.name}: knows no conditions; expected the synthetic cohort")
    print(f"{data.name}, test: {len(contacts):,} contacts")
    _by_role(contacts, test.codes)
    _by_specialty(contacts, test.groups, _signs(Catalogue()))
    both = (validation.contacts, test.contacts)
    everyone = {key: np.concatenate([each[key] for each in both]) for key in both[0]}
    _promises(Contacts.of(everyone), wanted.draws)


def _ceiling(probabilities: Iterable[float]) -> float:
    ceiling = Ceiling()
    ceiling.update(probabilities)
    return ceiling.micro_f1()


def _signs(catalogue: Catalogue) -> dict[str, float]:
    """From a code to the chance that its condition shows in a medication or a result."""
    signs: dict[str, float] = {}
    for condition in catalogue.conditions:
        shares = [sign.share for sign in condition.drugs]
        shares += [sign.share for sign in condition.signatures]
        chance = 1 - math.prod(1 - share for share in shares)
        signs |= {entry.code: chance for entry in condition.codes}
    return signs


def _by_specialty(
    contacts: Sequence[Contact], groups: Sequence[Mapping[str, str]], signs: Mapping[str, float]
) -> None:
    chances: dict[str, list[float]] = collections.defaultdict(list)
    shown: dict[str, list[float]] = collections.defaultdict(list)
    for contact in contacts:
        chances[contact.specialty].extend(each.probability for each in contact.conditions)
        known = (signs.get(each.code) for each in contact.conditions)
        shown[contact.specialty].extend(chance for chance in known if chance is not None)
    rows = [row for row in groups if row["grouping"] == "specialty" and chances[row["group"]]]
    if len(rows) < 3:
        raise UserError(
            f"groups.csv has {len(rows)} specialties, expected at least 3; run `jaxcoder evaluate` "
            "again, with all --groups"
        )
    ceilings = {row["group"]: _ceiling(chances[row["group"]]) for row in rows}
    reached = {row["group"]: number(row["micro_f1"]) / ceilings[row["group"]] for row in rows}
    signature = {name: float(np.mean(shown[name] or np.nan)) for name in reached}
    print(
        f"\n{'specialty':<22}{'contacts':>9}{'signs':>8}{'ceiling':>9}{'micro-F1':>10}{'of it':>8}"
    )
    for row in sorted(rows, key=lambda row: reached[row["group"]]):
        name = row["group"]
        print(
            f"{name:<22}{int(row['contacts']):>9,}{signature[name]:>8.2f}{ceilings[name]:>9.3f}"
            f"{number(row['micro_f1']):>10.3f}{reached[name]:>8.1%}"
        )
    rank = stats.spearmanr(list(signature.values()), list(reached.values()))
    print(
        f"rank correlation of signs and share reached: {rank.statistic:.2f}, p = {rank.pvalue:.3f}"
    )


def _by_role(contacts: Sequence[Contact], codes: Sequence[Mapping[str, str]]) -> None:
    chances: dict[str, list[float]] = collections.defaultdict(list)
    for contact in contacts:
        for condition in contact.conditions:
            chances[condition.code].append(condition.probability)
    held = [row for row in codes if int(row["support"]) >= _LEAST and row["share_secondary"]]
    if not held:
        raise UserError(f"no code occurs {_LEAST} times in the split; generate more patients")
    band_of = np.digitize([number(row["share_secondary"]) for row in held], _EDGES[1:-1])
    print(f"\n{'share secondary':<22}{'codes':>9}{'ceiling':>9}{'mean F1':>10}{'of it':>8}")
    means = []
    for band in np.unique(band_of):
        mine = [row for row, its in zip(held, band_of, strict=True) if its == band]
        ceiling = float(np.mean([_ceiling(chances[row["code"]]) for row in mine]))
        score = float(np.mean([number(row["f1"]) for row in mine]))
        means.append((ceiling, score))
        title = f"{_EDGES[band]:.0%} to {_EDGES[band + 1]:.0%}"
        print(f"{title:<22}{len(mine):>9}{ceiling:>9.3f}{score:>10.3f}{score / ceiling:>8.1%}")
    (first, best), (last, worst) = means[0], means[-1]
    print(f"from the first to the last: planted {last - first:+.3f}, found {worst - best:+.3f}")


def _promises(everyone: Contacts, draws: int) -> None:
    """Certifies on patients drawn with replacement, many times, and judges by all."""
    print(f"\n{draws} draws of as many patients as half of all")
    print(f"{'quality':<14}{'target':>7}{'certified':>11}{'broken':>8}{'automated':>11}")
    for name in automation.QUALITIES:
        quality = everyone.quality(name)
        for target in automation.TARGETS:
            rng, shares, broken = np.random.default_rng(0), [], 0
            for _ in range(draws):
                found = automation.certified_cut(_drawn(everyone, rng), name, target)
                if found is None:
                    continue
                chosen = everyone.confidence >= found[0]
                shares.append(float(chosen.mean()))
                broken += bool(quality[chosen].mean() < target)
            share = f"{np.mean(shares):.1%}" if shares else "-"
            print(f"{name:<14}{target:>7.2f}{len(shares):>11}{broken:>8}{share:>11}")


def _drawn(everyone: Contacts, rng: np.random.Generator) -> Contacts:
    """Half as many patients, drawn independently: one who is drawn twice is two patients."""
    order = np.argsort(everyone.patient, kind="stable")
    _, first, counts = np.unique(everyone.patient[order], return_index=True, return_counts=True)
    drawn = rng.integers(len(first), size=len(first) // 2)
    sizes = counts[drawn]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken = everyone.taking(order[np.repeat(first[drawn], sizes) + within])
    return dataclasses.replace(taken, patient=np.repeat(np.arange(len(drawn)), sizes))


if __name__ == "__main__":
    entry.run(main)
