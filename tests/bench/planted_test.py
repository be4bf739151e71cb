import re

import numpy as np
import pytest

from jaxcoder.bench import planted
from jaxcoder.errors import UserError
from jaxcoder.metrics.automation import Contacts
from jaxcoder.records.schema import Condition, Contact
from jaxcoder.records.sources.synthetic.catalogue import Catalogue


def contact(number, specialty, **chances):
    conditions = tuple(Condition(code, True, chance) for code, chance in chances.items())
    return Contact(f"c{number}", f"p{number}", specialty=specialty, conditions=conditions)


# Always coded, and coded every other time: of the latter the ceiling is 2 × .5 / (1 + .5).
CONTACTS = [
    *(contact(number, "clear", I10=1.0, J18=1.0) for number in range(30)),
    *(contact(number, "vague", E11=0.5) for number in range(30, 90)),
    *(contact(number, "between", I50=0.8) for number in range(90, 100)),
]


def test_ceilings_by_specialty_worked_by_hand(capsys):
    groups = [
        {"grouping": "specialty", "group": "clear", "contacts": "30", "micro_f1": "0.95"},
        {"grouping": "specialty", "group": "vague", "contacts": "60", "micro_f1": "0.6"},
        {"grouping": "specialty", "group": "between", "contacts": "10", "micro_f1": "0.82"},
        {"grouping": "sex", "group": "F", "contacts": "90", "micro_f1": "0.7"},
    ]
    planted._by_specialty(CONTACTS, groups, {"I10": 1.0, "J18": 0.5, "E11": 0.25, "I50": 0.5})
    out = capsys.readouterr().out
    vague, clear = r"vague +60 +0\.25 +0\.667 +0\.600 +90", r"clear +30 +0\.75 +1\.000 +0\.950 +95"
    between = r"between +10 +0\.50 +0\.889 +0\.820 +92\.2%"
    assert re.search(rf"{vague}\.0%\n{between}\n{clear}\.0%\n", out)
    assert "share reached: 1.00," in out


def test_what_is_planted_by_role_worked_by_hand(capsys):
    def row(code, support, share, f1):
        keys = ("code", "support", "share_secondary", "f1")
        return dict(zip(keys, (code, support, share, f1), strict=True))

    codes = [row("I10", "30", "0.0", "0.95"), row("E11", "30", "1.0", "0.60")]
    rare = row("J18", "19", "0.0", "0.1")  # left out
    planted._by_role(CONTACTS, [*codes, rare, row("Z99", "30", "", "0.1")])
    out = capsys.readouterr().out
    assert re.search(r"0% to 20% +1 +1\.000 +0\.950 ", out)
    assert re.search(r"80% to 100% +1 +0\.667 +0\.600 ", out)
    assert out.endswith("planted -0.333, found -0.350\n")
    with pytest.raises(UserError, match="no code occurs 20 times"):
        planted._by_role(CONTACTS, [rare])


def test_a_promise_that_the_halves_cannot_show_is_not_made(capsys):
    patients = 400
    gold = np.full(patients, 2.0)
    hits = np.where(np.arange(patients) < 0.93 * patients, 2.0, 0.0)
    rng = np.random.default_rng(0)
    recall = {depth: hits / 2 for depth in (5, 10, 15)}
    order = rng.permutation(patients)  # confidence knows nothing
    planted._promises(
        Contacts(gold, gold, hits[order], rng.normal(size=patients), np.arange(patients), recall),
        20,
    )
    out = capsys.readouterr().out
    certified = {
        target: tuple(map(int, (count, broken)))
        for target, count, broken in re.findall(r"exact_match +(\S+) +(\d+) +(\d+)", out)
    }
    assert certified["0.80"] == (20, 0)
    assert certified["0.95"][0] <= 1  # of 93 % no half shows that


def test_too_few_specialties_are_one_line():
    with pytest.raises(UserError, match="has 0 specialties, expected at least 3; run"):
        planted._by_specialty(CONTACTS, [], {})


def test_signs_are_medications_and_results_of_the_tables():
    # Appendicitis: metronidazole .6, cefuroxime .5, CRP .8, leukocytes .8.
    expected = 1 - 0.4 * 0.5 * 0.2 * 0.2
    assert planted._signs(Catalogue())["K35.80"] == pytest.approx(expected)
