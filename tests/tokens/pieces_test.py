import random

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from jaxcoder.tokens import pieces
from jaxcoder.tokens.pieces import Pieces, are_independent, arrays
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer

# White space and its look-alikes, combining characters, letters whose case or composition changes
# their number, special tokens, characters of several bytes.
STRANGE = (
    *"aeioAEIO  \n\n\t\r\x1c\x85\xa0\u2003\u0301\u0308\u200b\u0345é\u0130ßΣς🙂.,;:-_/0129ªº½ﬁ가각",
    *("\u1100", "\u1161", "\u11a8", "</s>", "<s>", "<pad>", "[UNK]", "fever", "Fiebre"),
)


def strange_texts(count):
    rng = random.Random(1)
    texts = ["".join(rng.choices(STRANGE, k=rng.randint(0, 40))) for _ in range(count)]
    return [*texts, "", " ", "\n", "\n\n a", "a "]


def trained(lowercase):
    options = TokenizerOptions(vocab_size=320, lowercase=lowercase)
    return train_tokenizer(["Fiebre, fever fever; é (fiebre)"] * 3, options)._backend


def bert(**options):
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "fever", "a", "##e", "##a", "e", ".", "fiebre"]
    backend = tokenizers.Tokenizer(
        models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer(**options)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(["[UNK]", "[PAD]", "[CLS]", "[SEP]"])
    backend.encode_special_tokens = True
    return backend


BACKENDS = {
    "trained": lambda: trained(True),
    "cased": lambda: trained(False),
    "bert": bert,
    "bert cased": lambda: bert(lowercase=False, strip_accents=True),
}


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS.keys())
@pytest.mark.parametrize("most", [10**6, 300], ids=["all kept", "forgotten now and then"])
def test_pieces_give_what_the_whole_texts_give(backend, most, monkeypatch):
    monkeypatch.setattr(pieces, "_MOST", most)
    backend = backend()
    assert are_independent(backend)
    remembered = Pieces(backend)
    texts = strange_texts(4000)
    for start in range(0, len(texts), 50):
        some = texts[start : start + 50]
        ids, offsets, edges = remembered.encode(some)
        assert ids.dtype == offsets.dtype == np.int32 and edges[-1] == len(ids)
        whole = backend.encode_batch(some, add_special_tokens=False)
        for number, each in enumerate(whole):
            mine = slice(edges[number], edges[number + 1])
            wanted_ids, wanted_offsets = arrays(each)
            assert np.array_equal(ids[mine], wanted_ids), repr(some[number])
            assert np.array_equal(offsets[mine], wanted_offsets), repr(some[number])


def byte_level(**options):
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    backend.decoder = decoders.ByteLevel()
    return backend


def changed(part, value):
    backend = bert()
    setattr(backend, part, value)
    return backend


def with_phrase():
    backend = bert()
    backend.add_tokens([AddedToken("a fever", special=False)])
    return backend


def test_of_no_texts_there_are_no_tokens():
    ids, offsets, edges = Pieces(bert()).encode([])
    assert ids.shape == (0,) and offsets.shape == (0, 2) and edges.tolist() == [0]


@pytest.mark.parametrize(
    "backend",
    [
        byte_level(add_prefix_space=False),  # GPT-2: the space belongs to the word behind it
        changed("pre_tokenizer", pre_tokenizers.Metaspace()),
        changed("pre_tokenizer", pre_tokenizers.Punctuation()),
        changed("normalizer", normalizers.Replace("a e", "o")),
        changed("normalizer", normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])),
        changed("post_processor", processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))),
        changed("model", models.BPE(dropout=0.1)),
        with_phrase(),
        tokenizers.Tokenizer(models.BPE()),
    ],
)
def test_others_are_given_whole_texts(backend):
    assert not are_independent(backend)
