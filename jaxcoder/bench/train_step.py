"""`jaxcoder bench train_step`: one training step, and how much of the machine it uses.

The step is the one of `jaxcoder train` on one device, forward, backward and AdamW, on made-up
documents whose lengths are even between --shortest and --tokens. With --against torch a coder of
the same size in PyTorch, from the same weights, takes the same batches in the same run; steps of
the two alternate and the median counts. Dropout is off on both sides.

Utilisation is that of the floating-point operations of the model (products of real and padding
tokens alike, forward and twice that backward; what is computed again is not counted) against the
speed of a plain product of matrices in the same run and dtype. Model and step need jax, flax and
optax alone. Float32 is float32 on both sides, on GPUs too: no TF32. The mode `accumulated` is a
published recipe (see `torch_step.make_step`), on GPUs in float16.

Peak is what a side's arrays took of the device's memory at most, its state included, but not that
of the other sides; a CPU does not count it.
"""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcoder import entry, sharding, steps
from jaxcoder.errors import UserError
from jaxcoder.losses import LossOptions
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.optim import OptimOptions
from jaxcoder.train_log import peak_memory

Batch = Mapping[str, np.ndarray]
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"width": 256, "layers": 4, "heads": 4, "feedforward": 1024, "window": 512}
    | {"vocab_size": 8000},
    "roberta-base": {"width": 768, "layers": 12, "heads": 12, "feedforward": 3072, "window": 512}
    | {"vocab_size": 50_265, "position_offset": 2},
    "modernbert-base": {"family": "modernbert", "width": 768, "layers": 22, "heads": 12}
    | {"feedforward": 1152, "vocab_size": 50_368},
}
_SIDE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}  # of the matrices that tell the machine's speed
_LABELS = 16  # codes of a document


def flops(options: CoderOptions, rows: int, length: int) -> float:
    """Floating-point operations of the products of one step.

    Args:
      options: the coder.
      rows: B.
      length: T.
    """
    shape, head = options.encoder, options.head
    width, inner = shape.width, head.width or shape.width
    gates = 3 if shape.family == "modernbert" else 2
    layer = 4 * width**2 + gates * width * shape.feedforward
    seen = sum(_seen(shape, layer, length) for layer in range(shape.layers))
    looks = head.num_labels * (inner + (width if head.kind == "laat" else inner))
    projection = width * inner * (1 if head.kind == "laat" else 2)
    a_token = shape.layers * layer + 2 * width * seen + projection + looks
    a_token += shape.convolution * width**2
    return 3 * 2 * rows * length * float(a_token)


def _seen(shape: EncoderOptions, layer: int, length: int) -> int:
    """How many tokens a token sees in a layer."""
    if shape.family == "bert":
        return min(shape.window, length)
    if layer % shape.global_every == 0:
        return length
    return min(shape.local_attention + 1, length)


def made_up(options: CoderOptions, rows: int, shortest: int, longest: int, seed: int) -> Batch:
    """A batch of random documents whose lengths are even between two."""
    rng = np.random.default_rng(seed)
    labels = np.stack(
        [rng.choice(options.head.num_labels, _LABELS, replace=False) for _ in range(rows)]
    )
    return {
        "tokens": rng.integers(1, options.encoder.vocab_size, (rows, longest)).astype(np.int32),
        "length": rng.integers(shortest, longest + 1, rows).astype(np.int32),
        "labels": np.sort(labels).astype(np.int32),
        "_mask": np.ones(rows, bool),
    }


class Measured:
    """The steps of one side: how long each took, and what it said.

    Attributes:
      name: for people.
      compile: seconds of the first step.
      seconds: of each later one.
      loss: of the last one.
      peak: tells the bytes of the device that it took at most, None where these are not counted.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[Batch], float],
        peak: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Takes a step that ends when its loss is there."""
        self.name, self._step, self.peak = name, step, peak
        self.compile = 0.0
        self.seconds: list[float] = []
        self.loss = 0.0

    def take(self, batch: Batch) -> None:
        """Takes a step."""
        started = time.perf_counter()
        self.loss = self._step(batch)
        seconds = time.perf_counter() - started
        if self.compile:
            self.seconds.append(seconds)
        else:
            self.compile = seconds

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


def jax_step(
    options: CoderOptions, optim: OptimOptions
) -> tuple[Callable[[Batch], float], Any, Callable[[Batch], Any]]:
    """The step of `jaxcoder train` on one device, as PyTorch has it.

    Returns:
      The step, the parameters before the first, and XLA's count of the memory of a batch's step.
    """
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    its = steps.make_steps(mesh, options, LossOptions(), optim)
    held = [its.init(0)]
    params = sharding.whole(held[0].params)

    def step(batch: Batch) -> float:
        placed = sharding.put_batch(batch, its.batch_sharding)
        with _exact(options.encoder.dtype):
            state, metrics = its.train(held.pop(), placed)
        held.append(state)
        return float(metrics["loss"])

    def memory(batch: Batch) -> Any:
        placed = sharding.put_batch(batch, its.batch_sharding)
        with _exact(options.encoder.dtype):
            return its.train.lower(its.state_shapes, placed).compile().memory_analysis()  # type: ignore[attr-defined]

    return step, params, memory


def _exact(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Float32 products without TF32, as PyTorch's; a CPU has nothing less exact."""
    if dtype != "float32" or jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def _peak() -> int | None:
    """Bytes of the first device that JAX's arrays took at most."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def matmul_rate(dtype: str, seconds: float = 1.0) -> float:
    """Floating-point operations a second of a plain product of square matrices."""
    side = _SIDE.get(jax.default_backend(), 4096)
    matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    with _exact(dtype):
        jax.block_until_ready(product(matrix, matrix))
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        started = time.perf_counter()
        with _exact(dtype):  # a part of what jit knows a program by
            jax.block_until_ready(product(matrix, matrix))
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def main(argv: Sequence[str]) -> None:
    """Prints tokens a second, utilisation, compile time and memory of each side."""
    parser = entry.Parser(prog="jaxcoder bench train_step", description=__doc__)
    parser.add_argument("--size", choices=PRESETS, default="small", help="of the encoder")
    for name in ("width", "layers", "heads", "feedforward", "window"):
        parser.add_argument(f"--{name}", type=int, help="instead of what the size says")
    parser.add_argument("--tokens", type=int, default=512, help="T, of the batch")
    parser.add_argument("--shortest", type=int, default=0, help="document; 0: all as long as T")
    parser.add_argument("--batch", type=int, default=8, help="B")
    parser.add_argument("--labels", type=int, default=1767, help="L")
    parser.add_argument("--head", choices=("laat", "cross"), default="laat")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention", default="auto", help="auto, xla, splash or cudnn")
    parser.add_argument("--remat", action="store_true", help="recompute layers when going back")
    parser.add_argument("--steps", type=int, default=12, help="timed steps of each side")
    parser.add_argument("--against", choices=("torch",), help="measure PyTorch too")
    parser.add_argument("--modes", nargs="+", default=["eager"], help="of PyTorch")
    parser.add_argument("--trace", default="", help="folder for a trace of jax.profiler")
    wanted = parser.parse_args(argv)
    if wanted.steps < 1:
        raise UserError(f"--steps {wanted.steps}: expected at least 1")
    if wanted.labels < _LABELS:
        raise UserError(f"--labels {wanted.labels}: expected at least the {_LABELS} of a document")
    if not 0 <= wanted.shortest <= wanted.tokens:
        raise UserError(
            f"--shortest {wanted.shortest}: expected 0 to --tokens {wanted.tokens}, the longest"
        )
    options = _options(wanted)
    optim = OptimOptions(learning_rate=1e-4, schedule="constant")
    step, params, memory = jax_step(options, optim)
    sides = [Measured("JAX", step, _peak)]
    if wanted.against:
        sides += _torch_sides(options, params, optim, wanted.modes)
    shortest = wanted.shortest or wanted.tokens
    batches = [
        made_up(options, wanted.batch, shortest, wanted.tokens, seed)
        for seed in range(wanted.steps + 1)
    ]
    for batch in batches:
        for side in sides:
            side.take(batch)
    if wanted.trace:
        with jax.profiler.trace(wanted.trace):
            sides[0].take(batches[0])
        sides[0].seconds.pop()
    _report(wanted, options, sides, batches, memory(batches[0]))


def _options(wanted: Any) -> CoderOptions:
    chosen = dict(PRESETS[wanted.size])
    for name in ("width", "layers", "heads", "feedforward", "window"):
        if getattr(wanted, name) is not None:
            chosen[name] = getattr(wanted, name)
    chosen["window"] = min(chosen.get("window", wanted.tokens), wanted.tokens)
    try:
        encoder = EncoderOptions(
            **chosen,
            dropout=0.0,
            dtype=wanted.dtype,
            attention=wanted.attention,
            remat=wanted.remat,
        )
        return CoderOptions(encoder, HeadOptions(kind=wanted.head, num_labels=wanted.labels))
    except ValueError as error:
        raise UserError(f"--{error}") from None


def _torch_sides(
    options: CoderOptions, params: Any, optim: OptimOptions, modes: Sequence[str]
) -> list[Measured]:
    try:
        from jaxcoder.bench import torch_step  # an extra
    except ImportError:
        raise UserError(
            "--against torch: needs torch, which is not installed; pip install 'jaxcoder[torch]'"
        ) from None
    if unknown := [mode for mode in modes if mode not in torch_step.MODES]:
        raise UserError(f"--modes {unknown[0]}: expected {', '.join(torch_step.MODES)}")
    sides = []
    for mode in modes:
        make = functools.partial(torch_step.make_step, options, params, optim, mode)
        watched = torch_step.Watched(make)
        sides.append(Measured(f"torch {mode}", watched, lambda watched=watched: watched.peak))  # type: ignore[misc]
    return sides


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f}"


def _report(
    wanted: Any, options: CoderOptions, sides: list[Measured], batches: list[Batch], memory: Any
) -> None:
    peaks = [_mib(side.peak()) for side in sides]  # before the plain product, which takes some too
    ceiling = matmul_rate(wanted.dtype)
    tokens = statistics.mean(float(batch["length"].sum()) for batch in batches)
    computed = wanted.batch * wanted.tokens
    work = flops(options, wanted.batch, wanted.tokens)
    shape = options.encoder
    print(
        f"{jax.devices()[0].device_kind}, {wanted.dtype}"
        f"{' without TF32' if wanted.dtype == 'float32' else ''}: {wanted.size}, "
        f"{shape.layers} layers, D={shape.width} T={wanted.tokens} B={wanted.batch} "
        f"L={wanted.labels}; "
        f"{work / 1e9:.0f} GFLOP a step, padding {1 - tokens / computed:.1%}; "
        f"a plain product: {ceiling / 1e9:.0f} GFLOP/s"
    )
    print(
        f"{'':<18}{'ms':>9}{'real tokens/s':>15}{'use':>7}{'/ JAX':>8}{'first s':>9}"
        f"{'peak MiB':>10}{'loss':>10}"
    )
    for side, peak in zip(sides, peaks, strict=True):
        print(
            f"{side.name:<18}{side.median * 1e3:>9.1f}{tokens / side.median:>15,.0f}"
            f"{work / side.median / ceiling:>7.0%}{sides[0].median / side.median:>8.2f}"
            f"{side.compile:>9.1f}{peak:>10}{side.loss:>10.4f}"
        )
    if memory is not None:
        mib = 2**20
        print(
            f"JAX: {memory.argument_size_in_bytes / mib:.0f} MiB of arguments, "
            f"{memory.temp_size_in_bytes / mib:.0f} MiB temporary; this process held at most "
            f"{peak_memory():.1f} GiB"
        )


if __name__ == "__main__":
    entry.run(main)
