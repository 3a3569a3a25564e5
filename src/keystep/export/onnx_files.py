"""ONNX files: written, made smaller, and run. The only place that knows onnx and onnxruntime."""

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
"""Bytes of weights that fit into one ONNX file, with room for the graph."""
NEXT = "next_"
"""What stands before the name of a state tensor that comes out."""


def need_packages() -> None:
    """Say in one line what to install where something is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"an ONNX file needs {', '.join(missing)}: pip install 'keystep[export]'")


def write(program: torch.export.ExportedProgram, path: Path, outputs: Sequence[str], state: Sequence[str] = ()) -> None:
    """One file with graph and weights.

    Args:
        outputs: their names; those of the new ``state`` come behind them, as ``state`` comes behind the features.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > LARGEST:
        raise InputError(f"{size / 2**30:.1f} GiB of weights do not fit into one ONNX file (2 GiB); use --torch")
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
    """The same graph with int8 weights in its linear maps, whose inputs are rounded as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"MatMulConstBOnly": True},  # keys and values stay as they are
        )


class OnnxStep:
    """An ONNX file as a function of torch tensors, on one thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        """Features and state in, outputs and state out."""
        arrays = [tensor.numpy() for tensor in tensors]
        return [torch.from_numpy(x) for x in self.session.run(None, dict(zip(self.inputs, arrays, strict=True)))]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' advice, none of which a user can follow."""
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
