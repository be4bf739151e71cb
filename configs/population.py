r"""The scale of Edin et al. (arXiv:2603.00221): 5.8 million contacts of 1.8 million patients.

    jaxcoder records --source tables --source_dir extract --data_dir data \
        --option name=population --option shares=0.8,0.05,0.15
    jaxcoder tokens --config configs/population.py --data_dir data \
        --config.records.source_dir=extract
    jaxcoder train --config configs/population.py --workdir runs/population --config.data_dir=data \
        --config.records.source_dir=extract
    jaxcoder evaluate --workdir runs/population --split test

85 % of the patients are for training and validation, and 15 % are held out: 270,000 of 1.8 million.
`:synthetic` is a cohort of that size that is generated, to try machines on: its contact
records take 24 minutes on 2 CPU cores (`jaxcoder bench population`, projected from 400,000). Nobody
has trained this recipe yet; it is meant for a slice of 16 accelerator devices or more, and its
batches for a `data` axis of 16. `:roberta` and `:modernbert` have an encoder of the size of those
models' base, documents of 4,096 tokens and random weights; what they take of a TPU slice is in
launch/README.md. With Apache Beam instead of one machine: launch/README.md.
"""

from ml_collections import ConfigDict

# Sizes of the base models, by Liu et al. (arXiv:1907.11692) and Warner et al. (arXiv:2412.13663).
_BASE = {
    "roberta": {
        "layers": 12,
        "convolution": 0,
        "window": 512,
        "position_offset": 2,
        "norm_epsilon": 1e-5,
    },
    "modernbert": {
        "family": "modernbert",
        "layers": 22,
        "feedforward": 1152,
        "convolution": 0,
        "local_attention": 128,
        "norm_epsilon": 1e-5,
        "dropout": 0.0,
    },
}
_VOCABULARY = {"roberta": 50_265, "modernbert": 50_368}


def get_config(arg: str = "tables") -> ConfigDict:
    """Returns the experiment."""
    known = ("tables", "synthetic", *_BASE)
    if arg not in known:
        raise ValueError(f"argument {arg}: expected one of {', '.join(known)}")
    config = ConfigDict()
    options = {"name": "population", "shares": (0.80, 0.05, 0.15)}
    if arg == "synthetic":
        options |= {
            "name": "population_synthetic",
            "patients": 1_800_000,
            "contacts_per_patient": 5.8 / 1.8,
        }
    config.records = {"source": "tables" if arg in _BASE else arg, "options": options}
    config.tokens = {
        "serialise": {"max_tokens": 6144, "notes_tokens": 5120, "keep": "head+tail"},
        "tokenizer": {"vocab_size": 32_000},
        "labels": {"min_count": 10},
        "mini": {"per_contact": 0.0},
    }
    config.batches = {"tokens": 262_144, "row_multiple": 16, "max_buckets": 8}
    config.model = {
        "encoder": {
            "width": 768,
            "layers": 8,
            "heads": 12,
            "feedforward": 3072,
            "convolution": 3,
            "window": 256,
            "attention_dropout": 0.0,  # the kernels of TPUs and GPUs have none
            "dtype": "bfloat16",
            "remat": True,
        },
        "head": {"kind": "laat"},
    }
    if arg in _BASE:
        config.tokens.serialise.update({"max_tokens": 4096, "notes_tokens": 3072})
        config.tokens.tokenizer.vocab_size = _VOCABULARY[arg]
        config.model.encoder.update(_BASE[arg])
        # So that the word table's gradient is cut in as many parts as a slice of 256 has chips.
        config.model.encoder.vocab_multiple = 1024
    config.loss = {"silver_weight": 2.0}
    config.optim = {"learning_rate": 5e-4}
    config.train = {"total": "3 epochs", "checkpoint_every": "2000 steps", "patience": 2}
    return config
