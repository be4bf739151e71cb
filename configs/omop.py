r"""An OMOP warehouse: visits coded in ICD-10-CM.

    jaxcoder records --source omop --source_dir cdm --check
    jaxcoder train --config configs/omop.py --workdir runs/omop --config.records.source_dir=cdm
    jaxcoder evaluate --workdir runs/omop --split test

Codes are read from condition_occurrence, and where there are such tables from observation,
procedure_occurrence and measurement. Where source concepts are not filled, standard concepts lead
back to ICD-10-CM through concept_relationship: --config.records.options.codes=mapped. Time and
score are those of your data; meant for one accelerator device.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = ConfigDict()
    config.records = {"source": "omop", "options": {"codes": "source", "vocabulary": "ICD10CM"}}
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
