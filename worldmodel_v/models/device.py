"""Which device to compute on."""

import torch

from worldmodel_v.errors import ConfigError


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
