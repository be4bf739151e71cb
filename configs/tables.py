r"""Your own five tables: the place to start from with a hospital's extract.

    jaxcoder records --source tables --source_dir extract --check
    jaxcoder train --config configs/tables.py --workdir runs/mine \
        --config.records.source_dir=extract
    jaxcoder evaluate --workdir runs/mine --split test

The README says what stands in the tables. Time and score are those of your data. The model is
larger than the demo's, and reads documents four times as long; codes of fewer than two training
contacts are left out, and count as misses. Evidence is silver: found by counting, from codes alone.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = ConfigDict()
    config.records = {"source": "tables"}
    config.tokens = {
        "serialise": {"max_tokens": 4096},
        "tokenizer": {"vocab_size": 16_000},
        "labels": {"min_count": 2},
        "mini": {"per_contact": 0.0},
    }
    config.batches = {"tokens": 16_384, "max_buckets": 8}
    config.model = {
        "encoder": {
            "width": 256,
            "layers": 2,
            "heads": 4,
            "feedforward": 1024,
            "convolution": 3,
            "window": 256,
        },
        "head": {"kind": "laat"},
    }
    config.loss = {"silver_weight": 2.0}
    config.optim = {"learning_rate": 1.5e-3}
    config.train = {"total": "10 epochs", "patience": 3}
    return config
