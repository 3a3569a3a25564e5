"""Writing, quantising and running ONNX files. Only this module uses onnx and onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keystep.errors import InputError

OPSET = 20
LARGEST = 2**31 - 2**24
"""Maximum size of the weights in an ONNX file in bytes, leaving space for the graph."""
NEXT = "next_"
"""Prefix of the names of output state tensors."""


def need_packages() -> None:
    """Check that the packages for ONNX export are installed.

    Raises:
        InputError: with the install command.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX export needs {', '.join(missing)}: pip install 'keystep[export]'")


def write(program: torch.export.ExportedProgram, path: Path, outputs: Sequence[str], state: Sequence[str] = ()) -> None:
    """Write graph and weights to one file.

    Args:
        program: the exported program.
        path: of the file.
        outputs: names of the outputs, which are followed by the new ``state``.
        state: names of the state inputs, which follow the features.

    Raises:
        InputError: weights larger than 2 GiB.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > LARGEST:
        raise InputError(f"{size / 2**30:.1f} GiB of weights exceed the limit of ONNX files (2 GiB); use --torch")
    with _quiet():
        torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=["features", *state],
            output_names=[*outputs, *(NEXT + name for name in state)],
            verbose=False,
        ).save(path, external_data=False)  # type: ignore[union-attr]


def write_int8(source: Path, target: Path) -> None:
    """Quantise the weights of linear layers to int8, with dynamic quantisation of their inputs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"MatMulConstBOnly": True},  # do not quantise keys and values
        )


class OnnxStep:
    """An ONNX file as a function of torch tensors, on a single thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        """(features, *state) -> (*outputs, *state)."""
        arrays = [tensor.numpy() for tensor in tensors]
        return [torch.from_numpy(x) for x in self.session.run(None, dict(zip(self.inputs, arrays, strict=True)))]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings of the exporters that users cannot act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    disabled = logging.root.manager.disable
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        logging.disable(logging.WARNING)  # quantize_dynamic warns through the root logger
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
