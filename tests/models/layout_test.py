import types

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxcoder import sharding
from jaxcoder.models import layout
from jaxcoder.models.layout import Layout


def device(platform, version="cuda 13", capability="9.0"):
    client = types.SimpleNamespace(platform_version=version)
    return types.SimpleNamespace(platform=platform, client=client, compute_capability=capability)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (device("gpu"), ""),
        (device("tpu"), ""),
        (device("gpu", capability="7.5"), r"compute capability 8.0 or newer (this one has 7.5)"),
        (device("gpu", version="rocm 6"), "it runs on GPUs of NVIDIA"),
    ],
)
def test_which_gpus_have_cudnns_attention(given, reason):
    assert reason in layout._no_cudnn(given)
    assert bool(layout._no_cudnn(given)) == bool(reason)


def test_a_layout_counts_the_devices_of_its_mesh():
    mesh = sharding.make_mesh(2, 2, 2)
    found = Layout.on(mesh, ("data", "fsdp"), ("tensor",), ("tensor",))
    assert (found.platform, found.batch, found.labels) == ("cpu", 4, 2)
    assert Layout.on(Mesh(np.array(jax.devices()[:1]), ("data",))).batch == 1
