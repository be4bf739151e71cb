r"""The demo: the whole way on a synthetic cohort, in minutes on 2 CPU cores.

    jaxcoder train --config configs/demo.py --workdir runs/demo
    jaxcoder evaluate --workdir runs/demo --split test
    jaxcoder report --workdir runs/demo

On the test split, 518 contacts: micro-F1 .746 of a ceiling of .864, macro-F1 .674, recall@10 .942;
148 s from a fresh clone with the install, on 2 CPU cores. Without medications and laboratory
results .724, .625 and .907: --config.tokens.serialise.sections="('notes',)".
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = ConfigDict()
    config.records = {"source": "synthetic", "options": {"patients": 2000}}
    config.tokens = {
        "serialise": {"max_tokens": 1024},
        "tokenizer": {"vocab_size": 4000},
        "mini": {"per_contact": 0.0},
    }
    config.batches = {"tokens": 8192, "max_buckets": 3}
    config.model = {
        "encoder": {
            "width": 128,
            "layers": 1,
            "heads": 4,
            "feedforward": 512,
            "convolution": 3,
            "window": 128,
        },
        "head": {"kind": "laat"},
    }
    config.loss = {"silver_weight": 2.0}
    config.optim = {"learning_rate": 3e-3}
    config.train = {"total": "3 epochs"}
    return config
