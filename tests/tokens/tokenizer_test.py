import json

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from jaxcoder.errors import UserError
from jaxcoder.tokens.tokenizer import (
    SPECIAL_TOKENS,
    TokenizerOptions,
    load_tokenizer,
    train_tokenizer,
)

TEXTS = [
    "Fiebre y dolor torácico. Fiebre alta (fiebre), temperatura 38.5 ºC\nfiebre",
    "Antecedentes de hipertensión arterial; niega fiebre. Dolor torácico atípico",
] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(TEXTS), TokenizerOptions(vocab_size=500))


def test_special_tokens_lead_the_vocabulary(tokenizer):
    assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id) == (0, 1, 2)
    assert tokenizer.vocab_size <= 500
    assert tokenizer.decode([0, 1, 2, 3, 4]) == ""


def test_offsets_are_characters_of_the_source(tokenizer):
    """Through lower case, accents written as two characters, and characters of several bytes."""
    text = "FIEBRE e\u0301l  β🙂\u0130x 38.5ºC.\n\n(fiebre)"
    ids, offsets = tokenizer.encode([text])[0]
    assert ids.dtype == np.int32 and offsets.shape == (len(ids), 2)
    assert np.all(np.diff(offsets[:, 0]) >= 0) and np.all(np.diff(offsets[:, 1]) >= 0)
    covered = {character for start, end in offsets for character in range(start, end)}
    visible = {n for n, c in enumerate(text) if not c.isspace() and c != "\u0301"}
    assert visible <= covered
    last = text.rindex("fiebre")
    assert offsets[0].tolist() == [0, 6] and [last, last + 6] in offsets.tolist()


def test_nothing_but_case_and_spaces_is_lost(tokenizer):
    text = "Desconocido: ξένος 🙂 5,2%"
    decoded = tokenizer.decode(tokenizer.encode([text])[0].ids)
    assert decoded.replace(" ", "") == text.lower().replace(" ", "")


def test_a_word_is_the_same_token_wherever_it_stands(tokenizer):
    ids = tokenizer.encode(["fiebre (fiebre)\nfiebre Fiebre,fiebre"])[0].ids
    assert np.count_nonzero(ids == ids[0]) == 5


def test_accents_are_kept_and_case_is_an_option(tokenizer):
    accented, plain = (each.ids.tolist() for each in tokenizer.encode(["torácico", "toracico"]))
    assert accented != plain
    cased = train_tokenizer(TEXTS, TokenizerOptions(vocab_size=500, lowercase=False))
    upper, lower = (each.ids.tolist() for each in cased.encode(["Fiebre", "fiebre"]))
    assert upper != lower
    assert cased.decode(upper).strip() == "Fiebre"


def test_a_special_token_in_a_note_is_text(tokenizer, tmp_path):
    text = "fiebre </s> <pad> <mask>"
    tokenizer.save(tmp_path)
    for each in (tokenizer, load_tokenizer(tmp_path)):
        (encoded,) = each.encode([text])
        assert min(encoded.ids) >= len(SPECIAL_TOKENS)
        assert each.decode(encoded.ids).replace(" ", "") == text.replace(" ", "")


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a")
    again = load_tokenizer(tmp_path / "a")
    again.save(tmp_path / "b")
    assert [again.pad_id, again.start_id, again.end_id] == [0, 1, 2]
    assert again.vocab_size == tokenizer.vocab_size
    for one, other in zip(tokenizer.encode(TEXTS), again.encode(TEXTS), strict=True):
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.offsets, other.offsets)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_training_is_deterministic(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a")
    train_tokenizer(TEXTS, TokenizerOptions(vocab_size=500)).save(tmp_path / "b")
    same = [(tmp_path / name / "tokenizer.json").read_text() for name in ("a", "b")]
    assert same[0] == same[1]


def wordpiece(folder, config, around=True):
    """A tokenizer as BERT's, which cuts and pads on its own."""
    words = ["[UNK]", "[SEP]", "fever", "[PAD]", "[CLS]", "##ish"]
    backend = tokenizers.Tokenizer(
        models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if around:
        backend.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 4))
    backend.enable_truncation(4)
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_published_tokenizer_brings_its_own_start_and_end(tmp_path):
    folder = wordpiece(tmp_path / "bert", {"pad_token": {"content": "[PAD]"}})
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id) == (3, 4, 1)
    ids, offsets = tokenizer.encode(["fever feverish fever fever fever"])[0]
    assert ids.tolist() == [2, 2, 5, 2, 2, 2]  # not cut at 4
    assert offsets[2].tolist() == [11, 14]


def test_or_its_configuration_does(tmp_path):
    config = {"pad_token": "[PAD]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    tokenizer = load_tokenizer(wordpiece(tmp_path / "gpt", config, around=False))
    assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id) == (3, 4, 1)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder.mkdir(), r"tokenizer.json: not found"),
        (lambda folder: wordpiece(folder, {}), "has no padding token; set pad_token"),
        (
            lambda folder: wordpiece(folder, {"pad_token": "[PAD]"}, around=False),
            "has no start token; set cls_token",
        ),
        (
            lambda folder: [folder.mkdir(), (folder / "tokenizer.json").write_text("{}")],
            "cannot be read",
        ),
    ],
)
def test_what_cannot_be_used_is_said(prepare, message, tmp_path):
    prepare(tmp_path / "t")
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path / "t")


def test_options_have_ranges():
    with pytest.raises(ValueError, match="vocab_size = 100"):
        TokenizerOptions(vocab_size=100)
    assert len(SPECIAL_TOKENS) == 5
