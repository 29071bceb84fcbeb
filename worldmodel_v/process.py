"""State of the whole process, which is restored after other people's code.

A user's own environments, policies and sources run in our process and may change its state. This would affect the caller, the
next episode and this package. So what they change in an episode is restored after the episode. What importing them changes is
restored after the collection, because a module may rely on what it has set. The state is read and compared once an episode, in
0.1 ms, never at a step. Rejected: a process for each environment, because every frame would have to cross between processes.
"""

import atexit
import contextlib
import ctypes
import decimal
import gc
import locale
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

import numpy as np

from worldmodel_v.interrupts import alarm_restored, handlers_restored

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
EXACT = ("none", "ieee")
"""Of PyTorch's `fp32_precision`: products are computed in float32."""

_SUBNORMAL = np.finfo(np.float32).smallest_subnormal


class _Part(NamedTuple):
    """One part of the process's state; None stands for an unknown value, which is not restored."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


@contextmanager
def process_kept() -> Iterator[None]:
    """After the block, these are as before: working directory, environment variables, umask, Python's standard streams,
    locale, filters of warnings, the root logger, the recursion limit, the functions that trace and profile this thread, the
    interval at which threads take turns, `sys.path`, whether garbage is collected, the context of `decimal`, how NumPy prints
    and handles floating-point errors, handlers of SIGINT, SIGTERM and SIGHUP, SIGALRM and its timer, and PyTorch's threads,
    defaults, gradients and arithmetic."""
    with handlers_restored(), alarm_restored(), decimal.localcontext(), _kept(_PARTS):
        yield


@contextmanager
def directory_kept() -> Iterator[None]:
    """After the block, the working directory and the handlers of signals that end a process are as before; nothing else is."""
    with handlers_restored(), _kept([_DIRECTORY]):
        yield


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Within the block, tensors are float32 on the CPU by default and have gradients, and float32 is computed as such, without
    autocast, whatever the caller's defaults and blocks; loads PyTorch.

    So a network is built, and its optimiser computes, the same in every program.
    """
    import torch

    dtype = torch.get_default_dtype()
    on_cpu = _default_device(torch).type == "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with contextlib.ExitStack() as blocks:
            blocks.enter_context(_exact_products(torch))
            blocks.enter_context(torch.inference_mode(mode=False))
            blocks.enter_context(torch.enable_grad())
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    blocks.enter_context(torch.autocast(device, enabled=False))
            if not on_cpu:
                blocks.enter_context(torch.device("cpu"))
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def _exact_products(torch: Any) -> Iterator[None]:
    """Within the block, products of float32 are computed in float32, where the caller has asked for less, for all backends or
    for one."""
    precision = _matmul_precision(torch)
    products: list[Any] = [getattr(getattr(torch.backends, name), "matmul", None) for name in ("cuda", "mkldnn")]
    lowered = [each for each in products if precision is None and getattr(each, "fp32_precision", "none") not in EXACT]
    asked = [each.fp32_precision for each in lowered]
    if precision not in (None, "highest"):
        torch.set_float32_matmul_precision("highest")
    for each in lowered:
        each.fp32_precision = "ieee"
    try:
        yield
    finally:
        if precision not in (None, "highest"):
            torch.set_float32_matmul_precision(precision)
        for each, before in zip(lowered, asked, strict=True):
            each.fp32_precision = before


@contextmanager
def output_to_stderr() -> Iterator[None]:
    """Within the block, what Python, native code and child processes print to standard output goes to standard error.

    So standard output holds only results. The descriptor is redirected, because native code does not use `sys.stdout`.
    """
    streams = [stream for stream in (sys.stdout, sys.__stdout__) if stream is not None]
    with contextlib.redirect_stdout(sys.stderr), _descriptor_kept(STANDARD_OUTPUT) as ours:
        _lead_output_to(STANDARD_ERROR, streams)
        try:
            yield
        finally:
            if ours is not None:
                _lead_output_to(ours, streams)


def output_to_stderr_at_exit() -> None:
    """From now on, what is printed to standard output while the process ends goes to standard error."""
    streams = [stream for stream in (sys.stdout, sys.__stdout__) if stream is not None]
    atexit.register(_lead_output_to, STANDARD_ERROR, streams)


@contextmanager
def _descriptor_kept(number: int) -> Iterator[int | None]:
    """Yields another descriptor for the same file, for the duration of the block; None if `number` is not open."""
    try:
        copy = os.dup(number)
    except OSError:
        yield None
        return
    try:
        yield copy
    finally:
        os.close(copy)


def _lead_output_to(descriptor: int, streams: Sequence[TextIO]) -> None:
    """Make descriptor 1 a copy of `descriptor`; what Python's streams and C have buffered still goes to the old one."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # its reader is gone, or it is closed
            stream.flush()
    ctypes.CDLL(None).fflush(None)
    with contextlib.suppress(OSError):  # there is no standard error
        os.dup2(descriptor, STANDARD_OUTPUT)


@contextmanager
def _kept(parts: Sequence[_Part]) -> Iterator[None]:
    before = [(part, part.read()) for part in parts]
    try:
        yield
    finally:
        for part, value in before:
            if value is not None and part.read() != value:
                part.write(value)


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  (a path takes ten times as long)
    except OSError:  # it has been deleted
        return None


def _enter(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.chdir(directory)


def _environment() -> dict[bytes, bytes]:
    """A copy of what is behind `os.environ` and `os.environb`: copying one of these takes 1 µs for each variable."""
    return os.environ._data.copy()  # type: ignore[attr-defined]


def _set_environment(variables: dict[bytes, bytes]) -> None:
    for name in os.environb.keys() - variables.keys():
        del os.environb[name]
    os.environb.update(variables)


def _umask() -> int:
    """It can only be read by setting it, for a moment here to one that lets nobody else in."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _streams() -> tuple[Any, Any, Any]:
    return sys.stdin, sys.stdout, sys.stderr


def _set_streams(streams: tuple[Any, Any, Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _set_filters(filters: list[Any]) -> None:
    warnings.filters = filters


def _set_path(path: list[str]) -> None:
    sys.path[:] = path


def _root_logger() -> tuple[list[logging.Handler], int, int]:
    root = logging.getLogger()
    return [*root.handlers], root.level, root.manager.disable


def _set_root_logger(state: tuple[list[logging.Handler], int, int]) -> None:
    root = logging.getLogger()
    root.handlers[:], level, disabled = state
    root.setLevel(level)
    logging.disable(disabled)


def _tracers() -> tuple[Any, Any]:
    """Those of this thread, such as a debugger's."""
    return sys.gettrace(), sys.getprofile()


def _set_tracers(tracers: tuple[Any, Any]) -> None:
    trace, profile = tracers
    sys.settrace(trace)
    sys.setprofile(profile)


class _TorchState(NamedTuple):
    num_threads: int
    dtype: Any
    device: Any
    gradients: bool
    matmul_precision: str | None
    deterministic: int
    flushes_denormals: bool


def _torch_state() -> _TorchState | None:
    """PyTorch's part; None if PyTorch is not loaded, and this does not load it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return _TorchState(
        num_threads=torch.get_num_threads(),
        dtype=torch.get_default_dtype(),
        device=_default_device(torch),
        gradients=torch.is_grad_enabled(),
        matmul_precision=_matmul_precision(torch),
        deterministic=torch.get_deterministic_debug_mode(),
        flushes_denormals=bool(_SUBNORMAL * _SUBNORMAL.dtype.type(1) == 0),
    )


def _default_device(torch: Any) -> Any:
    """Where tensors are made. PyTorch 2.6's own `get_default_device` fails once the default has been set to None."""
    return torch.empty(0).device


def _matmul_precision(torch: Any) -> str | None:
    """None where it was set for one backend: then PyTorch does not tell it."""
    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:
        return None


def _set_torch_state(state: _TorchState) -> None:
    torch = sys.modules["torch"]
    torch.set_num_threads(state.num_threads)
    torch.set_default_dtype(state.dtype)
    if _default_device(torch) != state.device:  # not allowed within a block of a device, even to the same one
        torch.set_default_device(None if state.device.type == "cpu" else state.device)
    torch.set_grad_enabled(state.gradients)
    if state.matmul_precision not in (None, _matmul_precision(torch)):
        torch.set_float32_matmul_precision(state.matmul_precision)
    torch.set_deterministic_debug_mode(state.deterministic)
    torch.set_flush_denormal(state.flushes_denormals)


_DIRECTORY = _Part(_directory, _enter)
_PARTS = [
    _DIRECTORY,
    _Part(_environment, _set_environment),
    _Part(_umask, os.umask),
    _Part(_streams, _set_streams),
    _Part(lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    _Part(lambda: list(warnings.filters), _set_filters),
    _Part(_root_logger, _set_root_logger),
    _Part(sys.getrecursionlimit, sys.setrecursionlimit),
    _Part(_tracers, _set_tracers),
    _Part(sys.getswitchinterval, sys.setswitchinterval),
    _Part(lambda: list(sys.path), _set_path),
    _Part(gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
    _Part(np.get_printoptions, lambda options: np.set_printoptions(**options)),
    _Part(np.geterr, lambda flags: np.seterr(**flags)),
    _Part(_torch_state, _set_torch_state),
]
