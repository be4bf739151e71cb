import pytest

from jaxcoder.records.schema import Code, Contact, Evidence, Note
from jaxcoder.tokens.evidence import mentions, rolled_up


@pytest.mark.parametrize(("system", "chapter"), [("icd9cm", "V01-V91"), ("icd10", "V00-Y99")])
def test_codes_are_rolled_up_in_the_system_of_the_contact(system, chapter):
    # V10.1 is a history of cancer in ICD-9-CM, and a pedestrian's injury in ICD-10.
    contact = Contact(
        "c", "p", codes=(Code("V10.1", system),), evidence=(Evidence("V10.1", 0, 0, 4),)
    )
    assert [code for code, _ in rolled_up(contact, "chapter")] == [chapter]


def test_the_pieces_of_a_mention_stay_together():
    contact = Contact(
        "c",
        "p",
        notes=(Note("Cancer of the left lung. Cancer."),),
        evidence=(
            Evidence("C34.9", 0, 0, 6, 0),
            Evidence("C34.9", 0, 19, 23, 0),
            Evidence("C34.9", 0, 25, 31, 1),
            Evidence("C80.1", 0, 25, 31, 1),  # the same words for another code
        ),
    )
    assert mentions(contact, "category") == [
        ("C34", 0, [(0, 6), (19, 23)]),
        ("C34", 0, [(25, 31)]),
        ("C80", 0, [(25, 31)]),
    ]
