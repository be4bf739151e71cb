import numpy as np
import pytest

from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import Contact, Evidence, Note
from jaxcoder.tokens.documents import DocumentEncoder
from jaxcoder.tokens.mini import Filled, Strings
from jaxcoder.tokens.minidocs import Fragment, MiniOptions, mention
from jaxcoder.tokens.serialise import SerialiseOptions
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer

PIECES = {
    "I10": ["hypertension", "raised blood pressure", "HTN"],
    "J45.9": ["asthma", "bronchial asthma with wheezing at night and in the morning"],
    "E11.9": ["type 2 diabetes", "T2DM"],
}
FRAGMENTS = [mention(string, code) for code, strings in PIECES.items() for string in strings]


@pytest.fixture(scope="module")
def encoder():
    texts = [string for strings in PIECES.values() for string in strings] * 2
    return DocumentEncoder(
        train_tokenizer(texts, TokenizerOptions(vocab_size=400)), SerialiseOptions()
    )


@pytest.mark.parametrize("tokens", [32, 64])
def test_they_are_filled_up_and_no_longer(encoder, tokens):
    filled = Filled(FRAGMENTS, MiniOptions(), tokens, 300, encoder)
    lengths = [len(document.tokens) for _, document in filled.documents()]
    assert len(lengths) == len(filled) == 300
    assert max(lengths) <= tokens
    assert np.mean(lengths) > 0.9 * tokens


def test_spans_are_whole_strings_of_their_code(encoder):
    seen = set()
    for fragment, document in Filled(FRAGMENTS, MiniOptions(), 48, 100, encoder).documents():
        assert fragment.text == document.text
        for code, start, end in fragment.spans:
            string = fragment.text[start:end]
            assert string.lower() in [each.lower() for each in PIECES[code]]
            seen.add(string.lower())
        spans = np.array([span[1:] for span in fragment.spans])
        assert np.all(document.token_spans(spans) > 0)
        assert fragment.text[: spans[0, 0]] == "" and spans[-1, 1] == len(fragment.text)
    assert len(seen) == len(FRAGMENTS)  # long strings are not left out


def test_spans_that_overlap_are_never_torn(encoder):
    both = Fragment("severe asthma in spring", (("J45.9", 7, 13), ("J45.9", 0, 23)))
    for fragment, _ in Filled([both], MiniOptions(), 24, 30, encoder).documents():
        strings = [fragment.text[start:end].lower() for _, start, end in fragment.spans]
        assert sorted(strings) == sorted(
            ["asthma", "severe asthma in spring"] * (len(strings) // 2)
        )


def test_a_string_longer_than_the_length_still_comes(encoder):
    long = mention("a very long description of a condition " * 3 + "end", "I10")
    for fragment, document in Filled([long], MiniOptions(recase=0.0), 16, 3, encoder).documents():
        assert fragment.text == long.text and len(document.tokens) > 16


def test_as_drawn(encoder):
    options = MiniOptions(min_pairs=2, max_pairs=4)
    drawn = Filled(FRAGMENTS, options, 0, 50, encoder).documents()
    assert {len(fragment.spans) for fragment, _ in drawn} == {2, 3, 4}
    assert list(Filled([], options, 64, 50, encoder).documents()) == []


def test_where_strings_come_from(encoder):
    text = "Cancer of the left lung. Asthma, asthma."
    contact = Contact(
        "c",
        "p",
        notes=(Note(text),),
        evidence=(
            Evidence("C34.9", 0, 0, 6, 0),  # one mention in two pieces
            Evidence("C34.9", 0, 19, 23, 0),
            Evidence("J45.9", 0, 25, 31, 1),
            Evidence("I10", 0, 33, 39, 2),  # outside the label space
        ),
    )
    strings = Strings(
        [contact],
        {"J45": (False, "Asthma", "Asthma, all kinds"), "K35": (True, "x", "y")},
        LabelSpace(("C34", "J45"), granularity="category"),
        lambda contact, text: [("J45", text.index("asthma"), text.index("asthma") + 6)],
        DocumentEncoder(encoder.tokenizer, encoder.options),
    )

    def found(*sources, context=0):
        fragments = strings.fragments(MiniOptions(sources=sources, context=context))
        return sorted((fragment.spans[0][0], fragment.text) for fragment in fragments)

    assert found("evidence") == [("C34", "Cancer lung"), ("J45", "Asthma")]
    assert found("silver") == [("J45", "asthma")]
    assert ("J45", "lung. Asthma,") in found("evidence", context=1)
    assert ("J45", "Asthma, asthma.") in found("silver", context=1)
    assert found("descriptions") == [("J45", "Asthma"), ("J45", "Asthma, all kinds")]
    assert found() == []
    strings.encoder.options = SerialiseOptions(sections=("labs",))
    assert found("evidence") == []  # what the coder does not read
