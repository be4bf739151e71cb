import dataclasses

import pytest

from jaxcoder.tokens.lexicon import Lexicon, LexiconOptions

OPTIONS = LexiconOptions(max_ngram=2, min_documents=1, min_hits=1, min_score=0.0)
TEXTS = ["Acute chest pain.", "chest pain, cough", "cough", "No pain"]
CODES = [["R07.4"], ["R07.4", "R05"], ["R05"], []]


def test_scores_by_hand():
    lexicon = Lexicon.fit(TEXTS, CODES, OPTIONS)
    assert lexicon.codes == ("R05", "R07.4")
    # chest pain: with R07.4 in 2 of 2 documents, with R05 in 1; cough: with R05 in 2 of 2, with
    # R07.4 in 1; pain: with R07.4 in 2 of 3.
    assert lexicon.scores("pain") == pytest.approx({"R07.4": 2 / 5, "R05": 1 / 5})
    assert lexicon.scores("CHEST PAIN") == pytest.approx({"R07.4": 2 / 4, "R05": 1 / 4})
    assert lexicon.scores("pain; cough") == pytest.approx({"R07.4": 2 / 5, "R05": 2 / 4})
    assert lexicon.scores("headache") == {}


def test_an_ngram_is_not_found_across_sentences():
    words = dataclasses.replace(OPTIONS, min_hits=2, min_score=0.45)
    lexicon = Lexicon.fit(TEXTS, CODES, words)
    assert set(lexicon.scores("acute. pain")) == set()
    assert set(lexicon.scores("chest pain")) == {"R07.4"}


def test_what_is_rare_is_forgotten():
    lexicon = Lexicon.fit(TEXTS, CODES, dataclasses.replace(OPTIONS, min_documents=2))
    assert lexicon.scores("acute") == {}
    lexicon = Lexicon.fit(TEXTS, CODES, dataclasses.replace(OPTIONS, min_hits=2))
    assert lexicon.scores("chest") == pytest.approx({"R07.4": 2 / 4})
    lexicon = Lexicon.fit(TEXTS, CODES, dataclasses.replace(OPTIONS, min_score=0.45))
    assert lexicon.scores("pain cough chest") == pytest.approx({"R05": 0.5, "R07.4": 0.5})


def test_nothing_but_the_fitted_documents_is_in_it():
    lexicon = Lexicon.fit(TEXTS[:2], CODES[:2], OPTIONS)
    lexicon.scores("cough no headache")
    lexicon.silver_spans("cough no headache", ["Z99.9", "R05"])
    again = Lexicon.fit(TEXTS[:2], CODES[:2], OPTIONS)
    assert lexicon.codes == again.codes == ("R05", "R07.4")
    assert lexicon.scores("chest pain cough no") == again.scores("chest pain cough no")
    assert lexicon.scores("no headache") == {}


def test_no_documents():
    lexicon = Lexicon.fit([], [], OPTIONS)
    assert lexicon.scores("pain") == {}
    assert lexicon.silver_spans("pain", ["R52"]) == []


def test_documents_and_codes_must_pair():
    with pytest.raises(ValueError):
        Lexicon.fit(TEXTS, CODES[:-1], OPTIONS)


@pytest.mark.parametrize(
    "key, value", [("max_ngram", 0), ("stem", -1), ("smoothing", -0.5), ("max_contacts", -1)]
)
def test_options_say_which_key_is_wrong(key, value):
    with pytest.raises(ValueError, match=f"{key} = {value}: expected"):
        LexiconOptions(**{key: value})
