import numpy as np
import pytest

from jaxcoder.records.schema import Contact, Note
from jaxcoder.tokens.documents import DocumentEncoder
from jaxcoder.tokens.serialise import SerialiseOptions
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer

FIRST = "Ingreso por fiebre alta (38,5 ºC).\n\n"
SECOND = "Dolor  torácico; sin fiebre. NIEGA alergias\u2026 neumonía izquierda"
CONTACT = Contact("c", "p", age=40.0, notes=(Note(FIRST, "ingreso"), Note(" "), Note(SECOND)))


def squeezed(text):
    """A text as tokens give it back: up to case and white space."""
    return "".join(text.split()).lower()


def note_span(document, *span):
    return document.note_spans([span])[0]


def document_of(contact, **options):
    tokenizer = train_tokenizer([FIRST + SECOND] * 2, TokenizerOptions(vocab_size=300))
    encoder = DocumentEncoder(tokenizer, SerialiseOptions(**options))
    return encoder([contact])[0], tokenizer


def test_one_start_and_one_end_token():
    document, tokenizer = document_of(CONTACT)
    assert document.tokens[0] == tokenizer.start_id and document.tokens[-1] == tokenizer.end_id
    assert np.isin(document.tokens[1:-1], [0, 1, 2]).sum() == 0
    assert document.offsets.shape == (len(document.tokens), 2)
    assert document.offsets[-1].tolist() == [len(document.text)] * 2


@pytest.mark.parametrize("note", [0, 2])
def test_every_word_of_a_note_comes_back_from_its_tokens(note):
    document, tokenizer = document_of(CONTACT)
    text = CONTACT.notes[note].text
    position = 0
    for word in text.split():
        start = text.index(word, position)
        position = start + len(word)
        place = note_span(document, note, start, position)
        assert document.text[slice(*place)] == word
        first, after = document.token_spans(np.array([place]))[0]
        assert squeezed(tokenizer.decode(document.tokens[first:after])) == squeezed(word)
        # The same by offsets, which is what explanations go by.
        covered = slice(document.offsets[first, 0], document.offsets[after - 1, 1])
        assert document.text[covered] == word


def test_spans_that_the_document_does_not_have():
    document, _ = document_of(CONTACT)
    assert note_span(document, 1, 0, 1) is None  # a blank note
    assert note_span(document, 7, 0, 1) is None
    assert note_span(document, 0, 5, 5) is None
    assert note_span(document, 0, 0, len(FIRST) + 1) is None
    blank = note_span(document, 0, len(FIRST) - 2, len(FIRST))
    assert document.token_spans(np.array([blank])).tolist() == [[-1, -1]]
    without, _ = document_of(CONTACT, sections=("labs",))
    assert note_span(without, 0, 0, 3) is None


@pytest.mark.parametrize("keep", ["head", "tail", "head+tail"])
def test_a_span_stays_only_if_all_its_tokens_do(keep):
    whole, _ = document_of(CONTACT)
    cut, tokenizer = document_of(CONTACT, max_tokens=24, keep=keep)
    assert len(cut.tokens) == 24
    assert cut.tokens_cut == len(whole.tokens) - 24
    spans = np.array([(start, start + 9) for start in range(len(whole.text) - 9)])
    before, after = whole.token_spans(spans), cut.token_spans(spans)
    kept = set(cut.kept.tolist())
    fates = set()
    for (first, last), (new_first, new_last) in zip(before.tolist(), after.tolist(), strict=True):
        stays = first > 0 and {*range(first - 1, last - 1)} <= kept
        assert (new_first > 0) == stays
        if stays:
            old, new = whole.tokens[first:last], cut.tokens[new_first:new_last]
            assert np.array_equal(old, new)
        fates.add(stays)
    assert fates == {True, False}


def test_several_at_once_are_as_one_by_one():
    tokenizer = train_tokenizer([FIRST, SECOND], TokenizerOptions(vocab_size=300))
    encoder = DocumentEncoder(tokenizer, SerialiseOptions())
    contacts = [CONTACT, Contact("empty", "p"), Contact("d", "p", notes=(Note(SECOND),))]
    together = encoder(contacts)
    for contact, document in zip(contacts, together, strict=True):
        assert np.array_equal(document.tokens, encoder([contact])[0].tokens)
    assert together[1].tokens.tolist() == [1, 2]  # an empty contact is a document too
