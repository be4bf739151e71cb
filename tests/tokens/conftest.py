"""A small cohort for the tests of token records, and a source that has its contacts at hand."""

from collections.abc import Callable
from typing import Any

import pytest

from jaxcoder.records import builder
from jaxcoder.records.data import ContactData
from jaxcoder.records.findings import Findings
from jaxcoder.records.runner import Runner
from jaxcoder.records.schema import Code, Contact, Evidence, Lab, Medication, Note
from jaxcoder.records.sources import Source

WORDS = {
    "I10": "hypertension",
    "E11.9": "type 2 diabetes",
    "E11.65": "diabetes with hyperglycaemia",
    "J45.9": "asthma",
    "N39.0": "urinary infection",
}

Splits = dict[str, list[Contact]]


def one_contact(number: int, codes: list[str], filler: int = 10) -> Contact:
    """A contact whose note mentions each of its codes once, with evidence."""
    text = f"Contact {number}. "
    evidence = []
    for mention, code in enumerate(codes):
        words = WORDS.get(code, f"condition {code}")
        evidence.append(Evidence(code, 0, len(text), len(text) + len(words), mention))
        text += f"{words.capitalize()}, {'nothing new ' * filler}. "
    return Contact(
        f"c{number}",
        f"p{number}",
        specialty="medicine" if number % 2 else "",
        start=f"20{10 + number % 5}-03-01T08:00:00" if number % 4 else "",
        age=50.0 + number % 30 if number % 3 else None,
        sex="F",
        kind="inpatient" if number % 2 else "",
        notes=(Note(text, "discharge"),),
        medications=(Medication("C07AB02", "metoprolol"),) if "I10" in codes else (),
        labs=(Lab(name="glucose", value="12", unit="mmol/L", high=7.0),),
        codes=tuple(
            Code(code, "icd10", "secondary" if rank else "primary", rank + 1)
            for rank, code in enumerate(codes)
        ),
        evidence=tuple(evidence),
    )


class Memory(Source):
    """A source of contacts at hand."""

    name = "memory"

    def __init__(self, contacts: Splits) -> None:
        self._held = contacts

    @property
    def identity(self) -> dict[str, Any]:
        return {"source": "memory", "sizes": [len(each) for each in self._held.values()]}

    def parts(self, runner: Runner) -> tuple[dict[str, Any], Findings]:
        parts = {split: [lambda _, held=held: iter(held)] for split, held in self._held.items()}
        return parts, Findings()


@pytest.fixture
def make_contact() -> Callable[..., Contact]:
    return one_contact


@pytest.fixture(scope="session")
def splits() -> Splits:
    """60 training contacts with one or two of five codes; validation also has a sixth, Z99.1."""
    names = list(WORDS)
    pairs = [list(dict.fromkeys((names[i % 5], names[i // 5 % 5]))) for i in range(60)]
    train = [one_contact(i, pair, 1 + i % 13) for i, pair in enumerate(pairs)]
    validation = [one_contact(1000 + i, pair, 1 + i % 7) for i, pair in enumerate(pairs[:11])]
    return {"train": train, "validation": [*validation, one_contact(999, ["I10", "Z99.1"])]}


@pytest.fixture(scope="session")
def make_data() -> Callable[..., ContactData]:
    """Writes contacts as contact records."""

    def make(folder, contacts: Splits) -> ContactData:
        return builder.build(Memory(contacts), folder, say=lambda line: None)

    return make
