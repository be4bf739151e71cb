import numpy as np
import pytest

from jaxcoder.errors import UserError
from jaxcoder.records.schema import Contact, Lab, Medication, Note
from jaxcoder.settings import build
from jaxcoder.tokens.serialise import SECTIONS, SerialiseOptions, flag, kept_tokens, serialise

CONTACT = Contact(
    "c",
    "p",
    age=63.7,
    sex="F",
    notes=(Note("Chest pain.\nNo fever. ", "discharge"), Note("  \n"), Note("Home", "phone  call")),
    medications=(Medication("B01AC06", "aspirin", "75 mg", "oral"), Medication(name="paracetamol")),
    labs=(Lab("1", "Troponin", "412", "ng/L", high=14.0), Lab("718-7", value="8.1", low=7.0)),
)


def sections_of(text):
    return [line for line in text.splitlines() if line.startswith("[")]


def test_the_text_is_what_a_clinician_would_read():
    assert serialise(CONTACT, SerialiseOptions()).text == (
        "[PATIENT] age 63 sex F\n"
        "[NOTE discharge]\nChest pain.\nNo fever. \n"
        "[NOTE phone call]\nHome\n"
        "[MEDICATIONS]\nB01AC06 aspirin 75 mg oral\nparacetamol\n"
        "[LABS]\nTroponin 412 ng/L H\n718-7 8.1\n"
    )


def test_segments_cover_the_text_and_lead_back_to_each_item():
    text, segments = serialise(CONTACT, SerialiseOptions())
    assert segments[0, 2] == 0 and segments[-1, 3] == len(text)
    assert np.array_equal(segments[1:, 2], segments[:-1, 3])
    for section, item, start, end, source in segments.tolist():
        piece = text[start:end]
        if item < 0:
            assert piece.startswith("[") or piece == "\n"
        elif SECTIONS[section] == "notes":
            assert piece == CONTACT.notes[item].text[source:]
        elif SECTIONS[section] == "medications":
            assert CONTACT.medications[item].name in piece
        else:
            assert CONTACT.labs[item].value in piece


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SerialiseOptions(sections=("notes",)), ["[PATIENT]", "[NOTE", "[NOTE"]),
        (
            SerialiseOptions(("labs", "medications"), demographics=False),
            ["[LABS]", "[MEDICATIONS]"],
        ),
    ],
)
def test_sections_are_left_out_and_ordered(options, expected):
    found = sections_of(serialise(CONTACT, options).text)
    assert [line.split()[0] for line in found] == expected


def test_what_is_unknown_leaves_no_marker():
    bare = Contact("c", "p", notes=(Note("x"),), medications=(Medication(),), labs=(Lab(),))
    assert serialise(bare, SerialiseOptions()).text == "[NOTE]\nx\n"
    nothing = serialise(Contact("c", "p"), SerialiseOptions())
    assert nothing.text == "" and nothing.segments.shape == (0, 5)
    assert kept_tokens(np.zeros((0, 2), np.int32), nothing.segments, SerialiseOptions()).size == 0


@pytest.mark.parametrize(
    ("lab", "expected"),
    [
        (Lab(value="3,4", low=3.5), "L"),
        (Lab(value="15", high=14.0), "H"),
        (Lab(value="14", low=3.0, high=14.0), ""),
        (Lab(value="<5", low=10.0, high=4.0), "L"),
        (Lab(value="<5", high=4.0), ""),  # may be 3
        (Lab(value=">= 90", low=100.0), ""),  # may be 120
        (Lab(value="positive", low=1.0), ""),
        (Lab(value="15", high=14.0, flag="A"), "A"),  # the source knows better
        (Lab(value="nan", low=1.0, high=2.0), ""),
        (Lab(value="6,3", high=6.1), "H"),  # a decimal comma
        (Lab(value="250,000", low=150_000.0, high=400_000.0), ""),  # 250, or 250 thousand
        (Lab(value="90,000", low=150_000.0), "L"),  # low as both
        (Lab(value="0,250", low=0.3), "L"),  # no thousands
        (Lab(value="> 1,000,000", high=400_000.0), "H"),
    ],
)
def test_flags(lab, expected):
    assert flag(lab) == expected


def words(contact, options):
    """Words as tokens: their text, and those that stay."""
    text, segments = serialise(contact, options)
    ends = [0]
    for word in text.split():
        ends.append(text.index(word, ends[-1]) + len(word))
    offsets = np.array([(e - len(w), e) for w, e in zip(text.split(), ends[1:], strict=True)])
    kept = kept_tokens(offsets, segments, options)
    assert np.all(np.diff(kept) > 0)
    return [text.split()[number] for number in kept]


LONG = Contact(
    "c",
    "p",
    notes=(Note(" ".join(f"n{i}" for i in range(20))),),
    medications=tuple(Medication(name=f"m{i}") for i in range(6)),
    labs=tuple(Lab(name=f"l{i}") for i in range(10)),
)


def test_section_budgets():
    found = words(LONG, SerialiseOptions(notes_tokens=4, medications_tokens=3, labs_tokens=2))
    assert found == ["[NOTE]", "n0", "n1", "n2", "[MEDICATIONS]", "m0", "m1", "[LABS]", "l0"]


@pytest.mark.parametrize(
    ("keep", "notes", "labs"),
    [
        ("head", ["[NOTE]", "n0", "n1", "n2"], ["[LABS]", "l0", "l1"]),
        ("tail", ["n16", "n17", "n18", "n19"], ["[LABS]", "l8", "l9"]),  # the marker stays
        ("head+tail", ["[NOTE]", "n0", "n18", "n19"], ["[LABS]", "l0", "l9"]),
    ],
)
def test_what_is_kept_of_a_section(keep, notes, labs):
    options = SerialiseOptions(("notes", "labs"), notes_tokens=4, labs_tokens=3, keep=keep)
    assert words(LONG, options) == notes + labs


def test_the_whole_is_cut_where_it_is_longest():
    """20 + 1 words of notes, 6 + 1 of medications, 10 + 1 of results in 8 to 41 tokens."""
    for most in range(8, 43):
        found = words(LONG, SerialiseOptions(max_tokens=most))
        assert len(found) == min(most - 2, 39)
        sizes = [sum(word[0] in kind for word in found) for kind in ("n", "m", "l")]
        assert sum(sizes) == len(found) - 3
        if most <= 22:
            assert max(sizes) - min(sizes) <= 1
        elif most <= 41:
            assert sizes[1] == 6


def test_a_budget_does_not_lift_the_limit_of_the_whole():
    found = words(LONG, SerialiseOptions(max_tokens=12, notes_tokens=15, labs_tokens=2))
    assert len(found) == 10
    assert [word for word in found if word[0] == "l"] == ["l0"]


@pytest.mark.parametrize(
    "values",
    [
        {"sections": ["notes", "letters"]},
        {"sections": []},
        {"sections": ["notes", "notes"]},
        {"max_tokens": 2},
        {"labs_tokens": -1},
        {"keep": "middle"},
    ],
)
def test_wrong_options_name_the_key(values):
    with pytest.raises(
        UserError, match=f"config.tokens.serialise: {next(iter(values))} = .*expected"
    ):
        build(SerialiseOptions, values, "config.tokens.serialise")
