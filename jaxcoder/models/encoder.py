"""The encoder: tokens of documents in, one state a token out, behind pure `init` and `apply`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcoder.models.attention import Sight
from jaxcoder.models.encoder_options import DTYPES, FAMILIES, EncoderOptions
from jaxcoder.models.encoder_parts import Convolution, Embedding, Layer, norm
from jaxcoder.models.layers import named_axes
from jaxcoder.models.layout import WHOLE, Layout
from jaxcoder.models.self_attention import rotary_tables

__all__ = [
    "DTYPES",
    "FAMILIES",
    "Encoder",
    "EncoderOptions",
    "apply",
    "init",
    "keep_frozen",
    "logical_axes",
]

Params = dict[str, Any]


class Encoder(nn.Module):
    """Embedding, convolution where there is one, and the layers; see `apply`."""

    options: EncoderOptions
    layout: Layout = WHOLE

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array, segments_BxT: jax.Array) -> jax.Array:
        """Returns states [B, T, D] in the compute dtype; those of padding mean nothing."""
        options = self.options
        position_BxT = _positions(segments_BxT)
        x_BxTxD = Embedding(options, self.layout, name="embedding")(tokens_BxT, position_BxT)
        if options.convolution:
            x_BxTxD = Convolution(options, name="convolution")(x_BxTxD, segments_BxT)
        if options.frozen >= 0:
            x_BxTxD = jax.lax.stop_gradient(x_BxTxD)
        if options.layers:
            x_BxTxD = self._layers(x_BxTxD, segments_BxT, position_BxT)
        if options.family == "modernbert":
            x_BxTxD = norm(options, "final_norm")(x_BxTxD)
        return x_BxTxD

    def _layers(
        self, x_BxTxD: jax.Array, segments_BxT: jax.Array, position_BxT: jax.Array
    ) -> jax.Array:
        """The layers, whose parameters lie stacked: their first axis is that of the layers.

        Layers repeat with a period, that of the global ones. Whole periods run as a loop, of which
        XLA compiles one pass; what stands before and after them runs layer by layer.
        """
        options, kinds = self.options, self.options.kinds
        number, period = options.layers, len(kinds)
        packed = segments_BxT.dtype != jnp.bool_
        implementation, _ = options.attends(
            self.layout, packed=packed, dropping=self.has_rng("dropout")
        )
        layers = [
            Layer(options, sight, implementation, self.layout, parent=None) for sight, _ in kinds
        ]
        head_width = options.width // options.heads
        rotary = [
            rotary_tables(position_BxT, head_width, theta) if theta else None for _, theta in kinds
        ]
        params = self.param("layers", lambda key: _init_layers(options, key))
        drops = (options.dropout or options.attention_rate) and self.has_rng("dropout")
        keys = jax.random.split(self.make_rng("dropout"), number) if drops else None

        def run(x: jax.Array, part: Any, place: int, first: jax.Array | bool) -> jax.Array:
            params, key = part
            rngs = None if key is None else {"dropout": key}
            variables = {"params": params}
            y: jax.Array = layers[place].apply(  # type: ignore[assignment]
                variables, x, segments_BxT, rotary[place], first, rngs=rngs
            )
            return y

        if options.remat:
            run = jax.checkpoint(run, prevent_cse=False, static_argnums=2)

        def span(x: jax.Array, stacked: Any, start: int, stop: int) -> jax.Array:
            """Runs the layers from `start` to `stop`, whose parameters and keys are given."""
            head = min(stop, -(-start // period) * period)
            tail = head + (stop - head) // period * period

            def alone(x: jax.Array, indices: range) -> jax.Array:
                for index in indices:
                    x = run(x, _at(stacked, index - start), index % period, index == 0)
                return x

            def whole(x: jax.Array, group: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
                part, index = group
                for place in range(period):
                    x = run(x, _at(part, place), place, (index == 0) & (place == 0))
                return x, None

            x = alone(x, range(start, head))
            if tail > head:
                groups = jax.tree.map(
                    lambda leaf: leaf[head - start : tail - start].reshape(
                        -1, period, *leaf.shape[1:]
                    ),
                    stacked,
                )
                indices = jnp.arange(head // period, tail // period)
                unroll = options.unroll or (len(indices) if tail - head <= 4 else 1)
                x, _ = jax.lax.scan(whole, x, (groups, indices), unroll=unroll)
            return alone(x, range(tail, stop))

        frozen = max(options.frozen, 0)
        if frozen:
            bottom = jax.tree.map(lambda leaf: leaf[:frozen], (jax.lax.stop_gradient(params), keys))
            x_BxTxD = span(x_BxTxD, bottom, 0, frozen)
        top = jax.tree.map(lambda leaf: leaf[frozen:], (params, keys))
        return span(x_BxTxD, top, frozen, number)


def _init_layers(options: EncoderOptions, key: jax.Array) -> Any:
    """Parameters of all layers, stacked, with their logical axes."""
    layer = Layer(options, Sight(), "xla", WHOLE, parent=None)
    x_1x1xD = jnp.zeros((1, 1, options.width), DTYPES[options.dtype])

    def one(key: jax.Array) -> Any:
        return layer.init({"params": key}, x_1x1xD, jnp.ones((1, 1), bool), None, False)["params"]

    def stacked(box: Any) -> Any:
        return box.replace(names=(None, *box.names))

    boxed = jax.vmap(one)(jax.random.split(key, options.layers))
    return jax.tree.map(stacked, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))


def _at(stacked: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def _positions(segments_BxT: jax.Array) -> jax.Array:
    """The position of each token in its document, int32 [B or 1, T]."""
    index_1xT = jnp.arange(segments_BxT.shape[1])[None]
    if segments_BxT.dtype == jnp.bool_:
        return index_1xT
    before_BxT = jnp.pad(segments_BxT[:, :-1], ((0, 0), (1, 0)))
    starts_BxT = jnp.where(segments_BxT != before_BxT, index_1xT, 0)
    return index_1xT - jax.lax.cummax(starts_BxT, axis=1)


def _init(options: EncoderOptions, rng: jax.Array) -> Any:
    one = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    return Encoder(options).init({"params": rng}, *one)["params"]


def init(options: EncoderOptions, rng: jax.Array) -> Params:
    """Makes float32 parameters: a plain nested dict, the group `encoder` of a model."""
    return nn.meta.unbox(_init(options, rng))


def logical_axes(options: EncoderOptions) -> Params:
    """Returns the parameters' tree with a tuple of logical axis names in place of each array."""
    return named_axes(lambda rng: _init(options, rng))


def apply(
    options: EncoderOptions,
    params: Params,
    tokens_BxT: jax.Array,
    segments_BxT: jax.Array,
    *,
    rng: jax.Array | None = None,
    layout: Layout = WHOLE,
) -> jax.Array:
    """Computes the states of documents.

    Args:
      options: the encoder.
      params: as from `init`.
      tokens_BxT: int32, token ids; what stands at padding does not matter.
      segments_BxT: bool, false on padding, where each row is one document; or int32, 0 on padding,
        where rows are packed: tokens with the same number, side by side, are one document. They
        alone see each other, and positions start anew with each. In bert packed rows are at most a
        window long.
      rng: random key of the dropout; None for no dropout.
      layout: how the arrays lie on the devices.

    Returns:
      h [B, T, D], in the options' dtype; what stands at padding means nothing.

    Raises:
      ValueError: packed rows that are longer than bert's window.
    """
    packed = segments_BxT.dtype != jnp.bool_
    if packed and options.family == "bert" and tokens_BxT.shape[1] > options.window:
        raise ValueError(
            f"packed rows of {tokens_BxT.shape[1]} tokens: expected at most window = "
            f"{options.window}"
        )
    rngs = None if rng is None else {"dropout": rng}
    states: jax.Array = Encoder(options, layout).apply(  # type: ignore[assignment]
        {"params": params}, tokens_BxT, segments_BxT, rngs=rngs
    )
    return states


def keep_frozen(options: EncoderOptions, before: Params, after: Params) -> Params:
    """Returns the parameters `after` an update, what is frozen as it was `before`."""
    if options.frozen < 0:
        return after
    kept: Params = {key: before[key] for key in ("embedding", "convolution") if key in before}
    if options.frozen and options.layers:
        kept["layers"] = jax.tree.map(
            lambda old, new: jnp.concatenate([old[: options.frozen], new[options.frozen :]]),
            before["layers"],
            after["layers"],
        )
    return {**after, **kept}
