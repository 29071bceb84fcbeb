"""Choosing a device, compiling for it, counting cores, and limiting the threads of operators and of matrix products."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from worldmodel_v.errors import ConfigError, first_line, one_line

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Computation = Callable[..., Any]

SIGNS_OF_TOO_LITTLE_MEMORY = ("out of memory", "can't allocate memory", "size calculation overflowed")
"""Parts of a RuntimeError's text: torch.OutOfMemoryError is one, and the CPU allocator's error has no class of its own."""


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(name: str) -> torch.device:
    """The torch device of a name; "auto" is CUDA if available, else the CPU. Raises ConfigError if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"{device.type} is neither cpu nor cuda")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"cannot be used: {first_line(error)}", field="device", got=name, remedy="try auto or cpu") from None
    return device


def compiled(computation: Computation, device: torch.device) -> Computation:
    """`computation`, compiled at its first call; raises ConfigError where PyTorch cannot compile for the device."""
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.zeros(64, device=device))
    except Exception as error:  # each backend has exceptions of its own
        raise ConfigError(
            f"PyTorch cannot compile for {device} here ({one_line(error)})",
            field="compile",
            got=True,
            remedy="install a C++ compiler (CUDA: Triton), or leave it out",
        ) from None
    return torch.compile(computation)


@contextmanager
def batch_in_memory(size: int, device: torch.device) -> Iterator[None]:
    """Raise ConfigError if the block's work on a batch needs more memory than there is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in SIGNS_OF_TOO_LITTLE_MEMORY):
            raise
        raise ConfigError(f"does not fit in the memory of {device}", field="batch_size", got=size, remedy="lower it") from None


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Within the block, PyTorch splits the operators of this thread among so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)  # what other threads set for themselves in the block holds for later threads too


def blas_in_one_thread() -> AbstractContextManager:
    """Within the block, NumPy's and SciPy's matrix products stay in the thread that calls them, if SciPy is installed."""
    controller = _blas()
    return nullcontext() if controller is None else controller.limit(limits=1, user_api="blas")


@cache
def _blas() -> "ThreadpoolController | None":
    try:
        import scipy.linalg  # noqa: F401  (numba takes its products from there)
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
