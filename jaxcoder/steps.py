"""One step of training: a pure function, and the same jitted on a mesh, with evaluation."""

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
from jaxcoder.errors import UserError
from jaxcoder.models import coder
from jaxcoder.models.layout import Layout
from jaxcoder.objectives import Batch, Coding, Metrics, Objective


@struct.dataclass
class TrainState:
    """All that training needs to go on, beside the options and the data's position.

    Attributes:
      step: int32, train steps done.
      key: uint32 [2], of the run's dropout and masks; a step's key is folded from it and the step.
      params: the model's parameters, float32.
      opt_state: the optimiser's.
      ema: sum of decayed parameters, float32, or None where `OptimOptions.ema` is 0.
    """

    step: Any
    key: Any
    params: Any
    opt_state: Any
    ema: Any


def init_state(
    objective: Objective, optim_options: optim.OptimOptions, seed: int | jax.Array
) -> TrainState:
    """Makes the state before the first step from a seed."""
    init_key, dropout_key = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    params = objective.init(init_key)
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


def to_items(state: TrainState, name: str, params: Any) -> dict[str, Any]:
    """The items of a checkpoint: the model that evaluation has, and the rest of the state.

    Where evaluation has a moving average, training's own parameters belong to the rest.

    Args:
      state: of training.
      name: of the item that holds the model, such as `coder`.
      params: as from `evaluation_params`.
    """
    rest = {"step": state.step, "key": state.key, "opt_state": state.opt_state, "ema": state.ema}
    training = rest if state.ema is None else rest | {"params": state.params}
    return {name: params, "training": training}


def from_items(items: Mapping[str, Any], name: str) -> TrainState:
    """The inverse of `to_items`."""
    return TrainState(**{"params": items[name], **items["training"]})


def train_step(
    state: TrainState, batch: Batch, *, objective: Objective, optimiser: optim.OptimOptions
) -> tuple[TrainState, Metrics]:
    """Takes one step of training.

    Args:
      state: before the step.
      batch: what the objective's `loss` wants.
      objective: the model and its loss.
      optimiser: the optimiser.

    Returns:
      The state after the step, and float32 scalars: those of the objective's `loss`, `grad_norm`
      (before clipping) and `learning_rate`.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl="threefry2x32"), state.step)

    def loss(params: Any) -> tuple[jax.Array, Metrics]:
        return objective.loss(params, batch, key)

    gradients, metrics = jax.grad(loss, has_aux=True)(optim.narrowed(optimiser, state.params))
    gradients = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradients)
    updates, opt_state = optim.make_optimiser(optimiser).update(
        gradients, state.opt_state, state.params
    )
    params = objective.keep_frozen(state.params, optax.apply_updates(state.params, updates))
    ema = state.ema
    if optimiser.ema:
        ema = jax.tree.map(
            lambda mean, now: optimiser.ema * mean + (1 - optimiser.ema) * now, state.ema, params
        )
    metrics |= {
        "grad_norm": optim.global_norm(gradients),
        "learning_rate": optim.learning_rate(optimiser, state.step),
    }
    state = dataclasses.replace(
        state, step=state.step + 1, params=params, opt_state=opt_state, ema=ema
    )
    return state, metrics


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of one objective on one mesh, jitted.

    Attributes:
      init: seed → state, made where it will live.
      train: (state, batch) → (state, metrics); the given state's memory is reused.
      evaluate: (params, batch) → results of the objective's `evaluate`, rows split like the
        batch's.
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
    objective: Objective, optim_options: optim.OptimOptions, shapes: TrainState
) -> TrainState:
    """Returns the state's tree with logical axes: moments and averages lie as their parameters."""
    params = objective.logical_axes()
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
    """Jits the steps of a coder with the shardings of a mesh; see `jit_steps`."""
    return jit_steps(mesh, Coding(model, loss), optim_options, rules)


def jit_steps(
    mesh: Mesh,
    objective: Objective,
    optim_options: optim.OptimOptions,
    rules: sharding.ShardingRules = sharding.DEFAULT_RULES,
) -> Steps:
    """Jits the steps with the shardings of a mesh.

    Args:
      mesh: from `sharding.make_mesh`.
      objective: the model and its loss.
      optim_options: the optimiser.
      rules: what is split over which mesh axes.

    Raises:
      UserError: attention that the devices cannot compute.
      ValueError: an axis of the parameters that the mesh does not divide.
    """
    layout = Layout.on(mesh, rules.batch, rules.heads, rules.labels)
    try:
        objective, attention = objective.on(layout)
    except ValueError as error:
        raise UserError(f"config.model.encoder.{error}") from None
    init = functools.partial(init_state, objective, optim_options)
    shapes = jax.eval_shape(init, 0)
    logical = state_logical_axes(objective, optim_options, shapes)
    placed = sharding.tree_shardings(mesh, rules, shapes, logical)
    rows = sharding.batch_sharding(mesh, rules)
    whole = NamedSharding(mesh, PartitionSpec())
    train = functools.partial(train_step, objective=objective, optimiser=optim_options)
    return Steps(
        init=jax.jit(init, out_shardings=placed),
        train=jax.jit(
            train,
            in_shardings=(placed, rows),
            out_shardings=(placed, whole),
            donate_argnums=0,
        ),
        evaluate=jax.jit(
            objective.evaluate, in_shardings=(placed.params, rows), out_shardings=rows
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
