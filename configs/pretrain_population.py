r"""An encoder for configs/population.py, pretrained on the text of its training split.

    jaxcoder records --source tables --source_dir extract --data_dir data \
        --option name=population --option shares=0.8,0.05,0.15
    jaxcoder tokens --config configs/pretrain_population.py --data_dir data \
        --config.records.source_dir=extract
    jaxcoder pretrain --config configs/pretrain_population.py --workdir runs/encoder \
        --config.data_dir=data --config.records.source_dir=extract
    jaxcoder tokens --config configs/population.py --data_dir data \
        --config.records.source_dir=extract --config.model.encoder.init=runs/encoder/encoder
    jaxcoder train --config configs/population.py --workdir runs/population --config.data_dir=data \
        --config.records.source_dir=extract --config.model.encoder.init=runs/encoder/encoder

The scale is that of Edin et al. (arXiv:2603.00221): 5.8 million contacts of 1.8 million patients.
`:synthetic` is a cohort of that size that is generated, to try machines on. Nobody has run this
recipe at that size yet; it is meant for a slice of 16 accelerator devices or more, up to 64, over
which fsdp splits rows, parameters and optimiser.

The encoder is a ModernBERT of the size of its base model, and 30 % of the tokens are hidden (Warner
et al., arXiv:2412.13663). Documents of up to 8,192 tokens stand whole in their rows; the coder
reads the same text, cut to 6,144. Its shape comes with `encoder.init` and replaces that of
configs/population.py, which needs no other flag; so does the tokenizer, and therefore the coder has
token records of its own.
"""

from ml_collections import ConfigDict

LONGEST = 8192  # tokens of a document, and of a row


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
        "serialise": {"max_tokens": LONGEST, "keep": "head+tail"},
        "tokenizer": {"vocab_size": 32_000, "splits": ("train",)},
        "labels": {"enabled": False},
        "silver": {"enabled": False},
        "mini": {"per_contact": 0.0},
    }
    # Rows are batches of 524,288 tokens; of the 290,000 contacts of validation some will do.
    config.packing = {
        "splits": ("train",),
        "held_out_documents": 10_000,
        "length": LONGEST,
        "rows": 64,
    }
    config.masking = {"rate": 0.3}
    config.model = {
        "encoder": {
            "family": "modernbert",
            "width": 768,
            "layers": 22,
            "heads": 12,
            "feedforward": 1152,
            "local_attention": 128,
            "max_positions": LONGEST,
            "norm_epsilon": 1e-5,
            "dropout": 0.0,  # as ModernBERT; the kernels of TPUs have none of attention weights
            "dtype": "bfloat16",
            "remat": True,
            "vocab_multiple": 128,
        },
    }
    config.optim = {"learning_rate": 5e-4}
    config.train = {
        "total": "3 epochs",
        "evaluate_every": "2000 steps",
        "checkpoint_every": "500 steps",
    }
    config.mesh = {"data": 1, "fsdp": -1}
    return config
