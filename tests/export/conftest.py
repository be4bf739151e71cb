"""Workdirs of tiny random coders, of every kind that can be exported."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxcoder import cli, experiment, sharding, steps
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.fusion_weights import Weights
from jaxcoder.progress import Progress
from jaxcoder.records.codes import LabelSpace
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon, EvidenceLexiconOptions
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer
from jaxcoder.tuned import Tuned
from jaxcoder.whole_file import write_json
from jaxcoder.workdir import Workdir

WORDS = ["chest", "pain", "fever", "cough", "fracture", "left", "wrist", "diabetes", "metformin"]
CODES = tuple(f"{letter}{number:02}.{number}" for letter in "EIJS" for number in range(3))
STEP = 3
ENCODERS = {
    "bert": {"layers": 2},
    # RoBERTa's positions, and documents of several windows, the last of them not full.
    "windows": {"layers": 1, "convolution": 3, "position_offset": 2, "token_types": 1},
    "modernbert": {"family": "modernbert", "layers": 2, "local_attention": 8},
}


def config(encoder="windows", head="laat", fused=False, **encoder_options):
    shape = {"width": 16, "heads": 2, "feedforward": 32, "window": 16}
    return {
        "tokens": {"serialise": {"max_tokens": 90}, "mini_tokens": 0},
        "batches": {"documents": 5},  # which no two devices share: one device, quick to compile
        "model": {
            "encoder": shape | ENCODERS[encoder] | encoder_options,
            "head": {"kind": head, "width": 8 if head == "cross" else 0, "bias_init": 0.0},
        },
        "fusion": {"enabled": fused},
    }


@pytest.fixture(scope="session")
def make_workdir(tmp_path_factory):
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, TokenizerOptions(vocab_size=300))
    space = LabelSpace(CODES, tuple(f"disease {code}" for code in CODES))

    def make(best=STEP, **chosen):
        """A workdir whose checkpoint of step 3 is the best; or not, with another `best`."""
        workdir, content = Workdir(tmp_path_factory.mktemp("run")), config(**chosen)
        space.save(workdir.label_space)
        tokenizer.save(workdir.tokenizer)
        write_json(workdir.config, content)
        options = experiment.read(content)
        model = experiment.fitted_model(options, tokenizer.vocab_size, tokenizer.pad_id, len(CODES))
        mesh = sharding.make_mesh(devices=jax.devices()[:1])
        made = steps.make_steps(mesh, model, options.loss, options.optim)
        # Weights large enough for contacts and labels to differ, and no bias of zeros.
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda shape: rng.normal(0, 0.7, shape.shape).astype(np.float32),
            made.state_shapes.params,
        )
        checkpoints = Checkpoints(workdir.checkpoints)
        progress = Progress(STEP, space.hash, best_value=0.1, best_step=best, threshold=0.5)
        checkpoints.save(progress, {"coder": params})
        checkpoints.close()
        if content["fusion"]["enabled"]:
            texts, strings = ["fever and cough"] * 2, [[("fever", CODES[0], True)], []]
            lexicon = EvidenceLexicon.fit(
                texts, [[CODES[0]], []], strings, EvidenceLexiconOptions(max_share=1.0)
            )
            workdir.write_lexicon(lexicon)
            weights = Weights((0.5, 2.0, -1.0, 3.0), (0.25, -0.1))
            workdir.tuned.write(Tuned(0.4, weights), STEP, 0.1)
        return workdir

    return make


@pytest.fixture(scope="session")
def workdir(make_workdir):
    return make_workdir()


@pytest.fixture(scope="session")
def fused_workdir(make_workdir):
    return make_workdir(fused=True)


def contact_lines():
    """Contacts of several lengths, one of them cut, with all that a contact may have."""
    rng = np.random.default_rng(1)
    texts = {number: " ".join(rng.choice(WORDS, number)) for number in (1, 5, 14, 15, 40, 300)}
    lines = [{"contact_id": f"text-{number}", "text": text} for number, text in texts.items()]
    lines.append(
        {
            "contact_id": 7,
            "age": "63,5",
            "sex": "female",
            "notes": [
                {"time": "2024-02-03", "kind": "ward", "text": "Fever.  No  cough.\n"},
                {"time": "2024-02-01T08:00:00+02:00", "kind": "admission", "text": "Chest pain."},
            ],
            "medications": [{"code": "A10BA02", "name": "metformin", "dose": 500}],
            "labs": [{"name": "Troponin I", "value": "412", "unit": "ng/L", "high": 14, "flag": ""}]
            * 30,
            "unheard_of": 1,
        }
    )
    return lines


@pytest.fixture(scope="session")
def contacts():
    return contact_lines()


@pytest.fixture(scope="session")
def predicted(tmp_path_factory, contacts):
    """What `jaxcoder predict` says of the contacts."""

    def predict(workdir, top):
        folder = tmp_path_factory.mktemp("predicted")
        (folder / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in contacts))
        where = ["--input", f"{folder}/in.jsonl", "--output", f"{folder}/out.jsonl"]
        cli.main(["predict", "--workdir", str(workdir.path), *where, "--top", str(top)])
        return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]

    return predict


@pytest.fixture(scope="session")
def export():
    """Runs `jaxcoder export`; returns its exit status."""

    def run(workdir, output, *more):
        try:
            cli.main(["export", "--workdir", str(workdir.path), "--output", str(output), *more])
        except SystemExit as ended:
            return ended.code
        return 0

    return run


@pytest.fixture(scope="session")
def assert_same():
    """Predictions are those of `jaxcoder predict`, to the order of the codes."""

    def check(found, expected, tolerance=1e-4):
        assert [each["contact_id"] for each in found] == [each["contact_id"] for each in expected]
        for one, other in zip(found, expected, strict=True):
            for key in ("code", "description", "assigned"):
                assert [code[key] for code in one["codes"]] == [
                    code[key] for code in other["codes"]
                ]
            probabilities = [
                [code["probability"] for code in each["codes"]] for each in (one, other)
            ]
            np.testing.assert_allclose(*probabilities, atol=tolerance)

    return check


@pytest.fixture(scope="session")
def run_without():
    """Runs Python code in a process of its own in which some packages cannot be imported."""

    def run(blocked, code, **variables):
        block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        words = "".join(f"{key} = {value!r}\n" for key, value in variables.items())
        result = subprocess.run(
            [sys.executable, "-P", "-c", block + words + code], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
