import importlib.util
import json
import pathlib

import pytest

from jaxcoder import experiment
from jaxcoder.errors import UserError

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
ARGUMENTS = {
    "codiesp": [
        (),
        ("evidence=silver",),
        ("language=en",),
        ("codes=P",),
        ("language=en,evidence=silver",),
        ("init=minilm",),
        ("init=runs/pretrained/encoder",),
    ],
    "mimic3": [("full",), ("50",), ("clean",)],
    "mimic4": [("icd9",), ("icd10",)],
    "population": [("tables",), ("synthetic",), ("roberta",), ("modernbert",)],
    "pretrain_population": [("tables",), ("synthetic",)],
}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (path.stem, arguments)
        for path in sorted(CONFIGS.glob("*.py"))
        for arguments in ARGUMENTS.get(path.stem, [()])
    ],
)
def test_every_config_is_an_experiment(name, arguments):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*arguments).to_dict()
    assert f"configs/{name}.py" in module.__doc__
    if name.startswith("pretrain"):
        experiment.read(config, experiment.PretrainExperiment)
        return
    options = experiment.read(config)
    # The evidence that the loss looks at is the evidence that the records have.
    assert options.tokens.silver.enabled == (options.loss.silver_weight > 0)
    assert options.tokens.mini_tokens < options.batches.tokens


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("500 steps", 500),
        ("1 step", 1),
        ("2 epochs", 80),
        ("0.5 epochs", 20),
        ("160 examples", 10),
        ("5 %", 50),
    ],
)
def test_durations_become_steps(duration, expected):
    assert experiment.steps(duration, per_epoch=40, batch=16, total=1000) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sead": 1}, r"config\.sead: unknown key; did you mean 'seed'\?"),
        (
            {"train": {"total": "ten epochs"}},
            r"config\.train: total = 'ten epochs': expected a duration",
        ),
        ({"train": {"total": "5 %"}}, r"total = '5 %': expected steps, epochs or examples"),
        ({"train": {"evaluate_every": "0 steps"}}, r"evaluate_every = '0 steps': expected more"),
        ({"train": {"patience": "3"}}, r"config\.train\.patience = '3': expected int"),
        ({"train": 3}, r"config\.train = 3: expected a group of keys"),
    ],
)
def test_mistakes_are_one_clear_line(config, message):
    with pytest.raises(UserError, match=message):
        experiment.read(config)


def test_a_workdir_without_config_is_named(tmp_path):
    with pytest.raises(UserError, match="--workdir must name a folder"):
        experiment.load(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        experiment.load(tmp_path / "config.json")


def test_config_json_round_trips(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3, "train": {"total": "5 steps"}}))
    loaded = experiment.load(tmp_path / "config.json")
    assert (loaded.seed, loaded.train.total) == (3, "5 steps")
