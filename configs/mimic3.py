r"""MIMIC-III: ICD-9 diagnoses and procedures, by a published split.

    jaxcoder train --config configs/mimic3.py:full --workdir runs/mimic3_full \
        --config.records.source_dir=mimiciii \
        --config.records.options.splits=mimiciii_full_splits.feather
    jaxcoder evaluate --workdir runs/mimic3_full --split test

The argument is the split: full, 50 (of the 50 most frequent codes) or clean (of codes with ten
training contacts or more). They are those of Edin et al. (SIGIR 2023, arXiv:2304.10909), whose
repository has the files. Notes, medications and laboratory results are read; for the study's own
input add --config.tokens.serialise.sections="('notes',)"
--config.records.options.text=replication.
Meant for 8 accelerator devices. Not run yet: MIMIC needs credentials, and no score is known.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "full") -> ConfigDict:
    """Returns the experiment."""
    if arg not in ("full", "50", "clean"):
        raise ValueError(f"argument {arg}: expected full, 50 or clean")
    options = {"name": f"mimic3_{arg}", "splits": ""}
    options |= {"most_frequent_codes_all_splits": 50} if arg == "50" else {}
    config = ConfigDict()
    config.records = {"source": "mimic3", "options": options}
    config.tokens = {
        "serialise": {"max_tokens": 6144, "notes_tokens": 5120, "keep": "head+tail"},
        "tokenizer": {"vocab_size": 32_000},
        "labels": {"min_count": 10 if arg == "clean" else 1},
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
