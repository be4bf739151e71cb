r"""MIMIC-IV ICD-9: diagnoses and procedures of admissions, by a published split.

    jaxcoder train --config configs/mimic4_icd9.py --workdir runs/mimic4_icd9 \
        --config.records.source_dir=mimiciv \
        --config.records.options.splits=mimiciv_icd9_split.feather
    jaxcoder evaluate --workdir runs/mimic4_icd9 --split test

The folder mimiciv holds hosp/ and note/. The split is that of Edin et al. (SIGIR 2023,
arXiv:2304.10909), whose repository has the file. Notes, medications and laboratory results are
read; for the study's own input add --config.tokens.serialise.sections="('notes',)"
--config.records.options.text=replication. Meant for 8 accelerator devices. Not run yet: MIMIC needs
credentials, and no score is known.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = ConfigDict()
    config.records = {
        "source": "mimic4",
        "options": {"name": "mimic4_icd9", "icd_version": 9, "splits": ""},
    }
    config.tokens = {
        "serialise": {"max_tokens": 6144, "notes_tokens": 5120, "keep": "head+tail"},
        "tokenizer": {"vocab_size": 32_000},
        "labels": {"min_count": 10},
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
