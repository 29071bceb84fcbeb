"""TorchScript, torch.export and ONNX: how an encoder or decoder is written in each, and how the file is run to check it.

- torchscript: traced and frozen, for C++ (libtorch) and for old PyTorch. PyTorch has deprecated it and warns whenever a
  program loads such a file, but can still load it everywhere.
- torch.export: its successor (`.pt2`), a graph of ATen operators with the weights, for PyTorch and its compilers.
- onnx: for ONNX Runtime and all other software that reads ONNX, in any language. It is written by the exporter that is based
  on torch.export, which needs onnxscript; the older one needs less and is deprecated.

All take any number of rows. An ONNX file contains no code, but a `.pt` or `.pt2` can: load only those of people you trust.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from worldmodel_v.export.modules import Part
from worldmodel_v.export.packages import optional

FormatName = Literal["torchscript", "torch.export", "onnx", "int8"]

SUFFIXES: dict[FormatName, str] = {"torchscript": ".pt", "torch.export": ".pt2", "onnx": ".onnx", "int8": ".int8.onnx"}

PACKAGES: dict[FormatName, tuple[str, ...]] = {
    **{"torchscript": (), "torch.export": ()},
    **{"onnx": ("onnx", "onnxscript", "onnxruntime"), "int8": ("onnx", "onnxscript", "onnxruntime")},
}
"""The packages that a format needs, in addition to this package's own requirements, to be written and checked."""

Arrays = tuple[np.ndarray, ...]
Runner = Callable[..., Arrays]
"""Takes the inputs as arrays, in order, and gives the outputs."""


def require_packages(formats: tuple[FormatName, ...]) -> None:
    """Raise PackageMissing, with the command that installs it, if a package that the formats need cannot be imported."""
    for name in formats:
        for package in PACKAGES[name]:
            optional(package, instead="leave out onnx and int8", field="formats", got=name)


def write_torchscript(part: Part, file: Path) -> None:
    """Trace on the examples, freeze, save. Tracing is safe because the Python code branches on settings, never on frames."""
    with _quiet(), torch.no_grad():
        traced = torch.jit.trace(part.module, tuple(part.inputs.values()), check_trace=False)
        torch.jit.freeze(traced).save(str(file))


def run_torchscript(file: Path) -> Runner:
    """What a TorchScript file computes."""
    with _quiet():
        module = torch.jit.load(str(file))
    return _on_arrays(module)


def write_torch_export(part: Part, file: Path) -> None:
    """Export with any number of rows, save."""
    with _quiet():
        torch.export.save(torch.export.export(part.module, tuple(part.inputs.values()), dynamic_shapes=_any_rows(part)), file)


def run_torch_export(file: Path) -> Runner:
    """What a `.pt2` file computes."""
    with _quiet():
        return _on_arrays(torch.export.load(file).module())


def write_onnx(part: Part, file: Path) -> None:
    """Export with any number of rows, inputs and outputs named as in `part`; the file contains the weights."""
    with _quiet():
        program = torch.onnx.export(
            part.module,
            tuple(part.inputs.values()),
            dynamo=True,
            dynamic_shapes=_any_rows(part),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            verbose=False,
        )
        assert program is not None
        program.save(str(file))


def run_onnx(file: Path) -> Runner:
    """What an ONNX file, `.onnx` or `.int8.onnx`, computes in onnxruntime on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *arrays: tuple(session.run(None, dict(zip(names, arrays, strict=True))))


def _on_arrays(module: Callable[..., Any]) -> Runner:
    def run(*arrays: np.ndarray) -> Arrays:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(array) for array in arrays))
        return tuple(output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))

    return run


def _any_rows(part: Part) -> tuple[dict[int, Any], ...]:
    rows = torch.export.Dim("batch", min=1)
    return tuple({0: rows} for _ in part.inputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, hide deprecation warnings and messages of exporters about their internals: users need not see them."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
