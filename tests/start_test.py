"""What a run starts from: the config filled in from a checkpoint, and its weights in the state."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxcoder import cli, experiment, hub, optim, pretrained, sharding, start, steps, trained
from jaxcoder.errors import UserError
from jaxcoder.losses import LossOptions
from jaxcoder.models import encoder
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.records.codes import LabelSpace
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer
from jaxcoder.workdir import Workdir
from tests.train_test import CONFIG, OPTIONS

VOCABULARY = 300
SMALL = EncoderOptions(
    vocab_size=VOCABULARY, width=16, layers=2, heads=2, feedforward=24, window=24, token_types=2
)


def checkpoint(folder, options=SMALL, vocab_size=VOCABULARY):
    """What `jaxcoder pretrain` leaves: random weights, a config and a tokenizer."""
    texts = [f"word{number} fever cough {number * 7}" for number in range(99)]
    tokenizer = train_tokenizer(iter(texts), TokenizerOptions(vocab_size=vocab_size))
    shapes = jax.eval_shape(lambda: encoder.init(options, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
    params["embedding"]["word"][options.vocab_size :] = 0
    pretrained.save(folder, options, {"encoder": params}, tokenizer)
    return params


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quickly_compiled):
    path = tmp_path_factory.mktemp("start") / "encoder"
    checkpoint(path)
    return path


def config(name, tokens=None, **values):
    return {"model": {"encoder": {"init": str(name), **values}}, "tokens": tokens or {}, "seed": 3}


def given(**values):
    return {f"model.encoder.{key}" for key in ("init", *values)}


def test_without_a_checkpoint_nothing_is_filled_in():
    plain = {"model": {"encoder": {"width": 8}}, "seed": 3}
    assert start.resolved(plain, {"seed"}) == plain


def test_the_shape_window_and_tokenizer_are_the_checkpoints(folder):
    defaults = {"width": 256, "layers": 2, "window": 256, "dropout": 0.1}
    full = start.resolved(config(folder, **defaults), {"model.encoder.init"})
    options = experiment.read(full)
    model = experiment.fitted_model(options, 290, 7, 5).encoder
    assert (model.width, model.layers, model.window, model.dropout) == (16, 2, 24, 0.1)
    assert (model.vocab_size, model.pad_id) == (VOCABULARY, 0), "not the tokenizer's"
    assert options.tokens.tokenizer.path == str(folder)
    assert (options.seed, full["model"]["encoder"]["init"]) == (3, str(folder))
    assert start.resolved(full, given(width=16, window=24)) == full


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 32}, r"config.model.encoder.width = 32: .*encoder has 16; leave the key out"),
        ({"family": "modernbert"}, "family = 'modernbert': .* has 'bert'"),
        ({"window": 25}, "window = 25: the position table .* has 24 rows, .* set at most 24"),
        ({"frozen": 3}, r"frozen = 3: expected -1 \(none\) to layers = 2"),
    ],
)
def test_keys_that_contradict_the_checkpoint_are_errors(folder, values, message):
    with pytest.raises(UserError, match=message):
        start.resolved(config(folder, **values), given(**values))


@pytest.mark.parametrize(
    ("vocab_size", "pad_id", "message"),
    [
        (
            280,
            0,
            r"has 299 tokens, .* 280 rows; expected 1 to 280 tokens, tokenizer and weights are not",
        ),
        (300, 2, "its padding token is 0, expected 2 as in"),
    ],
)
def test_a_tokenizer_that_does_not_belong_to_the_weights(tmp_path, vocab_size, pad_id, message):
    options = EncoderOptions(
        vocab_size=vocab_size, width=16, layers=1, heads=2, feedforward=24, window=24, pad_id=pad_id
    )
    checkpoint(tmp_path, options)
    with pytest.raises(UserError, match=message.replace("299", r"(299|300)")):
        start.resolved(config(tmp_path), given())


def test_rows_to_spare_are_the_checkpoints_own_affair(folder, tmp_path):
    """As in the Danish BERT: 32,000 rows, 31,748 tokens."""
    sizes = {"width": 16, "layers": 1, "heads": 2, "feedforward": 24, "window": 24}
    checkpoint(tmp_path, EncoderOptions(vocab_size=430, **sizes))
    full = start.resolved(config(tmp_path), given())
    assert full["model"]["encoder"]["vocab_size"] == 430
    assert start.resolved(full, given()) == full
    tokens = {"tokenizer": {"path": str(folder)}}
    with pytest.raises(UserError, match=r"has (299|300) tokens, .* 430 rows; expected 303 to 430"):
        start.resolved(config(tmp_path, tokens), given())


def test_what_a_file_says_beside_a_replaced_checkpoint_does_not_count(folder):
    full = start.resolved(config(folder, frozen=1, dropout=0.3), given(dropout=0.3))
    encoder = full["model"]["encoder"]
    assert (encoder["frozen"], encoder["dropout"]) == (-1, 0.3)


def test_documents_longer_than_modernbert_has_positions_for(folder, tmp_path):
    shape = {"vocab_size": VOCABULARY, "max_positions": 64, "norm_epsilon": 1e-5}
    options = EncoderOptions(
        family="modernbert", width=16, layers=2, heads=2, feedforward=24, **shape
    )
    checkpoint(tmp_path, options)
    tokens = {"serialise": {"max_tokens": 65}, "tokenizer": {"path": str(folder)}}
    with pytest.raises(UserError, match="max_tokens = 65: .* of 64 tokens; set at most that"):
        start.resolved(config(tmp_path, tokens), given())
    full = start.resolved(config(tmp_path, {**tokens, "serialise": {"max_tokens": 64}}), given())
    assert full["model"]["encoder"]["family"] == "modernbert"


def test_a_run_that_goes_on_needs_the_checkpoint_no_more(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "there")
    first = start.resolved(config(tmp_path / "there"), given())
    shutil.rmtree(tmp_path / "there")
    with pytest.raises(UserError, match="no such folder"):
        start.resolved(config(tmp_path / "there"), given())
    kept = json.loads(json.dumps(first))
    assert start.resolved(config(tmp_path / "there"), given(), kept) == first
    moved = start.resolved(config(tmp_path / "elsewhere"), given(), kept)
    assert moved["model"]["encoder"].pop("init") == str(tmp_path / "elsewhere")
    assert moved["model"]["encoder"].items() <= first["model"]["encoder"].items()
    with pytest.raises(UserError, match="width = 32: .* has 16"):
        start.resolved(config(tmp_path / "there", width=32), given(width=32), kept)


def test_the_state_has_the_loaded_weights_on_its_devices_and_the_average_starts_from_them(folder):
    """On a mesh that splits vocabulary and labels; the head stays as it was drawn."""
    model = CoderOptions(
        pretrained.options_of(str(folder)), HeadOptions(num_labels=5, label_multiple=8)
    )
    options = optim.OptimOptions(learning_rate=1e-30, ema=0.5)
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    jitted = steps.make_steps(mesh, model, LossOptions(), options)
    state = jitted.init(0)
    lines = []
    where = jitted.state_shapes.params
    params = start.initialised(state.params, where, model, LabelSpace(("A",)), lines.append)
    assert "parameters of bert" in lines[0]
    expected = pretrained.load(str(folder), model.encoder)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params["encoder"]), expected)
    assert jax.tree.structure(params) == jax.tree.structure(where)
    jax.tree.map(lambda leaf, spec: leaf.sharding == spec.sharding or pytest.fail(), params, where)
    jax.tree.map(np.testing.assert_array_equal, params["head"], state.params["head"])
    batch = {
        "tokens": np.full((4, 24), 7, np.int32),
        "length": np.full(4, 20, np.int32),
        "labels": np.zeros((4, 1), np.int32),
        "_mask": np.ones(4, bool),
    }
    state, _ = jitted.train(
        state.replace(params=params), sharding.put_batch(batch, jitted.batch_sharding)
    )
    average = jitted.evaluation_params(state)
    jax.tree.map(
        lambda mean, now: np.testing.assert_allclose(mean, now, rtol=1e-6, atol=1e-7),
        jax.device_get(average["encoder"]),
        expected,
    )


@pytest.mark.parametrize("kind", ["laat", "cross"])
def test_labels_of_an_exported_coder_are_matched_by_code(folder, tmp_path, kind):
    """B and D are in both; C, which is new, stays as it was drawn; A is left behind."""
    encoder_options = pretrained.options_of(str(folder))
    theirs, ours = LabelSpace(("A00", "B00", "D00")), LabelSpace(("B00", "C00", "D00"))
    model = CoderOptions(encoder_options, HeadOptions(kind=kind, num_labels=3, init=str(tmp_path)))
    mesh = sharding.make_mesh(data=4, tensor=2)
    jitted = steps.make_steps(mesh, model, LossOptions(), optim.OptimOptions())
    old, new = (jax.device_get(jitted.init(seed).params) for seed in (1, 2))
    pretrained.safetensors.numpy.save_file(
        pretrained.weights.to_torch(old, encoder_options, model.head), tmp_path / hub.WEIGHTS
    )
    shape = {key: getattr(encoder_options, key) for key in pretrained.architectures.SHAPE}
    (tmp_path / hub.CONFIG).write_text(
        json.dumps(
            {
                "model_type": "jaxcoder",
                "encoder": shape | {"window": 24},
                "head": {"kind": kind, "width": 0},
            }
        )
    )
    theirs.save(tmp_path / "label_space.json")
    lines = []
    where = jitted.state_shapes.params
    params = start.initialised(jitted.init(2).params, where, model, ours, lines.append)
    assert "2 of 3 labels are among its 3" in lines[-1]
    result = jax.device_get(params["head"])
    tables = start.weight_names.label_tables(model.head)
    assert "query" in tables and (kind == "cross") == (tables == {"query"})
    for name in tables:
        was, drawn = old["head"][name], new["head"][name]
        np.testing.assert_array_equal(result[name][:3], [was[1], drawn[1], was[2]])
    for name in result.keys() - tables:
        jax.tree.map(np.testing.assert_array_equal, result[name], old["head"][name])


def test_training_starts_from_a_checkpoint_and_goes_on_without_it(folder, tmp_path, capsys, caplog):
    """The whole command, twice; before the second time the folder goes."""
    shutil.copytree(folder, tmp_path / "encoder")
    params = pretrained.load(str(folder), pretrained.options_of(str(folder)))
    workdir = tmp_path / "run"
    shape = ("width", "heads", "layers", "convolution", "window")
    values = {key: value for key, value in OPTIONS.items() if key.split(".")[-1] not in shape}
    values |= {"model.encoder.init": tmp_path / "encoder", "data_dir": tmp_path / "data"}
    values |= {"model.encoder.frozen": 2, "train.patience": 0, "optim.learning_rate": 1e-3}
    del values["tokens.tokenizer.vocab_size"]
    bare = tmp_path / "config.py"
    bare.write_text(CONFIG.read_text().replace("config.model = {", "config.model = {}\n    _ = {"))

    def train(total):
        flags = [f"--config.{key}={value}" for key, value in values.items()]
        flags.append(f"--config.train.total={total} steps")
        cli.main(["train", f"--config={bare}", f"--workdir={workdir}", *flags])
        assert f"{total} of {total} steps" in capsys.readouterr().out

    train(2)
    assert "encoder from" in caplog.text
    written = json.loads((workdir / "config.json").read_text())["model"]["encoder"]
    assert (written["width"], written["window"]) == (16, 24)
    shutil.rmtree(tmp_path / "encoder")
    train(4)
    assert "is gone; going on with the token records" in caplog.text
    coder = trained.restore(Workdir(workdir), "last")
    jax.tree.map(  # all layers are frozen: they are still the checkpoint's
        np.testing.assert_array_equal, jax.device_get(coder.params["encoder"]), params
    )
