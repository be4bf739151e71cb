"""The layout: on what devices a model is computed, and how much of it at a time."""

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import Mesh

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Layout:
    """How attention is cut for the devices it runs on.

    Attributes:
      batch: devices that a mesh splits the rows of a batch over.
      labels: devices that a mesh splits the rows of the label tables over.
      chunk_bytes: of one float32 array [B, chunk, T] of label attention on a device; some five
        exist at a time. A CPU is fastest with what fits its cache: 4 MiB made a step of 1.55 s,
        8 MiB of 1.70 s (L=8,000, T=4,096, D=256, B=2). An accelerator wants chunks of a thousand
        labels, since after each it adds to the gradient of all states.
      store_bytes: that a device may hold of [B, L, T], or of a layer's [B, H, T, T], for the
        backward pass, instead of computing it again.
      platform: `cpu`, `gpu` or `tpu`.
      no_cudnn: why these devices cannot compute cuDNN's attention; empty where they can.
      mesh: the devices, for kernels that XLA cannot split by itself; None for one device.
      batch_axes: mesh axes that split the rows of a batch.
      head_axes: mesh axes that split the attention heads.
    """

    batch: int = 1
    labels: int = 1
    chunk_bytes: int = 4 * MIB
    store_bytes: int = 256 * MIB
    platform: str = "cpu"
    no_cudnn: str = ""
    mesh: Mesh | None = None
    batch_axes: tuple[str, ...] = ()
    head_axes: tuple[str, ...] = ()

    @classmethod
    def of(cls, platform: str, **where: Any) -> "Layout":
        """Returns the layout for devices of a platform, such as `cpu`, `gpu` or `tpu`.

        Args:
          platform: of the devices.
          where: other attributes.
        """
        if platform == "cpu":
            return cls(platform=platform, **where)
        return cls(platform=platform, chunk_bytes=64 * MIB, store_bytes=512 * MIB, **where)

    @classmethod
    def on(
        cls,
        mesh: Mesh,
        batch_axes: tuple[str, ...] = (),
        head_axes: tuple[str, ...] = (),
        label_axes: tuple[str, ...] = (),
    ) -> "Layout":
        """Returns the layout of a mesh, by the mesh axes that split rows, heads and labels."""
        device = mesh.devices.flat[0]
        return cls.of(
            device.platform,
            no_cudnn=_no_cudnn(device),
            batch=math.prod(mesh.shape[axis] for axis in batch_axes),
            labels=math.prod(mesh.shape[axis] for axis in label_axes),
            mesh=mesh,
            batch_axes=batch_axes,
            head_axes=head_axes,
        )


def _no_cudnn(device: jax.Device) -> str:
    """Why a GPU cannot compute cuDNN's attention: it wants NVIDIA's Ampere or newer."""
    if device.platform != "gpu":
        return ""
    capability = getattr(device, "compute_capability", "")
    if "cuda" not in device.client.platform_version.lower():
        return "it runs on GPUs of NVIDIA"
    if float(capability or 0) < 8:
        return f"it takes GPUs of compute capability 8.0 or newer (this one has {capability})"
    return ""


WHOLE = Layout()
