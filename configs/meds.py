r"""A MEDS data set as MIMIC-IV_MEDS extracts it: admissions coded in ICD-10.

    jaxcoder records --source meds --source_dir MIMIC-IV_MEDS --check
    jaxcoder train --config configs/meds.py --workdir runs/meds \
        --config.records.source_dir=MIMIC-IV_MEDS
    jaxcoder evaluate --workdir runs/meds --split test

The split is that of metadata/subject_splits.parquet. Other data sets name the codes of their events
by the options of `MedsOptions` (jaxcoder/records/sources/meds.py). MIMIC-IV_MEDS has no notes:
medications and laboratory results are read. Time and score are those of your data; meant for one
accelerator device. Not run yet: MIMIC needs credentials, and no score is known.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = ConfigDict()
    config.records = {
        "source": "meds",
        "options": {"codes": ("DIAGNOSIS//ICD//10=icd10cm", "PROCEDURE//ICD//10=icd10pcs")},
    }
    config.tokens = {
        "serialise": {"max_tokens": 4096},
        "tokenizer": {"vocab_size": 32_000},
        "labels": {"min_count": 10},
        "mini": {"per_contact": 0.0},
    }
    config.batches = {"tokens": 32_768, "max_buckets": 8}
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
    config.train = {"total": "10 epochs", "patience": 3}
    return config
