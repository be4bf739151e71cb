"""Where words begin, in each kind of vocabulary that published tokenizers have."""

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from jaxcoder.errors import UserError
from jaxcoder.tokens import words
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer


def of(model, **parts):
    """The tokens that begin a word, and the vocabulary, of a tokenizer put together by hand."""
    backend = tokenizers.Tokenizer(model)
    for name, part in parts.items():
        setattr(backend, name, part)
    backend.add_special_tokens(["<pad>", "<mask>"])
    found = words.vocabulary(backend, {})
    names = backend.get_vocab(with_added_tokens=True)
    begins = None
    if found.begins_word is not None:
        begins = {name for name, number in names.items() if found.begins_word[number]}
    return begins and begins - {"<pad>", "<mask>"}, found, names


def test_wordpiece():
    vocabulary = {"[UNK]": 0, "fiebre": 1, "##s": 2, ",": 3}
    begins, _, _ = of(models.WordPiece(vocabulary, unk_token="[UNK]"))
    assert begins == {"[UNK]", "fiebre", ","}


def test_byte_level_bpe():
    vocabulary = {"Ġfiebre": 0, "s": 1, "Ġ": 2, ",": 3, "Ċ": 4, "Ã³": 5}
    begins, _, _ = of(models.BPE(vocabulary, []), pre_tokenizer=pre_tokenizers.ByteLevel())
    assert begins == {"Ġfiebre", "Ġ", ",", "Ċ"}


def test_sentencepiece():
    vocabulary = [("<unk>", 0.0), ("▁fiebre", -1.0), ("s", -1.0), ("▁", -1.0), (".", -2.0)]
    begins, _, _ = of(models.Unigram(vocabulary, 0), decoder=decoders.Metaspace())
    assert begins >= {"▁fiebre", "▁", "."} and "s" not in begins


def test_of_our_own_tokenizer_every_word_begins_once():
    text = "Fiebre y dolor torácico; temperatura 38.5ºC."
    tokenizer = train_tokenizer([text.lower()] * 3, TokenizerOptions(vocab_size=270))
    found = tokenizer.vocabulary()
    ids = tokenizer.encode([text])[0].ids
    pieces = ["Fiebre", "y", "dolor", "torácico", ";", "temperatura", "38", ".", "5ºC", "."]
    assert found.begins_word[ids].sum() == len(pieces) < len(ids)
    assert found.special.nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    assert found.mask_id == 4


def test_ids_without_a_token_are_never_drawn():
    vocabulary = {"a": 0, "##b": 7}
    _, found, names = of(models.WordPiece(vocabulary, unk_token="a"))
    assert found.mask_id == names["<mask>"]
    gaps = set(range(len(found.special))) - set(names.values())
    assert len(gaps) >= 4 and all(found.special[list(gaps)])


def test_what_cannot_be_masked_is_named():
    _, found, _ = of(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(UserError, match=r"config.masking.whole_word = True: .* set it to False"):
        words.check(found, whole_word=True)
    words.check(found, whole_word=False)
    with pytest.raises(UserError, match="has no mask token; expected one of its tokens as mask_to"):
        words.check(found._replace(mask_id=-1), whole_word=False)
