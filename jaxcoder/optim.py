"""The optimiser: AdamW, its schedule, and which parameters decay."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("linear", "cosine", "constant")
GRADIENTS = ("float32", "bfloat16")
# Last parts of the paths of parameters that weight decay leaves alone.
_NO_DECAY = ("bias", "scale", "norm_bias", "norm_scale", "position", "token_type")


@dataclasses.dataclass(frozen=True)
class OptimOptions:
    """AdamW and its schedule. Steps are train steps: with accumulation, parts of an update.

    Attributes:
      learning_rate: at the peak, at the end of the warm-up.
      schedule: after the warm-up `linear` or `cosine` to the floor, or `constant`.
      warmup_steps: steps of linear rise from 0.
      total_steps: steps after which the rate stays at the floor.
      floor: last learning rate as a share of the peak, in [0, 1].
      head_multiplier: factor on the learning rate of the group `head`.
      weight_decay: decoupled (Loshchilov and Hutter, arXiv:1711.05101); not on biases, norms and
        position tables.
      clip_norm: the gradient's global norm is cut to it; 0 for no clipping.
      accumulate: steps whose gradients are averaged into one update.
      b1: decay of Adam's first moment.
      b2: decay of Adam's second moment.
      eps: Adam's ε.
      ema: decay a step of the parameters' moving average, which evaluation then uses; 0: none.
      gradients: in what devices sum the gradients of tables and matrices, `float32` or `bfloat16`;
        with the latter these are also gathered, and read by the step, in it. Parameters, moments
        and the sums that a device makes by itself stay float32.
    """

    learning_rate: float = 1e-3
    schedule: str = "linear"
    warmup_steps: int = 0
    total_steps: int = 1000
    floor: float = 0.0
    head_multiplier: float = 1.0
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    accumulate: int = 1
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    ema: float = 0.0
    gradients: str = "float32"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule = {self.schedule!r}: expected {', '.join(SCHEDULES)}")
        if self.gradients not in GRADIENTS:
            raise ValueError(
                f"gradients = {self.gradients!r}: expected one of {', '.join(GRADIENTS)}"
            )
        for name in ("learning_rate", "head_multiplier", "eps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected more than 0")
        for name in ("weight_decay", "clip_norm", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 0")
        for name in ("total_steps", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        if self.warmup_steps > self.total_steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps}: expected at most total_steps = "
                f"{self.total_steps}"
            )
        for name in ("b1", "b2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected [0, 1)")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor = {self.floor}: expected [0, 1]")


def learning_rate(options: OptimOptions, step: jax.Array | int) -> jax.Array:
    """Returns the learning rate of a train step, float32; step counts from 0.

    The first step of a warm-up of n has 1/n of the peak, so that no step is without effect.
    """
    step = jnp.asarray(step, jnp.float32)
    rise = jnp.minimum(1.0, (step + 1) / max(options.warmup_steps, 1))
    span = max(options.total_steps - options.warmup_steps, 1)
    progress = jnp.clip((step - options.warmup_steps) / span, 0.0, 1.0)
    if options.schedule == "linear":
        fall = 1 - progress
    elif options.schedule == "cosine":
        fall = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    else:
        fall = jnp.ones_like(progress)
    return options.learning_rate * rise * (options.floor + (1 - options.floor) * fall)


def global_norm(tree: Any) -> jax.Array:
    """Returns the Euclidean norm of all the numbers of a tree, float32."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def decays(params: Any) -> Any:
    """Returns the parameters' tree with True where weight decay applies."""

    def of_path(path: tuple[Any, ...], _: Any) -> bool:
        return path[-1].key not in _NO_DECAY

    return jax.tree_util.tree_map_with_path(of_path, params)


def narrowed(options: OptimOptions, params: Any) -> Any:
    """Returns the parameters as the step reads them, of which it computes the gradients.

    A gradient has its parameter's type, and is summed over devices as it was computed: cast
    afterwards it would travel as float32. Biases, norms and positions stay as they are.
    """
    if options.gradients == "float32":
        return params
    return jax.tree.map(
        lambda leaf, matrix: leaf.astype(jnp.bfloat16) if matrix else leaf, params, decays(params)
    )


def make_optimiser(options: OptimOptions) -> optax.GradientTransformation:
    """Returns clipping, AdamW, the head's factor and the schedule as one transformation."""

    def in_head(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "head", params)

    parts = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    parts.append(optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=options.eps))
    if options.weight_decay:
        parts.append(optax.add_decayed_weights(options.weight_decay, mask=decays))
    if options.head_multiplier != 1:
        parts.append(optax.masked(optax.scale(options.head_multiplier), in_head))
    parts.append(
        # The count is of updates; the schedule is over train steps.
        optax.scale_by_learning_rate(
            lambda count: learning_rate(options, count * options.accumulate)
        )
    )
    optimiser = optax.chain(*parts)
    if options.accumulate > 1:
        steps = optax.MultiSteps(optimiser, options.accumulate, use_grad_mean=True)
        return steps.gradient_transformation()
    return optimiser
