import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas
from jax.sharding import PartitionSpec

from jaxcoder import sharding, steps
from jaxcoder.losses import LossOptions
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.optim import OptimOptions
from launch import flops
from launch.flops import Flops

X, W = jnp.zeros((6, 4)), jnp.zeros((4, 5))
ONE = 2 * 6 * 4 * 5


def counted(function, *arguments):
    return flops.count(jax.jit(function).trace(*arguments).jaxpr)


def test_products_loops_and_branches():
    assert counted(lambda x, w: x @ w + 1, X, W) == Flops(ONE, 0)
    batched = jnp.zeros((3, 6, 4)), jnp.zeros((3, 4, 5))
    assert counted(functools.partial(jnp.einsum, "bij,bjk->bik"), *batched) == Flops(3 * ONE, 0)

    def loop(x, w):
        return jax.lax.scan(lambda carry, _: (carry + jnp.sum(x @ w), None), 0.0, None, length=7)

    assert counted(loop, X, W) == Flops(7 * ONE, 0)
    assert counted(jax.grad(lambda x, w: loop(x, w)[0]), X, W).products >= 7 * ONE

    def branch(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w.T @ w, lambda: x @ w)

    assert counted(branch, X, W) == Flops(ONE + 2 * 6 * 5 * 4 + ONE, 0)


def test_a_product_in_a_loop_without_end_is_refused():
    def endless(x, w):
        return jax.lax.while_loop(lambda y: jnp.sum(y) > 0, lambda y: y @ w @ w.T, x)

    with pytest.raises(ValueError, match="product in a while loop: expected loops of known length"):
        counted(endless, X, W)


def test_a_device_s_part_counts_for_all_devices():
    mesh = sharding.make_mesh(2, 2, 2)
    split = jax.shard_map(
        lambda x: x @ W,
        mesh=mesh,
        in_specs=PartitionSpec(("data", "fsdp", "tensor")),
        out_specs=PartitionSpec(("data", "fsdp", "tensor")),
    )
    assert counted(split, jnp.zeros((48, 4))) == Flops(8 * ONE, 0)


def test_a_kernel_counts_for_each_step_of_its_grid():
    def kernel(x, w, out):
        out[...] = x[...] @ w[...]

    call = pallas.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((18, 5), jnp.float32),
        grid=(3,),
        in_specs=[
            pallas.BlockSpec((6, 4), lambda i: (i, 0)),
            pallas.BlockSpec((4, 5), lambda i: (0, 0)),
        ],
        out_specs=pallas.BlockSpec((6, 5), lambda i: (i, 0)),
        interpret=True,
    )
    assert counted(call, jnp.zeros((18, 4)), W) == Flops(0, 3 * ONE)
    assert counted(jax.vmap(call, (0, None)), jnp.zeros((2, 18, 4)), W) == Flops(0, 6 * ONE)


@pytest.mark.parametrize("attention", ["xla", "splash"])
def test_a_step_of_the_coder_as_by_its_formulas(attention, monkeypatch):
    rows, length, window, layers, width, inner, labels = 2, 256, 128, 6, 32, 64, 24
    if attention == "splash":  # interpreted here
        monkeypatch.setattr(EncoderOptions, "attends", lambda *_, **__: ("splash", "for the test"))
    encoder = EncoderOptions(
        vocab_size=40,
        width=width,
        layers=layers,
        heads=2,
        feedforward=inner,
        window=window,
        dropout=0.0,
    )
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    model = CoderOptions(encoder, HeadOptions(num_labels=labels))
    its = steps.make_steps(mesh, model, LossOptions(), OptimOptions())
    batch = {
        "tokens": np.zeros((rows, length), np.int32),
        "length": np.ones(rows, np.int32),
        "labels": np.zeros((rows, 2), np.int32),
        "_mask": np.ones(rows, bool),
    }
    forward = flops.count(its.evaluate.trace(its.state_shapes.params, batch).jaxpr)
    step = flops.count(its.train.trace(its.state_shapes, batch).jaxpr)
    tokens = rows * length
    attended = layers * tokens * 4 * window * width
    products = layers * tokens * (8 * width**2 + 4 * width * inner)
    products += tokens * (2 * width**2 + 4 * labels * width)
    over_rows = 2 * rows * width * (length + labels)  # `layers.spread`: products on CPUs
    if attention == "xla":
        assert forward == Flops(products + attended, 0)
        assert step == Flops(3 * (products + attended) + over_rows, 0)
    else:  # two products forwards; backwards three for queries and four for keys and values
        assert forward == Flops(products, attended)
        along = layers * tokens * 2 * width  # of each query's result with its gradient
        assert step == Flops(3 * products + along + over_rows, attended * 9 // 2)
