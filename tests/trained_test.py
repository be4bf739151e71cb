"""What is read back from a workdir: which checkpoint, which threshold, on which devices."""

import jax
import numpy as np
import pytest

from jaxcoder import experiment, sharding, steps, trained
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import UserError
from jaxcoder.fusion import Weights
from jaxcoder.progress import Progress
from jaxcoder.records.codes import LabelSpace
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon, EvidenceLexiconOptions
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer
from jaxcoder.tuned import Tuned
from jaxcoder.whole_file import write_json
from jaxcoder.workdir import Workdir

CODES = ("A00", "I10", "J45.9")
CONFIG = {
    "batches": {"documents": 8},
    "model": {"encoder": {"width": 8, "layers": 0, "heads": 2, "feedforward": 8, "window": 16}},
}


@pytest.fixture
def make_workdir(tmp_path, shapes_and_tokenizer):
    """Makes the workdir of a run whose best checkpoint, 1s, is of step 3 and its last, 2s, of 5."""
    tokenizer, shapes = shapes_and_tokenizer

    def make(**config):
        workdir, space = Workdir(tmp_path / "run"), LabelSpace(CODES)
        write_json(workdir.config, CONFIG | config)
        tokenizer.save(workdir.tokenizer)
        space.save(workdir.label_space)
        checkpoints = Checkpoints(workdir.checkpoints)
        for step, fill, threshold in ((3, 1.0, 0.25), (5, 2.0, 0.5)):
            progress = Progress(step, space.hash, best_value=0.7, best_step=3, threshold=threshold)
            filled = jax.tree.map(lambda x, fill=fill: np.full(x.shape, fill, x.dtype), shapes)
            checkpoints.save(progress, {"coder": filled})
        checkpoints.close()
        return workdir

    return make


@pytest.fixture(scope="module")
def shapes_and_tokenizer():
    tokenizer = train_tokenizer(["fever and cough"] * 3, TokenizerOptions(vocab_size=300))
    options = experiment.read(CONFIG)
    model = experiment.fitted_model(options, tokenizer.vocab_size, tokenizer.pad_id, len(CODES))
    made = steps.make_steps(sharding.make_mesh(), model, options.loss, options.optim)
    return tokenizer, made.state_shapes.params


def values(coder):
    return {float(value) for leaf in jax.tree.leaves(coder.params) for value in np.unique(leaf)}


def test_the_best_checkpoint_comes_with_its_threshold_and_the_last_has_yet_to_be_tuned(
    make_workdir,
):
    workdir = make_workdir()
    best, last = trained.restore(workdir), trained.restore(workdir, "last")
    assert (best.step, best.tuned, best.threshold, values(best)) == (3, Tuned(0.25), 0.25, {1.0})
    assert (last.step, last.tuned, last.threshold, values(last)) == (5, None, 0.5, {2.0})
    workdir.tuned.write(Tuned(0.125), 5, 0.6)
    assert trained.restore(workdir, "last").tuned == Tuned(0.125)
    assert trained.restore(workdir).tuned == Tuned(0.25)


def test_a_threshold_of_network_and_lexicon_is_none_of_the_network_alone(make_workdir):
    workdir = make_workdir(fusion={"enabled": True})
    options = EvidenceLexiconOptions()
    workdir.write_lexicon(EvidenceLexicon.fit(["fever"], [["A00"]], [[]], options))
    # The threshold at the end of training is the network's.
    assert trained.restore(workdir).tuned is None
    assert trained.restore(workdir, alone=True).tuned == Tuned(0.25)
    together = Tuned(0.125, Weights((1.0, 2.0, 3.0, 4.0), (5.0, 6.0)))
    workdir.tuned.write(together, 3, 0.8)
    assert trained.restore(workdir).tuned == together
    assert trained.restore(workdir, alone=True).tuned == Tuned(0.25)
    workdir.tuned.write(Tuned(0.75), 3, 0.8)
    assert trained.restore(workdir).tuned is None


@pytest.mark.parametrize(
    ("mesh", "batches", "expected"),
    [
        ((2, 2, 2), {"documents": 8}, (2, 2, 2)),  # the config's, where it fits
        ((-1, 1, 1), {"documents": 8}, (8, 1, 1)),
        ((64, 4, 1), {"documents": 256}, (8, 1, 1)),  # trained on a pod
        ((64, 1, 1), {"documents": 12}, (4, 1, 1)),  # as many as divide a batch
        ((-1, 1, 1), {"documents": 5}, (1, 1, 1)),
        ((2, 2, 2), {"tokens": 4096, "row_multiple": 2}, (2, 1, 1)),
    ],
)
def test_a_coder_runs_on_other_devices_than_it_was_trained_on(
    make_workdir, mesh, batches, expected
):
    sizes = dict(zip(sharding.MESH_AXES, mesh, strict=True))
    coder = trained.restore(make_workdir(mesh=sizes, batches=batches))
    assert tuple(coder.steps.batch_sharding.mesh.shape.values()) == expected
    assert coder.params["head"]["query"].sharding.mesh == coder.steps.batch_sharding.mesh
    assert values(coder) == {1.0}


def test_a_run_without_a_checkpoint_yet_says_so(make_workdir):
    workdir = make_workdir()
    for step in workdir.checkpoints.iterdir():
        step.rmtree()
    with pytest.raises(UserError, match="holds no checkpoint yet; train first, or wait"):
        trained.restore(workdir)


def test_attention_of_another_machine_is_computed_as_this_one_can_and_said(make_workdir, capsys):
    encoder = CONFIG["model"]["encoder"] | {"attention": "splash", "attention_dropout": 0.0}
    trained.restore(make_workdir(model={"encoder": encoder}))
    said = capsys.readouterr().err
    assert "attention = 'splash': it runs on TPUs" in said and "this machine chooses" in said
