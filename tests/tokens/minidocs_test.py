import collections

import pytest

from jaxcoder.tokens import minidocs
from jaxcoder.tokens.minidocs import Fragment, MiniDocuments, MiniOptions

PAIRS = [("fever", "R50.9"), ("cough", "R05"), ("Straße", "Z99"), ("chest pain", "R07.4")]
FRAGMENTS = [minidocs.mention(string, code) for string, code in PAIRS]
CONTEXT = Fragment("had fever and cough", (("R50.9", 4, 9), ("R05", 14, 19)))


def test_spans_are_the_strings_of_their_codes():
    strings = {code: string.lower() for string, code in PAIRS}
    documents = MiniDocuments([*FRAGMENTS, CONTEXT], MiniOptions(recase=0.5), 200)
    for text, spans in documents:
        assert spans and list(spans) == sorted(spans, key=lambda span: span[1])
        for code, start, end in spans:
            assert text[start:end].lower() == strings[code]


def test_a_number_gives_the_same_document_in_any_order():
    documents = MiniDocuments(FRAGMENTS, MiniOptions(), 50)
    again = MiniDocuments(FRAGMENTS, MiniOptions(), 80)
    assert [documents[number] for number in reversed(range(50))][::-1] == [
        again[number] for number in range(50)
    ]
    assert len({document.text for document in documents}) == 50
    other = MiniDocuments(FRAGMENTS, MiniOptions(seed=1), 50)
    assert documents[7] != other[7]


def test_documents_have_as_many_fragments_as_told():
    options = MiniOptions(min_pairs=2, max_pairs=4)
    sizes = collections.Counter(
        len(document.spans) for document in MiniDocuments(FRAGMENTS, options, 300)
    )
    assert set(sizes) == {2, 3, 4}
    assert min(sizes.values()) > 60


@pytest.mark.parametrize("power, share", [(0.0, 0.5), (0.5, 0.75), (1.0, 0.9)])
def test_power_tempers_frequencies(power, share):
    fragments = [FRAGMENTS[0]] * 9 + [FRAGMENTS[1]]
    documents = MiniDocuments(fragments, MiniOptions(power=power), 300)
    codes = collections.Counter(code for document in documents for code, _, _ in document.spans)
    assert codes["R50.9"] / codes.total() == pytest.approx(share, abs=0.04)


def test_recasing_changes_first_letters_alone():
    documents = MiniDocuments(FRAGMENTS[:1], MiniOptions(recase=1.0), 20)
    assert all(document.text.count("Fever") == len(document.spans) for document in documents)
    # The capital of ß is two letters, which would move the spans.
    documents = MiniDocuments([minidocs.mention("ß", "Z99")], MiniOptions(recase=1.0), 5)
    assert all(document.text.count("ß") == len(document.spans) for document in documents)


def test_out_of_range_and_nothing_to_join():
    assert len(MiniDocuments([], MiniOptions(), 10)) == 0
    with pytest.raises(IndexError):
        MiniDocuments(FRAGMENTS, MiniOptions(), 10)[10]


def test_mentions_are_cut_out_with_their_codes():
    text = "No pain, but fever and cough"
    fragments = minidocs.mentions(text, [("R05", 23, 28), ("R50.9", 13, 18), ("Z99", 12, 13)])
    assert fragments == [minidocs.mention("fever", "R50.9"), minidocs.mention("cough", "R05")]


def test_context_keeps_whole_words_and_every_span_in_reach():
    text = "he had chest pain, then fever and a dry cough at night"
    spans = [("R50.9", 24, 29), ("R05", 36, 45), ("R07.4", 7, 17)]
    fragments = minidocs.mentions(text, spans, context=3)
    assert fragments[:3] == minidocs.mentions(text, spans)
    fragments = fragments[3:]
    assert len(fragments) == 3
    for fragment in fragments:
        assert text.count(fragment.text) == 1
        place = text.index(fragment.text)
        assert not text[place - 1 : place].strip()
        for code, start, end in fragment.spans:
            assert (code, place + start, place + end) in spans
    chest, fever, _ = fragments
    assert chest.text == "he had chest pain, then fever"
    assert chest.spans == (("R07.4", 7, 17), ("R50.9", 24, 29))
    # `dry cough` begins inside the window: it is kept whole.
    assert "dry cough" in fever.text and len(fever.spans) == 3


def test_descriptions_are_those_of_the_label_space():
    table = {
        "R05": (True, "Cough", "Cough"),
        "I10": (True, "Hypertension", "Essential (primary) hypertension"),
        "A00": (False, "Cholera", "Cholera"),
    }
    fragments = minidocs.descriptions(table, ["I10", "R05", "Z99"])
    assert [(fragment.spans[0][0], fragment.text) for fragment in fragments] == [
        ("I10", "Essential (primary) hypertension"),
        ("I10", "Hypertension"),
        ("R05", "Cough"),
    ]


@pytest.mark.parametrize(
    "options",
    [{"sources": ("notes",)}, {"min_pairs": 6, "max_pairs": 5}, {"recase": 2.0}, {"power": -1.0}],
)
def test_options_say_which_key_is_wrong(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} = .*expected"):
        MiniOptions(**options)
