"""`jaxcoder bench label_attention`: memory and time of the label head, against the naive form.

Both compute logits and all gradients from the same states. `naive` holds scores and weights
[B, L, T] and leaves the gradient to autodiff; `chunked` is what `laat` runs. Peak is XLA's own
count of temporary memory. Times alternate between the two, and the smallest counts.

The floor: a step cannot do with fewer than six products of B·L·T·D multiplications and additions
(scores and mixing, and two gradients of each), nor with fewer bytes than its arguments and results.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcoder import entry
from jaxcoder.errors import UserError
from jaxcoder.models.chunks import laat_logits
from jaxcoder.models.layout import Layout

_MIB = 2**20
_PRODUCTS = 6


def naive_logits(
    keys_BxTxD: jax.Array,
    values_BxTxD: jax.Array,
    query_LxD: jax.Array,
    output_LxD: jax.Array,
    mask_BxT: jax.Array,
) -> jax.Array:
    """The formula of `laat` as it reads, float32 [B, L]; arguments as of `chunks.laat_logits`."""
    scores_BxLxT = jnp.einsum("ld,btd->blt", query_LxD, keys_BxTxD) + mask_BxT[:, None]
    mixed_BxLxD = jnp.einsum("blt,btd->bld", jax.nn.softmax(scores_BxLxT, -1), values_BxTxD)
    return jnp.einsum("bld,ld->bl", mixed_BxLxD, output_LxD)


def main(argv: Sequence[str]) -> None:
    """Prints memory and time of both forms, their ratios, and the distance from the floor."""
    parser = entry.Parser(prog="jaxcoder bench label_attention", description=__doc__)
    parser.add_argument("--labels", type=int, default=8000, help="L")
    parser.add_argument("--tokens", type=int, default=4096, help="T")
    parser.add_argument("--width", type=int, default=256, help="D")
    parser.add_argument("--batch", type=int, default=2, help="B")
    parser.add_argument("--chunk", type=int, default=0, help="labels at a time; 0: by memory")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each form")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args(argv)
    batch, length, labels, width = options.batch, options.tokens, options.labels, options.width
    keys = jax.random.split(jax.random.key(0), 4)
    dtype = jnp.dtype(options.dtype)
    arguments = (
        jnp.tanh(jax.random.normal(keys[0], (batch, length, width), dtype)),
        jax.random.normal(keys[1], (batch, length, width), dtype),
        jax.random.normal(keys[2], (labels, width)) * 0.1,
        jax.random.normal(keys[3], (labels, width)) * 0.1,
    )
    mask_BxT = jnp.where(jnp.arange(length) < length * 9 // 10, 0.0, -1e9)[None].repeat(batch, 0)

    def step(form: Callable[..., jax.Array], **keywords: Any) -> jax.stages.Compiled:
        def loss(*inputs: jax.Array) -> jax.Array:
            return jnp.sum(jax.nn.softplus(form(*inputs, mask_BxT, **keywords)))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3))).lower(*arguments).compile()

    layout = Layout.of(jax.default_backend())
    forms = {
        "naive": step(naive_logits),
        "chunked": step(laat_logits, chunk=options.chunk, layout=layout),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    losses = {}
    for _ in range(options.repeats + 1):  # the first run of each is a warm-up
        for name, compiled in forms.items():
            started = time.perf_counter()
            loss, _ = jax.block_until_ready(compiled(*arguments))
            times[name].append(time.perf_counter() - started)
            losses[name] = float(loss)
    print(f"{jax.devices()[0].device_kind}, {dtype}: L={labels} T={length} D={width} B={batch}")
    print(f"{'form':<10}{'peak MiB':>10}{'ms':>10}{'GFLOP/s':>10}")
    floor = _PRODUCTS * 2 * batch * labels * length * width
    peaks, best = {}, {}
    for name, compiled in forms.items():
        memory = compiled.memory_analysis()
        if memory is None:
            raise UserError(
                f"{jax.default_backend()}: does not count memory; run on cpu, gpu or tpu"
            )
        peaks[name] = memory.temp_size_in_bytes / _MIB
        best[name] = min(times[name][1:])
        rate = floor / best[name] / 1e9
        print(f"{name:<10}{peaks[name]:>10.0f}{best[name] * 1e3:>10.0f}{rate:>10.0f}")
    moved = 2 * sum(argument.nbytes for argument in arguments) / _MIB
    print(f"floor     {moved:>10.0f} MiB of arguments and gradients, {floor / 1e9:.0f} GFLOP")
    print(
        f"chunked / naive: memory {peaks['chunked'] / peaks['naive']:.2f}, "
        f"time {best['chunked'] / best['naive']:.2f}; "
        f"losses differ by {abs(losses['chunked'] / losses['naive'] - 1):.0e}"
    )


if __name__ == "__main__":
    entry.run(main)
