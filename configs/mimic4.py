r"""MIMIC-IV: diagnoses and procedures of one ICD version, by a published split.

    jaxcoder train --config configs/mimic4.py:icd10 --workdir runs/mimic4_icd10 \
        --config.records.source_dir=mimiciv \
        --config.records.options.splits=mimiciv_icd10_split.feather
    jaxcoder evaluate --workdir runs/mimic4_icd10 --split test

The argument is icd9 or icd10. The folder mimiciv holds hosp/ and note/. The splits are those of
Edin et al. (SIGIR 2023, arXiv:2304.10909), whose repository has the files. Notes, medications and
laboratory results are read; for the study's own input add
--config.tokens.serialise.sections="('notes',)" --config.records.options.text=replication.
Meant for 8 accelerator devices. Not run yet: MIMIC needs credentials, and no score is known.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "icd10") -> ConfigDict:
    """Returns the experiment."""
    if arg not in ("icd9", "icd10"):
        raise ValueError(f"argument {arg}: expected icd9 or icd10")
    version = int(arg.removeprefix("icd"))
    config = ConfigDict()
    config.records = {
        "source": "mimic4",
        "options": {"name": f"mimic4_{arg}", "icd_version": version, "splits": ""},
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
