"""`jaxcoder bench attention`: time and memory of self-attention, by length of document.

Computes the attention of a layer and the gradients of query, key and value, for documents without
padding, in every way that this machine has: `naive` is the formula as it reads, which holds
[T, T] and leaves the gradient to autodiff; the others are those of `models.attention`. `full` is a
global layer, `local` one in which a token sees those at most `--radius` away.

Peak is XLA's own count of temporary memory. Times of the ways alternate, and the smallest counts.

The floor: six products of a multiplication and an addition for each pair of tokens that see each
other (scores and mixing, and two gradients of each), at the speed of a plain product of 2,048³ in
the same run; and no fewer bytes than query, key, value, result and the gradients of them.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcoder import entry, sharding
from jaxcoder.errors import UserError
from jaxcoder.models.attention import IMPLEMENTATIONS, Sight, attention, choose
from jaxcoder.models.layers import MASKED
from jaxcoder.models.layout import Layout

_MIB = 2**20
_PRODUCTS = 6
_SIDE = 2048  # of the matrices whose product tells the machine's speed


def naive(
    query_BxHxTxK: jax.Array, key_BxHxTxK: jax.Array, value_BxHxTxK: jax.Array, sight: Sight
) -> jax.Array:
    """Attention over all pairs of tokens as its formula reads; arguments as of `attention`."""
    scores_BxHxTxT = jnp.einsum("bhqk,bhsk->bhqs", query_BxHxTxK, key_BxHxTxK)
    if sight.radius:
        index_T = jnp.arange(query_BxHxTxK.shape[2])
        far_TxT = jnp.abs(index_T[:, None] - index_T[None]) > sight.radius
        scores_BxHxTxT = jnp.where(far_TxT[None, None], MASKED, scores_BxHxTxT)
    return jnp.einsum("bhqs,bhsk->bhqk", jax.nn.softmax(scores_BxHxTxT, -1), value_BxHxTxK)


def pairs(length: int, radius: int) -> int:
    """Pairs of tokens of a document that see each other; radius 0 for all."""
    reach = min(radius or length, length - 1)
    return length * (2 * reach + 1) - reach * (reach + 1)


def main(argv: Sequence[str]) -> None:
    """Prints time and memory of each way at each length, and the distance from the floor."""
    parser = entry.Parser(prog="jaxcoder bench attention", description=__doc__)
    lengths = (512, 1024, 2048, 4096, 8192)
    parser.add_argument("--tokens", type=int, nargs="+", default=lengths, help="T")
    parser.add_argument("--batch", type=int, default=1, help="B")
    parser.add_argument("--heads", type=int, default=4, help="H")
    parser.add_argument("--head_width", type=int, default=64, help="K")
    parser.add_argument("--radius", type=int, default=64, help="of local layers")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each way")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args(argv)
    dtype, layout = (
        jnp.dtype(options.dtype),
        Layout.on(sharding.make_mesh(devices=jax.devices()[:1])),
    )
    ways: dict[str, Callable[..., jax.Array]] = {"naive": naive}
    for name in IMPLEMENTATIONS[1:]:
        try:
            choose(name, layout, options.dtype, options.head_width, 0.0, packed=False)
        except ValueError as error:
            print(f"not here: {error}")
        else:
            ways[name] = functools.partial(_of_documents, implementation=name, layout=layout)
    product = jax.jit(jnp.matmul)
    square = jnp.ones((_SIDE, _SIDE), dtype)
    seconds, _ = _alternate({"product": functools.partial(product, square, square)}, 5)
    speed = 2 * _SIDE**3 / seconds["product"]
    print(
        f"{jax.devices()[0].device_kind}, {dtype}: B={options.batch} H={options.heads} "
        f"K={options.head_width}, radius {options.radius}; a product runs at "
        f"{speed / 1e9:.0f} GFLOP/s"
    )
    print(
        f"{'tokens':>6}  {'layer':<7}{'way':<8}{'peak MiB':>9}{'ms':>9}{'floor MiB':>11}"
        f"{'floor ms':>10}{'ms/floor':>10}"
    )
    apart = 0.0
    for length in options.tokens:
        shape = (options.batch, options.heads, length, options.head_width)
        keys = jax.random.split(jax.random.key(0), 3)
        query, key, value = (jax.random.normal(each, shape, dtype) for each in keys)
        parts = (query * options.head_width**-0.5, key, value)
        for layer, sight in (("full", Sight()), ("local", Sight(radius=options.radius))):
            steps = {
                name: _step(functools.partial(way, sight=sight), parts)
                for name, way in ways.items()
                if (layer, name) != ("local", "cudnn")  # it has none: `attention` takes xla there
            }
            runs = {name: functools.partial(step, *parts) for name, step in steps.items()}
            seconds, results = _alternate(runs, options.repeats)
            seen = options.batch * options.heads * pairs(length, sight.radius)
            floor = 2 * _PRODUCTS * options.head_width * seen / speed
            moved = 8 * value.nbytes / _MIB
            for name, step in steps.items():
                print(
                    f"{length:>6}  {layer:<7}{name:<8}{_peak(step):>9.0f}"
                    f"{seconds[name] * 1e3:>9.1f}{moved:>11.1f}{floor * 1e3:>10.1f}"
                    f"{seconds[name] / floor:>10.1f}"
                )
            losses = [float(loss) for loss, _ in results.values()]
            apart = max(apart, max(losses) / min(losses) - 1)
    print(f"losses differ by at most {apart:.0e}")


def _of_documents(
    query_BxHxTxK: jax.Array,
    key_BxHxTxK: jax.Array,
    value_BxHxTxK: jax.Array,
    sight: Sight,
    implementation: str,
    layout: Layout,
) -> jax.Array:
    batch, _, length, _ = query_BxHxTxK.shape
    real_BxT = jnp.ones((batch, length), bool)
    return attention(
        query_BxHxTxK, key_BxHxTxK, value_BxHxTxK, real_BxT, sight, implementation, layout
    )


def _step(way: Callable[..., jax.Array], parts: tuple[jax.Array, ...]) -> jax.stages.Compiled:
    def loss(*parts: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(way(*parts).astype(jnp.float32)))

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2))).lower(*parts).compile()


def _alternate(
    runs: Mapping[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Smallest seconds and last result of each; the first run of each is a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            results[name] = jax.block_until_ready(run())
            times[name].append(time.perf_counter() - started)
    return {name: min(each[1:]) for name, each in times.items()}, results


def _peak(step: jax.stages.Compiled) -> float:
    memory = step.memory_analysis()
    if memory is None:
        raise UserError(f"{jax.default_backend()}: does not count memory; run on cpu, gpu or tpu")
    return memory.temp_size_in_bytes / _MIB


if __name__ == "__main__":
    entry.run(main)
