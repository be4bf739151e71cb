"""One step of training and one of evaluation: pure functions, and the same jitted on a mesh."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcoder import losses, optim, sharding
from jaxcoder.models import coder
from jaxcoder.models.layout import WHOLE, Layout

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


@struct.dataclass
class TrainState:
    """All that training needs to go on, beside the options and the data's position.

    Attributes:
      step: int32, train steps done.
      key: uint32 [2], of the run's dropout; a step's key is folded from it and the step.
      params: the coder's parameters, float32.
      opt_state: the optimiser's.
      ema: sum of decayed parameters, float32, or None where `OptimOptions.ema` is 0.
    """

    step: Any
    key: Any
    params: Any
    opt_state: Any
    ema: Any


def init_state(
    model: coder.CoderOptions, optim_options: optim.OptimOptions, seed: int | jax.Array
) -> TrainState:
    """Makes the state before the first step from a seed."""
    init_key, dropout_key = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    params = coder.init(model, init_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(dropout_key),
        params=params,
        opt_state=optim.make_optimiser(optim_options).init(params),
        ema=jax.tree.map(jnp.zeros_like, params) if optim_options.ema else None,
    )


def evaluation_params(state: TrainState, options: optim.OptimOptions) -> Any:
    """Returns the parameters to evaluate: the bias-corrected moving average where there is one."""
    if not options.ema:
        return state.params
    weight = 1 - jnp.float32(options.ema) ** state.step.astype(jnp.float32)
    return jax.tree.map(
        # Before the first step there is no average yet.
        lambda mean, now: jnp.where(state.step > 0, mean / jnp.maximum(weight, 1e-12), now),
        state.ema,
        state.params,
    )


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: coder.CoderOptions,
    loss: losses.LossOptions,
    optimiser: optim.OptimOptions,
    layout: Layout = WHOLE,
) -> tuple[TrainState, Metrics]:
    """Takes one step of training.

    Args:
      state: before the step.
      batch: `tokens` int32 [B, T], `length` int32 [B], `labels` int32 [B, K], `_mask` bool [B], and
        for evidence losses `evidence` int32 [B, E, 4]; other arrays are ignored.
      model: the coder.
      loss: the loss.
      optimiser: the optimiser.
      layout: how attention is cut for the devices.

    Returns:
      The state after the step, and float32 scalars: those of `losses.coder_loss`, `grad_norm`
      (before clipping), `learning_rate`, `documents` and `tokens` (real ones).
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl="threefry2x32"), state.step)

    def objective(params: Any) -> tuple[jax.Array, Metrics]:
        logits_BxL, log_attention_BxKxT = coder.apply(
            model,
            params,
            batch["tokens"],
            batch["length"],
            focus_BxK=batch["labels"] if loss.needs_attention else None,
            rng=key,
            layout=layout,
        )
        return losses.coder_loss(logits_BxL, log_attention_BxKxT, batch, loss)

    gradients, metrics = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = optim.make_optimiser(optimiser).update(
        gradients, state.opt_state, state.params
    )
    params = coder.keep_frozen(model, state.params, optax.apply_updates(state.params, updates))
    ema = state.ema
    if optimiser.ema:
        ema = jax.tree.map(
            lambda mean, now: optimiser.ema * mean + (1 - optimiser.ema) * now, state.ema, params
        )
    metrics |= {
        "grad_norm": optim.global_norm(gradients),
        "learning_rate": optim.learning_rate(optimiser, state.step),
        "documents": jnp.sum(batch["_mask"], dtype=jnp.float32),
        "tokens": jnp.sum(batch["length"] * batch["_mask"], dtype=jnp.float32),
    }
    state = dataclasses.replace(
        state, step=state.step + 1, params=params, opt_state=opt_state, ema=ema
    )
    return state, metrics


def eval_step(
    params: Any, batch: Batch, *, model: coder.CoderOptions, layout: Layout = WHOLE
) -> dict[str, jax.Array]:
    """Scores a batch.

    Args:
      params: as from `evaluation_params`.
      batch: `tokens`, `length`, `_mask` and, for the loss, `labels`; see `train_step`.
      model: the coder.
      layout: how attention is cut for the devices.

    Returns:
      `logits` float32 [B, L]; and with labels `targets` float32 [B, L] in {0, 1} and `loss` float32
      [B], summed over labels, 0 on padding rows.
    """
    logits_BxL, _ = coder.apply(model, params, batch["tokens"], batch["length"], layout=layout)
    result = {"logits": logits_BxL}
    if "labels" in batch:
        targets_BxL = losses.multi_hot(batch["labels"], logits_BxL.shape[-1])
        loss_B = losses.document_loss(logits_BxL, targets_BxL)
        result |= {"targets": targets_BxL, "loss": jnp.where(batch["_mask"], loss_B, 0.0)}
    return result


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of one model on one mesh, jitted.

    Attributes:
      init: seed → state, made where it will live.
      train: (state, batch) → (state, metrics); the given state's memory is reused.
      evaluate: (params, batch) → results of `eval_step`, rows split like the batch's.
      evaluation_params: state → params for `evaluate`.
      state_shapes: the state as `jax.ShapeDtypeStruct` with shardings, to restore into.
      batch_sharding: of every array of a batch; see `sharding.put_batch`.
      attention: what computes it, and why, for people.
    """

    init: Callable[[int], TrainState]
    train: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    evaluate: Callable[[Any, Batch], dict[str, jax.Array]]
    evaluation_params: Callable[[TrainState], Any]
    state_shapes: TrainState
    batch_sharding: NamedSharding
    attention: str


def state_logical_axes(
    model: coder.CoderOptions, optim_options: optim.OptimOptions, shapes: TrainState
) -> TrainState:
    """Returns the state's tree with logical axes: moments and averages lie as their parameters."""
    params = coder.logical_axes(model)
    transformation = optim.make_optimiser(optim_options)
    opt_state = optax.tree_map_params(
        transformation,
        lambda _, axes: axes,
        shapes.opt_state,
        params,
        transform_non_params=lambda leaf: (None,) * len(leaf.shape),
    )
    return TrainState(
        step=(), key=(None,), params=params, opt_state=opt_state, ema=shapes.ema and params
    )


def make_steps(
    mesh: Mesh,
    model: coder.CoderOptions,
    loss: losses.LossOptions,
    optim_options: optim.OptimOptions,
    rules: sharding.ShardingRules = sharding.DEFAULT_RULES,
) -> Steps:
    """Jits the steps with the shardings of a mesh.

    Args:
      mesh: from `sharding.make_mesh`.
      model: the coder.
      loss: the loss.
      optim_options: the optimiser.
      rules: what is split over which mesh axes.

    Raises:
      ValueError: an axis of the parameters that the mesh does not divide, or attention that its
        devices cannot compute.
    """
    layout = Layout.on(mesh, rules.batch, rules.heads, rules.labels)
    encoder, attention = model.encoder.on(layout.platform)
    model = dataclasses.replace(model, encoder=encoder)
    init = functools.partial(init_state, model, optim_options)
    shapes = jax.eval_shape(init, 0)
    logical = state_logical_axes(model, optim_options, shapes)
    placed = sharding.tree_shardings(mesh, rules, shapes, logical)
    rows = sharding.batch_sharding(mesh, rules)
    whole = NamedSharding(mesh, PartitionSpec())
    train = functools.partial(
        train_step, model=model, loss=loss, optimiser=optim_options, layout=layout
    )
    return Steps(
        init=jax.jit(init, out_shardings=placed),
        train=jax.jit(
            train,
            in_shardings=(placed, rows),
            out_shardings=(placed, whole),
            donate_argnums=0,
        ),
        evaluate=jax.jit(
            functools.partial(eval_step, model=model, layout=layout),
            in_shardings=(placed.params, rows),
            out_shardings=rows,
        ),
        evaluation_params=jax.jit(
            functools.partial(evaluation_params, options=optim_options),
            out_shardings=placed.params,
        ),
        state_shapes=jax.tree.map(
            lambda shape, where: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=where),
            shapes,
            placed,
        ),
        batch_sharding=rows,
        attention=attention,
    )
