import pytest

from jaxcoder.tokens.spelling import description_words, likeness, spelled


@pytest.mark.parametrize(
    "one, other",
    [
        ("hydronephrosis", "hidronefrosis"),
        ("Haemophilus", "Hæmofilus".replace("æ", "ae")),
        ("cholangitis", "colangitis"),
        ("haemorrhage", "hemorrage"),
        ("thrombosis", "trombosis"),
    ],
)
def test_cognates_are_spelled_alike(one, other):
    assert spelled(one) == spelled(other)


def test_likeness_forgives_endings_and_not_beginnings():
    assert likeness(spelled("histiocytosis"), spelled("histiocitosis")) == 1
    assert likeness(spelled("meningitis"), spelled("meningitic")) == 1
    assert 0 < likeness(spelled("hypokalemia"), spelled("hypocalcemia")) < 1
    assert likeness(spelled("kidney"), spelled("riñón")) == 0
    assert likeness("ren", "ren") == 0  # too short to tell


def test_description_words_are_each_once_and_three_letters():
    words = description_words("Pain in left hip, left side; type 2")
    assert words == tuple(map(spelled, ("pain", "left", "hip", "side", "type")))
