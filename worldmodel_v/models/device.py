"""Which device to compute on, and compiling for it."""

from collections.abc import Callable
from typing import Any

import torch

from worldmodel_v.errors import ConfigError, one_line

Computation = Callable[..., Any]


def resolve_device(name: str) -> torch.device:
    """The torch device of a name; "auto" is CUDA where there is one. Raises ConfigError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"{device.type} is neither cpu nor cuda")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--device {name!r} cannot be used: {str(error).splitlines()[0]}; try auto or cpu") from None
    return device


def compiled(computation: Computation, device: torch.device) -> Computation:
    """`computation`, compiled at its first call; raises ConfigError where PyTorch cannot compile for the device."""
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.zeros(64, device=device))
    except Exception as error:  # each backend has exceptions of its own
        raise ConfigError(
            f"--compile: PyTorch cannot compile for {device} here ({one_line(error)}); install a C++ compiler (CUDA: Triton), "
            "or leave out --compile"
        ) from None
    return torch.compile(computation)
