"""`jaxcoder bench parity`: the encoder against transformers in PyTorch, on the same weights.

Makes a small checkpoint of each architecture with random weights, reads it as `encoder.init` does,
and compares the last hidden states of a padded batch of documents of different lengths, float32.
With --model it compares a folder or a name on the Hugging Face hub instead.
"""

import functools
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcoder import entry, hub, pretrained
from jaxcoder.errors import UserError
from jaxcoder.models import encoder

_SMALL = {
    "vocab_size": 99,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "initializer_range": 0.2,
    "bos_token_id": 4,
    "eos_token_id": 5,
}
# Positions enough for the longest document, and in ModernBERT more of them than a local window.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {"max_position_embeddings": 40, "pad_token_id": 0},
    "roberta": {"max_position_embeddings": 42, "pad_token_id": 1, "layer_norm_eps": 1e-5},
    "xlm-roberta": {"max_position_embeddings": 42, "pad_token_id": 1, "type_vocab_size": 1},
    "modernbert": {
        "max_position_embeddings": 64,
        "local_attention": 8,
        "pad_token_id": 3,
        "cls_token_id": 4,
        "sep_token_id": 5,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
    },
}
LENGTHS = (37, 40, 1, 12)


def make(architecture: str, folder: str, seed: int = 0, task: str = "Model") -> None:
    """Writes a small checkpoint with random weights, scales and shifts of norms included.

    Args:
      architecture: one of `ARCHITECTURES`.
      folder: where.
      seed: of the weights.
      task: the class of transformers without its `Auto`, such as `ModelForMaskedLM`.
    """
    torch, transformers = _libraries()
    torch.manual_seed(seed)
    options = _SMALL | ARCHITECTURES[architecture]
    config = transformers.AutoConfig.for_model(architecture, **options)
    model = getattr(transformers, f"Auto{task}").from_config(config)
    with torch.no_grad():
        for name, array in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                array.add_(0.3 * torch.randn_like(array))
    model.save_pretrained(folder)


def difference(name: str, lengths: Sequence[int] = LENGTHS, seed: int = 0) -> float:
    """The largest absolute difference between the states of both, over all real tokens.

    Args:
      name: a folder, or a name on the Hugging Face hub.
      lengths: tokens of each document; the batch is as long as the longest.
      seed: of the tokens.
    """
    torch, transformers = _libraries()
    options = pretrained.options_of(name, attention="xla")
    valid_BxT = np.arange(max(lengths))[None] < np.array(lengths)[:, None]
    tokens_BxT = np.random.default_rng(seed).integers(0, options.vocab_size, valid_BxT.shape)
    # A padding token inside a text would be masked by some models and not by others.
    tokens_BxT[tokens_BxT == options.pad_id] = options.pad_id + 1
    tokens_BxT[~valid_BxT] = options.pad_id
    model = transformers.AutoModel.from_pretrained(os.fspath(hub.folder(name)), dtype=torch.float32)
    with torch.no_grad():
        theirs = model.eval()(
            input_ids=torch.from_numpy(tokens_BxT),
            attention_mask=torch.from_numpy(valid_BxT).long(),
        ).last_hidden_state.numpy()
    params = pretrained.load(name, options)
    states = jax.jit(functools.partial(encoder.apply, options))
    with jax.default_matmul_precision("highest"):
        ours = states(params, jnp.asarray(tokens_BxT, jnp.int32), jnp.asarray(valid_BxT))
    return float(np.max(np.abs(np.asarray(ours) - theirs)[valid_BxT]))


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
    except ImportError:
        raise UserError(
            "PyTorch is not installed, with which bench parity compares; "
            "pip install 'jaxcoder[torch]'"
        ) from None
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def main(argv: Sequence[str]) -> None:
    """Prints the largest difference of each architecture."""
    parser = entry.Parser(prog="jaxcoder bench parity", description=__doc__)
    parser.add_argument("--model", help="a folder, or a name on the Hugging Face hub")
    options = parser.parse_args(argv)
    print(f"{'model':<40} max difference")
    if options.model:
        print(f"{options.model:<40} {difference(options.model):.1e}")
        return
    for architecture in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            make(architecture, folder)
            print(f"{f'{architecture}, random':<40} {difference(folder):.1e}")


if __name__ == "__main__":
    entry.run(main)
