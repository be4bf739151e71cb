"""Train, evaluate, fuse: on a mesh of eight devices it is the run that one device makes."""

import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import polars
import pytest

from jaxcoder import cli, sharding, trained
from jaxcoder.workdir import Workdir

pytestmark = pytest.mark.slow

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "demo.py"
SPLIT = "validation"
MESHES = {8: (2, 2, 2), 1: (1, 1, 1)}  # data, fsdp, tensor
OPTIONS = {
    "records.options.patients": 20,  # 54 contacts to train on, 17 to validate with, none to test
    "tokens.serialise.max_tokens": 384,
    "tokens.serialise.sections": ("notes",),
    "tokens.tokenizer.vocab_size": 500,
    "batches.tokens": 8 * 384,
    "batches.row_multiple": 4,  # data × fsdp
    "batches.max_buckets": 1,  # each is compiled for both meshes
    "model.encoder.width": 16,
    "model.encoder.heads": 2,
    "model.encoder.feedforward": 32,
    "model.head.chunk": 7,  # of the 32 label rows of a device: the way that large spaces go
    # Well above the rounding of a gradient: with Adam's 1e-8 a parameter whose gradient is rounding
    # alone moves by a whole learning rate, this way on one device and that way on eight.
    "optim.eps": 1e-4,
    "fusion.enabled": True,
    "train.total": "1 epoch",
    "train.evaluate_every": "4 steps",
    "train.log_every": "1 step",
}


def jaxcoder(devices, *arguments):
    """Runs a command as if there were but so many devices."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = functools.partial(sharding.make_mesh, devices=jax.devices()[:devices])
        patch.setattr(sharding, "make_mesh", mesh)
        cli.main([str(each) for each in arguments])


def evaluate(devices, workdir):
    every_label = ("--top", 1000)
    jaxcoder(devices, "evaluate", "--workdir", workdir.path, "--split", SPLIT, *every_label)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, quickly_compiled):
    """From a number of devices to the workdir of the run on them; the runs share their records."""
    folder = tmp_path_factory.mktemp("runs")
    for devices, sizes in MESHES.items():
        mesh = {f"mesh.{axis}": size for axis, size in zip(sharding.MESH_AXES, sizes, strict=True)}
        options = {**OPTIONS, **mesh, "data_dir": folder / "data"}
        flags = [f"--config.{key}={value}" for key, value in options.items()]
        jaxcoder(devices, "train", "--config", CONFIG, "--workdir", folder / str(devices), *flags)
    return {devices: Workdir(folder / str(devices)) for devices in MESHES}


@pytest.fixture(scope="module")
def evaluated(runs):
    """The same after `evaluate`, which tunes fusion and threshold first."""
    for devices, workdir in runs.items():
        evaluate(devices, workdir)
    return runs


def numbers(workdir):
    """What train_metrics.jsonl says, but for speed."""
    lines = map(json.loads, workdir.train_metrics.read_text().splitlines())
    return [
        {k: v for k, v in line.items() if not k.endswith(("_per_second", "waiting_share"))}
        for line in lines
    ]


def metrics(workdir):
    return json.loads((workdir.evaluation(SPLIT) / "metrics.json").read_text())


def probabilities(workdir):
    """Of every contact and code, by contact and code."""
    rows = polars.read_parquet(str(workdir.evaluation(SPLIT) / "predictions.parquet"))
    return {
        (row["contact_id"], code): probability
        for row in rows.iter_rows(named=True)
        for code, probability in zip(row["codes"], row["probabilities"], strict=True)
    }


def test_the_runs_are_on_as_many_devices_as_they_should(runs):
    coder = trained.restore(runs[8], "last")
    query = coder.params["head"]["query"]
    assert query.sharding.mesh.shape == dict(zip(sharding.MESH_AXES, MESHES[8], strict=True))
    # Labels over tensor, width over fsdp; and batches over data and fsdp.
    rows, width = query.shape
    assert query.addressable_shards[0].data.shape == (rows // 2, width // 2)
    assert coder.steps.batch_sharding.shard_shape((8,)) == (2,)
    documents = [line["train/documents"] for line in numbers(runs[8]) if "train/documents" in line]
    assert min(documents) % 8, "a batch with padding rows is among them"


def test_eight_devices_train_as_one(runs):
    """Only the order of float32 sums differs: seen 2e-7 of a loss, and 1e-7 in a parameter."""
    for ours, expected in zip(numbers(runs[8]), numbers(runs[1]), strict=True):
        assert ours == pytest.approx(expected, rel=2e-6)
    eight, one = (trained.restore(workdir, "last") for workdir in runs.values())
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6),
        jax.device_get(eight.params),
        jax.device_get(one.params),
    )
    assert runs[8].lexicon.read_bytes() == runs[1].lexicon.read_bytes()


def test_eight_devices_evaluate_as_one(evaluated):
    """Each has tuned fusion and threshold for itself. Loss differs by 1e-7, and no rank does."""
    assert metrics(evaluated[8]) == pytest.approx(metrics(evaluated[1]), rel=2e-6)


def test_fused_scores_with_labels_on_several_devices_are_those_of_one(evaluated, tmp_path):
    """The checkpoint, fusion and threshold of eight devices, evaluated on one: no training."""
    elsewhere = Workdir(tmp_path / "elsewhere")
    shutil.copytree(evaluated[8].path, elsewhere.path)
    shutil.rmtree(elsewhere.evaluation(SPLIT))
    evaluate(1, elsewhere)
    assert elsewhere.tuned.threshold.read_bytes() == evaluated[8].tuned.threshold.read_bytes()
    assert "found" in json.loads(elsewhere.tuned.threshold.read_text())["fusion"]
    ours, expected = probabilities(evaluated[8]), probabilities(elsewhere)
    labels = len(elsewhere.read_label_space())
    assert labels % 2 and len(ours) == metrics(elsewhere)["num_contacts"] * labels
    # The network's logits differ by 1e-6, which fusion's slope, here 7, multiplies.
    assert ours == pytest.approx(expected, rel=3e-5)
    assert metrics(evaluated[8]) == pytest.approx(metrics(elsewhere), rel=2e-6)
