import numpy as np

from jaxcoder.tokens import stems


def test_stems_have_no_accents_and_no_case_and_are_cut():
    assert stems.stem("Neumonía", 6) == "neumon"
    assert stems.stem("Ærø", 0) == "ærø"
    assert stems.stem("edema", 0) == "edema"


def test_words_lie_where_they_stand():
    text = "Fiebre de 38.5 °C, tos_seca.\nSin disnea"
    found = stems.words(text, 8)
    spans = zip(found.starts, found.ends, strict=True)
    assert [text[a:b] for a, b in spans] == [
        *("Fiebre", "de", "38", "5", "C", "tos", "seca", "Sin", "disnea")
    ]
    # `38.5` ends no sentence; the full stop and the line end do.
    assert len(set(found.sentences[:7])) == 1
    assert found.sentences[6] != found.sentences[7]


def test_one_stem_has_one_hash():
    hashes = stems.words("dolor DOLOR Dólor dolores", 5).hashes
    assert len(set(hashes.tolist())) == 1


def test_ngrams_are_the_words_in_their_order_and_stay_in_a_sentence():
    found = stems.words("a b a. a b", 0)
    hashes, firsts, lasts = stems.ngrams(found, 3)
    spans = list(zip(firsts.tolist(), lasts.tolist(), strict=True))
    assert spans == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (0, 1), (1, 2), (3, 4), (0, 2)]
    key = dict(zip(spans, hashes.tolist(), strict=True))
    assert key[0, 1] == key[3, 4]  # a b
    assert key[0, 1] != key[1, 2]  # b a
    assert len(set(key.values())) == 5  # a, b, a b, b a, a b a
    np.testing.assert_array_equal(hashes[:5], found.hashes)


def test_a_text_without_words_has_no_ngrams():
    hashes, firsts, lasts = stems.ngrams(stems.words(" .\n", 8), 5)
    assert hashes.dtype == np.uint64
    assert not len(hashes) and not len(firsts) and not len(lasts)
