"""Conversion of published I3D weights to the parameter names of `keystep.extraction.backbones.i3d.I3D`.

Layouts are recognised by their names:

- the JAX port: ``params|Mixed_3b|Branch_1/Conv3d_0b_3x3|Conv_0|kernel``, kernels (T, H, W, in, out);
- the common PyTorch port: ``Mixed_3b.b1b.conv3d.weight`` and ``Mixed_3b.b1b.bn.running_mean``;
- keystep's own, which is not changed: ``trunk.Mixed_3b.branch_1.1.weight``.

Batch norms (eps 1e-3) are folded into the preceding convolutions, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

EPSILON = 1e-3
STEM = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")
MIXED = tuple(f"Mixed_{place}" for place in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"))
BRANCHES = (
    ("branch_0", "Branch_0/Conv3d_0a_1x1", "b0"),
    ("branch_1.0", "Branch_1/Conv3d_0a_1x1", "b1a"),
    ("branch_1.1", "Branch_1/Conv3d_0b_3x3", "b1b"),
    ("branch_2.0", "Branch_2/Conv3d_0a_1x1", "b2a"),
    ("branch_2.1", "Branch_2/Conv3d_0b_3x3", "b2b"),
    ("branch_3.1", "Branch_3/Conv3d_0b_1x1", "b3b"),
)
UNITS = (
    *((f"trunk.{name}", name, name) for name in STEM),
    *((f"trunk.{mixed}.{own}", f"{mixed}|{jax}", f"{mixed}.{port}") for mixed in MIXED for own, jax, port in BRANCHES),
)
"""Name of each convolution in keystep, the JAX port and the PyTorch port."""


def own_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of any known layout to keystep's names. Unknown names are kept, so `load_strict` refuses them."""
    if any(name.startswith("params|") for name in tensors):
        return _from_jax(tensors)
    if any(name.endswith(".conv3d.weight") for name in tensors):
        return _from_pytorch_port(tensors)
    return tensors


def _from_jax(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    left = dict(tensors)
    own: dict[str, Tensor] = {}
    for name, jax, _ in UNITS:
        kernel = left.get(f"params|{jax}|Conv_0|kernel")
        if kernel is not None and kernel.ndim == 5:
            left[f"params|{jax}|Conv_0|kernel"] = kernel.permute(4, 3, 0, 1, 2)
        norm = [f"{kind}|{jax}|BatchNorm_0|{what}" for kind, what in _JAX_NORM]
        _fold(left, own, name, [f"params|{jax}|Conv_0|kernel", *norm])
    kernel = left.get("params|Logits/Conv3d_0c_1x1|Conv_0|kernel")
    if kernel is not None and kernel.ndim == 5:
        own["logits.weight"] = kernel[0, 0, 0].T.contiguous()
        del left["params|Logits/Conv3d_0c_1x1|Conv_0|kernel"]
    _rename(left, own, "params|Logits/Conv3d_0c_1x1|Conv_0|bias", "logits.bias")
    return own | left


_JAX_NORM = (("batch_stats", "mean"), ("batch_stats", "var"), ("params", "bias"))


def _from_pytorch_port(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # older files lack these counters, and inference does not need them
    left = {name: value for name, value in tensors.items() if not name.endswith(".bn.num_batches_tracked")}
    own: dict[str, Tensor] = {}
    for name, _, port in UNITS:
        norm = [f"{port}.bn.{what}" for what in ("running_mean", "running_var", "bias", "weight")]
        _fold(left, own, name, [f"{port}.conv3d.weight", *norm])
    kernel = left.get("logits.conv3d.weight")
    if kernel is not None and kernel.ndim == 5:
        own["logits.weight"] = kernel[:, :, 0, 0, 0].contiguous()
        del left["logits.conv3d.weight"]
    _rename(left, own, "logits.conv3d.bias", "logits.bias")
    return own | left


def _fold(left: dict[str, Tensor], own: dict[str, Tensor], name: str, sources: Sequence[str]) -> None:
    """Fold a batch norm into its convolution, and move the result from ``left`` to ``own``.

    Does nothing if a tensor is missing or its shape does not fit.

    Args:
        left: the remaining tensors, by their published names.
        own: the converted tensors, by keystep's names.
        name: keystep's name of the layer.
        sources: published names of the kernel (out, in, T, H, W), and of the mean, variance, shift and optionally scale
            of the batch norm, which may have further axes of size one.
    """
    found = [left[source].double() for source in sources if source in left]
    if len(found) < len(sources) or any(vector.numel() != len(found[0]) for vector in found[1:]):
        return
    kernel, mean, variance, shift, *scale = found[0], *(vector.flatten() for vector in found[1:])
    factor = (variance + EPSILON).rsqrt()
    if scale:
        factor = factor * scale[0]
    own[f"{name}.weight"] = (kernel * factor.view(-1, *[1] * (kernel.ndim - 1))).float().contiguous()
    own[f"{name}.bias"] = (shift - mean * factor).float()
    for source in sources:
        del left[source]


def _rename(left: dict[str, Tensor], own: dict[str, Tensor], source: str, name: str) -> None:
    if source in left:
        own[name] = left.pop(source)
