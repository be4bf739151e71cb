r"""MIMIC-III 50: the 50 most frequent ICD-9 codes, by a published split.

    jaxcoder train --config configs/mimic3_50.py --workdir runs/mimic3_50 \
        --config.records.source_dir=mimiciii \
        --config.records.options.splits=mimiciii_50_splits.feather
    jaxcoder evaluate --workdir runs/mimic3_50 --split test

The split is that of Edin et al. (SIGIR 2023, arXiv:2304.10909), whose repository has the file.
Notes, medications and laboratory results are read; for the study's own input add
--config.tokens.serialise.sections="('notes',)" --config.records.options.text=replication.
Meant for 8 accelerator devices. Not run yet: MIMIC needs credentials, and no score is known.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = ConfigDict()
    config.records = {
        "source": "mimic3",
        "options": {"name": "mimic3_50", "splits": "", "most_frequent_codes_all_splits": 50},
    }
    config.tokens = {
        "serialise": {"max_tokens": 6144, "notes_tokens": 5120, "keep": "head+tail"},
        "tokenizer": {"vocab_size": 32_000},
        "labels": {"min_count": 1},
        "mini": {"per_contact": 0.0},
    }
    config.batches = {"tokens": 65_536, "row_multiple": 8, "max_buckets": 8}
    config.model = {
        "encoder": {
            "width": 512,
            "layers": 4,
            "heads": 8,
            "feedforward": 2048,
            "convolution": 3,
            "window": 256,
            "dtype": "bfloat16",
            "remat": True,
        },
        "head": {"kind": "laat"},
    }
    config.loss = {"silver_weight": 2.0}
    config.optim = {"learning_rate": 5e-4}
    config.train = {"total": "20 epochs", "patience": 4}
    return config
