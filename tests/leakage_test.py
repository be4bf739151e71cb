"""Nothing is learned from validation and test: other contacts in them change none of it."""

import functools
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxcoder import cli, experiment, sharding, train
from jaxcoder.baseline import fit_evidence_lexicon, fit_lexicon
from jaxcoder.records import builder as records_builder
from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import Code, Contact, Evidence, Lab, Medication, Note
from jaxcoder.records.sources import Source
from jaxcoder.tokens import builder as tokens_builder
from jaxcoder.tokens.serialise import serialise

CODES = ("E11.9", "I10", "J45.9", "N39.0", "S52.5")
WORDS = {
    "train": "fever cough wheeze thirst burning fracture headache dizzy sputum ankle",
    "first": "anaphora brusque cadenza dolmen ersatz fjord gambit hubris icicle jejune",
    "second": "kismet lozenge mantra nimbus obelisk paragon quixotic rhubarb sonata talisman",
}
SHARED = CODES[:2]  # codes that held-out contacts have, too, beside some of their own


def contact(words: str, number: int, codes: tuple[str, ...]) -> Contact:
    """A contact that says each of its codes in a pair of words."""
    vocabulary = WORDS[words].split()
    # One held-out world has the words of training, too, so that counts of them would differ.
    fillers = vocabulary + WORDS["train"].split() * (words == "second")
    rng = np.random.default_rng(number)
    text, evidence = "", []
    for mention, code in enumerate(codes):
        first = sum(map(ord, code)) % len(vocabulary)
        string = f"{vocabulary[first]} {vocabulary[first - 1]}"
        text += f"{' '.join(rng.choice(fillers, 3))}. "
        evidence.append(Evidence(code, 0, len(text), len(text) + len(string), mention))
        text += f"{string}. "
    return Contact(
        f"{words}-{number}",
        f"patient-{words}-{number}",
        specialty=words,
        age=40.0 + number,
        sex="F",
        notes=(Note(text, f"{words} note"),),
        medications=(Medication("N02BE01", vocabulary[number % 10]),),
        labs=(Lab(name=vocabulary[number % 7], value=str(number)),),
        codes=tuple(Code(code, "icd10") for code in codes),
        evidence=tuple(evidence),
    )


def held_out(words: str, count: int) -> list[Contact]:
    own = [f"{words[0].upper()}{number:02}.1" for number in range(4)]
    if words == "second":
        own[1] = "J45"
    return [contact(words, n, (SHARED[n % 2], own[n % 4], own[n // 2 % 4])) for n in range(count)]


class Wards(Source):
    """A source of contacts at hand."""

    name = "wards"
    identity = {"source": "wards"}
    # Of J45.9, which training has, the words are those of J45, which only held-out contacts have.
    descriptions = {"I10": "essential headache", "S03.1": "nimbus", "J45": "dizzy sputum ankle"}

    def __init__(self, train, validation, test):
        self._held = {"train": train, "validation": validation, "test": test}

    def parts(self, runner):
        parts = {split: [lambda _, held=held: iter(held)] for split, held in self._held.items()}
        return parts, Findings()


TRAIN = [contact("train", n, (CODES[n % 5], CODES[n // 5 % 5])[: 1 + n % 2]) for n in range(40)]
FIRST = {"validation": held_out("first", 11), "test": held_out("first", 24)[11:]}
SECOND = {"validation": held_out("second", 26)[:17], "test": held_out("second", 26)[17:]}
WORLDS = {
    "first": {"train": TRAIN, **FIRST},
    "second": {"train": TRAIN, **SECOND},
    # What the comparison must notice: a single contact more to learn from.
    "leaking": {"train": [*TRAIN, SECOND["test"][0]], **FIRST},
}

LEARNED = (
    *("tokenizer", "label space", "training records", "mini-documents"),
    *("n-gram lexicon", "lexicon of annotated evidence", "lexicon of silver evidence"),
)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """From the name of a world to all that is learned in it, by the names in `LEARNED`."""

    @functools.cache
    def learn(world):
        config = {
            "data_dir": str(tmp_path_factory.mktemp(world)),
            "tokens": {
                "tokenizer": {"vocab_size": 300},
                "silver": {"min_score": 2.0},
                "mini": {"per_contact": 2.0},
                "mini_tokens": 32,
            },
        }
        options = experiment.read(config | {"loss": {"evidence_weight": 1.0}})
        silver = experiment.read(config | {"loss": {"silver_weight": 1.0}})
        contacts = records_builder.build(
            Wards(**WORLDS[world]), options.data_dir, say=lambda line: None
        )
        data = tokens_builder.build(
            contacts, options.data_dir, options.tokens, say=lambda line: None
        )
        lexicon = fit_lexicon(data, options)
        texts = [
            serialise(each, options.tokens.serialise).text
            for splits in WORLDS.values()
            for contacts in splits.values()
            for each in contacts
        ]
        return {
            "tokenizer": {path.name: path.read_bytes() for path in data.tokenizer_dir.iterdir()},
            "label space": (data.path / "label_space.json").read_bytes(),
            "training records": plain(data, "train"),
            "mini-documents": plain(data, "mini"),
            "n-gram lexicon": (lexicon.codes, [lexicon.scores(text) for text in texts]),
            "lexicon of annotated evidence": fit_evidence_lexicon(data, options).to_bytes(),
            "lexicon of silver evidence": fit_evidence_lexicon(data, silver).to_bytes(),
        }

    return learn


def plain(data, split):
    """The records of a split, and the sizes that batches are planned from, as plain values."""
    records = [
        {key: getattr(value, "tolist", lambda value=value: value)() for key, value in row.items()}
        for row in data.split(split)
    ]
    return records, data.sizes(split).tolist()


def test_there_is_something_to_learn(learned):
    what = learned("first")
    provenances = {row[3] for record in what["training records"][0] for row in record["evidence"]}
    assert provenances == {0, 1} and len(what["mini-documents"][0]) == 80
    assert any(what["n-gram lexicon"][1])


@pytest.mark.parametrize("what", LEARNED)
def test_other_contacts_in_validation_and_test_change_nothing_that_is_learned(learned, what):
    assert learned("first")[what] == learned("second")[what]


@pytest.mark.parametrize("what", LEARNED)
def test_a_contact_more_in_train_changes_it(learned, what):
    """Without this the comparison above might compare nothing."""
    assert learned("first")[what] != learned("leaking")[what]


CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "pretrain_codiesp.py"
PRETRAINING = {
    "tokens.tokenizer.splits": ("train",),
    "tokens.tokenizer.vocab_size": 300,
    "tokens.serialise.sections": ("notes", "medications", "labs"),
    "model.encoder.convolution": 0,
    "packing.splits": ("train",),
    "packing.rows": 4,
    "model.encoder.width": 8,
    "model.encoder.heads": 1,
    "model.encoder.feedforward": 16,
    "model.encoder.window": 32,
    "train.total": "2 steps",
    "train.evaluate_every": "2 steps",
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, quickly_compiled):
    """From the name of a world to the tokenizer and the weights that the command leaves there."""

    @functools.cache
    def run(world):
        folder = tmp_path_factory.mktemp(world)

        def prepare(options):
            contacts = records_builder.build(
                Wards(**WORLDS[world]), options.data_dir, say=lambda line: None
            )
            return tokens_builder.build(
                contacts, options.data_dir, options.tokens, say=lambda line: None
            )

        flags = [f"--config.{key}={value}" for key, value in PRETRAINING.items()]
        flags += [f"--config.data_dir={folder / 'data'}", f"--workdir={folder / 'run'}"]
        one_device = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sharding, "make_mesh", one_device)
            patch.setattr(train, "prepare", prepare)
            cli.main(["pretrain", f"--config={CONFIG}", *flags])
        encoder = folder / "run" / "encoder"
        weights = safetensors.numpy.load((encoder / "model.safetensors").read_bytes())
        return (encoder / "tokenizer.json").read_bytes(), weights

    return run


def test_pretraining_knows_nothing_of_the_text_of_validation_and_test(pretrained):
    """The weights after the last step, which validation only scores."""
    (tokenizer, weights), (other, others) = pretrained("first"), pretrained("second")
    assert tokenizer == other
    for name, array in weights.items():
        np.testing.assert_allclose(others[name], array, rtol=0, atol=1e-6, err_msg=name)
    # Without this the comparison might compare nothing.
    tokenizer, others = pretrained("leaking")
    assert tokenizer != other
    dense = next(name for name in weights if name.endswith("query.weight"))
    assert np.abs(others[dense] - weights[dense]).max() > 1e-4
