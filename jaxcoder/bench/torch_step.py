"""The training step of a coder of the same size in PyTorch, to be measured against.

Attention and label attention are PyTorch's own (`scaled_dot_product_attention`), the optimiser is
its AdamW; under `bfloat16` products run in autocast, as is usual on GPUs.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from jaxcoder import architectures, weights
from jaxcoder.export.modeling import JaxcoderConfig, JaxcoderModel
from jaxcoder.models.coder import CoderOptions
from jaxcoder.optim import OptimOptions

MODES = ("eager", "compiled", "accumulated")
"""As it stands; by `torch.compile`; and the recipe of published coders: see `make_step`."""


def make_step(
    options: CoderOptions, params: Any, optim: OptimOptions, mode: str
) -> Callable[[Mapping[str, np.ndarray]], float]:
    """Makes a training step: forward, backward, clipping, AdamW; without dropout.

    Args:
      options: the coder's.
      params: the weights that it starts from, as in JAX.
      optim: learning rate, decay and clipping; the rate is constant.
      mode: `eager`, `compiled`, or `accumulated`: one document at a time, its gradients added,
        as in the recipe of Edin et al. (2023, arXiv:2304.10909).

    Returns:
      A function that takes a batch as training has it and returns the loss.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder, head = options.encoder, options.head
    model = JaxcoderModel(
        JaxcoderConfig(
            encoder={key: getattr(encoder, key) for key in (*architectures.SHAPE, "window")},
            head={"kind": head.kind, "num_labels": head.num_labels, "width": head.width},
        )
    )
    tensors = weights.to_torch(params, encoder, head)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    model.to(device).train()  # type: ignore[arg-type]
    # All labels at a time: nothing is computed twice, and autograd keeps what it needs.
    model.head.chunk = head.num_labels
    network = torch.compile(model) if mode == "compiled" else model
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=optim.learning_rate,
        betas=(optim.b1, optim.b2),
        eps=optim.eps,
        weight_decay=optim.weight_decay,
    )
    bfloat16 = encoder.dtype == "bfloat16"
    narrow = torch.autocast(device.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext()

    def loss_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        length = batch["tokens"].shape[1]
        mask = torch.arange(length, device=device) < batch["length"][:, None]
        with narrow:
            logits = network(batch["tokens"], mask.long()).logits
        loss_B = F.binary_cross_entropy_with_logits(
            logits.float(), batch["targets"], reduction="none"
        ).sum(1)
        return loss_B[batch["real"]].sum() / batch["documents"]

    def step(batch: Mapping[str, np.ndarray]) -> float:
        placed = _placed(batch, head.num_labels, device)
        optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for part in _rows(placed) if mode == "accumulated" else [placed]:
            loss = loss_of(part)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        optimiser.step()
        synchronise()
        return float(total)

    return step


def _placed(
    batch: Mapping[str, np.ndarray], num_labels: int, device: torch.device
) -> dict[str, torch.Tensor]:
    targets = np.zeros((len(batch["labels"]), num_labels), np.float32)
    rows, slots = np.nonzero(batch["labels"] >= 0)
    targets[rows, batch["labels"][rows, slots]] = 1
    arrays = {
        "tokens": batch["tokens"].astype(np.int64),
        "length": batch["length"].astype(np.int64),
        "targets": targets,
        "real": batch["_mask"],
        "documents": np.array(batch["_mask"].sum(), np.float32),
    }
    return {key: torch.from_numpy(np.asarray(array)).to(device) for key, array in arrays.items()}


def _rows(batch: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Each document by itself, as long as it is."""
    parts = []
    for row, length in enumerate(batch["length"].tolist()):
        if batch["real"][row]:
            part = {key: each[row : row + 1] for key, each in batch.items() if each.ndim}
            part["tokens"] = part["tokens"][:, :length]
            parts.append({**part, "documents": batch["documents"]})
    return parts


def synchronise() -> None:
    """Waits until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
