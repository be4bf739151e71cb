"""The training step of a coder of the same size in PyTorch, to be measured against.

Attention and label attention are PyTorch's own (`scaled_dot_product_attention`), the optimiser is
its AdamW; under `bfloat16` products run in autocast, as is usual on GPUs. What is float32 is so
throughout: no TF32, as in JAX's side of the benchmark.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from jaxcoder import architectures, weights
from jaxcoder.export.modeling import JaxcoderConfig, JaxcoderModel
from jaxcoder.models.coder import CoderOptions
from jaxcoder.optim import OptimOptions

T = TypeVar("T")
MODES = ("eager", "compiled", "accumulated")
"""As it stands; by `torch.compile`; and the recipe of published coders: see `make_step`."""
ACCUMULATED = 16
"""Documents whose gradients `accumulated` adds to one update."""


def make_step(
    options: CoderOptions, params: Any, optim: OptimOptions, mode: str
) -> Callable[[Mapping[str, np.ndarray]], float]:
    """Makes a training step: forward, backward, clipping, AdamW; without dropout.

    Args:
      options: the coder's.
      params: the weights that it starts from, as in JAX.
      optim: learning rate, decay and clipping; the rate is constant.
      mode: `eager`, `compiled`, or `accumulated`: the recipe of Edin et al. (2023,
        arXiv:2304.10909), one document at a time, the gradients of 16 added (of as many as a batch
        has, where these are fewer), on GPUs in float16 autocast with a scaled loss, whatever the
        dtype. On a CPU, which float16 makes no faster, it has the dtype of the others.

    Returns:
      A function that takes a batch as training has it and returns the loss; of several updates the
      mean.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
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
    scaled = mode == "accumulated" and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    dtype = torch.float16 if scaled else getattr(torch, encoder.dtype)
    narrow: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if dtype != torch.float32:
        narrow = torch.autocast(device.type, dtype)

    def loss_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        length = batch["tokens"].shape[1]
        mask = torch.arange(length, device=device) < batch["length"][:, None]
        with narrow:
            logits = network(batch["tokens"], mask.long()).logits
        loss_B = F.binary_cross_entropy_with_logits(
            logits.float(), batch["targets"], reduction="none"
        ).sum(1)
        return loss_B[batch["real"]].sum() / batch["documents"]

    def update(parts: Sequence[Mapping[str, torch.Tensor]]) -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for part in parts:
            loss = loss_of(part)
            scaler.scale(loss).backward()
            total += loss.detach()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        return total

    def step(batch: Mapping[str, np.ndarray]) -> float:
        placed = _placed(batch, head.num_labels, device)
        groups = _groups(placed, ACCUMULATED) if mode == "accumulated" else [[placed]]
        total = torch.stack([update(parts) for parts in groups]).mean()
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


def _groups(batch: Mapping[str, torch.Tensor], most: int) -> list[list[dict[str, torch.Tensor]]]:
    """Each document by itself, as long as it is; those of an update in one list."""
    lengths = batch["length"].tolist()
    real = [row for row in range(len(lengths)) if batch["real"][row]]
    groups = []
    for start in range(0, len(real), most):
        group = []
        for row in real[start : start + most]:
            part = {key: each[row : row + 1] for key, each in batch.items() if each.ndim}
            part["tokens"] = part["tokens"][:, : lengths[row]]
            group.append(part)
        documents = torch.full_like(batch["documents"], len(group))
        groups.append([{**part, "documents": documents} for part in group])
    return groups


def synchronise() -> None:
    """Waits until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Watched:
    """A step, and what it took of a GPU's memory, beside other steps on the same GPU.

    Attributes:
      peak: bytes of PyTorch's tensors at most, those that it keeps between steps included; None
        without a GPU.
    """

    def __init__(self, make: Callable[[], Callable[[Mapping[str, np.ndarray]], float]]) -> None:
        """Makes the step; what is allocated on the way is its own."""
        self.peak: int | None = None
        self._kept = 0
        self._step = self._watch(make)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> float:
        """Takes the step."""
        return self._watch(lambda: self._step(batch))

    def _watch(self, work: Callable[[], T]) -> T:
        if not torch.cuda.is_available():
            return work()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()  # what others keep
        result = work()
        highest = self._kept + torch.cuda.max_memory_allocated() - before
        self.peak = max(self.peak or 0, highest)
        self._kept += torch.cuda.memory_allocated() - before
        return result
