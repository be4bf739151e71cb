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
batches for a `data` axis of 16. With Apache Beam instead of one machine: launch/README.md.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "tables") -> ConfigDict:
    """Returns the experiment."""
    if arg not in ("tables", "synthetic"):
        raise ValueError(f"argument {arg}: expected tables or synthetic")
    config = ConfigDict()
    options = {"name": "population", "shares": (0.80, 0.05, 0.15)}
    if arg == "synthetic":
        options |= {
            "name": "population_synthetic",
            "patients": 1_800_000,
            "contacts_per_patient": 5.8 / 1.8,
        }
    config.records = {"source": arg, "options": options}
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
    config.loss = {"silver_weight": 2.0}
    config.optim = {"learning_rate": 5e-4}
    config.train = {"total": "3 epochs", "checkpoint_every": "2000 steps", "patience": 2}
    return config
