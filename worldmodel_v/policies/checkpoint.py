"""`checkpoint:MODULE:FACTORY:FILE`: a user's own torch network, with weights from a file that runs no code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.errors import PolicyNotUsable, one_line, retold, shown
from worldmodel_v.own_modules import import_own
from worldmodel_v.policies.acting import FRAME, acts_on
from worldmodel_v.policies.network import chosen_action, unusable_input
from worldmodel_v.policies.sb3 import PREFIX as SB3_PREFIX
from worldmodel_v.process import plain_tensors
from worldmodel_v.settings import local_path
from worldmodel_v.storage.checksum import sha256_of_file

PREFIX = "checkpoint:"
MAX_FILE_BYTES = 16 << 30


class CheckpointPolicy:
    """A network as a policy: `FACTORY(env)` builds the torch module, FILE (`.safetensors`, or `.pt` of tensors) fills it.

    FILE may nest the weights and prefix their names as trainers do: see `worldmodel_v.policies.weights`.
    The module maps one frame, float32 (1, 3, H, W) in [0, 1], to an action (1, A), or to logits (1, n) for discrete
    actions, of which the largest is taken; (A,) and (n,) are taken too. With an attribute `acts_on = "observation"` it maps the
    environment's observation, an array, as float32 (1, …) and not scaled. It runs on one CPU thread of the worker, in
    evaluation mode.
    """

    def __init__(self, env: gymnasium.Env, source: str, folder: Path) -> None:
        """`source` is the text after "checkpoint:"; its FILE is looked for in `folder`. Raises PolicyNotUsable."""
        import torch

        from worldmodel_v.policies.weights import fitting_weights

        module, factory, file = source_parts(source)
        torch.set_num_threads(1)  # so that a worker and a lone process add up in the same order
        self._torch = torch
        self._network = getattr(import_own(module), factory)(env)
        stored = _read_weights(folder / local_path(file))
        self._network.load_state_dict(fitting_weights(stored, self._network.state_dict(), f"policy checkpoint: {file}"))
        self._network.eval()
        self._space = env.action_space
        self.acts_on = acts_on(self._network)

    def reset(self, rng: np.random.Generator) -> None:
        reset = getattr(self._network, "reset", None)
        if callable(reset):
            reset(rng)

    def act(self, seen: np.ndarray) -> Any:
        x = self._frame(seen) if self.acts_on == FRAME else self._torch.from_numpy(np.array(seen))[None].float()
        with self._torch.no_grad():
            try:
                output = self._network(x)
            except Exception as error:
                raise unusable_input(error, tuple(x.shape), self.acts_on) from error
            if not isinstance(output, self._torch.Tensor):
                raise TypeError(f"the policy's network gives {shown(output)}, expected a tensor: an action or logits")
            return chosen_action(output.numpy(), self._space)

    def _frame(self, frame: np.ndarray) -> Any:
        frame_HWC = np.ascontiguousarray(frame if frame.ndim == 3 else frame[:, :, None])
        return self._torch.from_numpy(frame_HWC).permute(2, 0, 1)[None].float() / 255


def source_parts(source: str) -> tuple[str, str, str]:
    """MODULE, FACTORY and FILE of the text after "checkpoint:"; raises PolicyNotUsable if one is missing."""
    module, _, rest = source.partition(":")
    factory, _, file = rest.partition(":")
    if not file:
        raise PolicyNotUsable(f"policy checkpoint:{source}: expected checkpoint:MODULE:FACTORY:FILE")
    return module, factory, file


def checkpoint_factory(source: str) -> Callable[[gymnasium.Env], CheckpointPolicy]:
    """A function that builds the policy. MODULE is imported now, and FILE is looked for in the present directory."""
    reported = retold(lambda error: PolicyNotUsable(one_line(error)))
    with suppress(PolicyNotUsable), reported:  # building the policy reports it
        import_own(source.partition(":")[0])
    return partial(CheckpointPolicy, source=source, folder=Path.cwd())


@contextmanager
def torch_threads_kept(policy: str) -> Iterator[None]:
    """Afterwards PyTorch has as many threads as before, though a network among the policies left it one; within the block
    it has the defaults that it has in a worker."""
    if PREFIX not in policy and SB3_PREFIX not in policy:
        yield
        return
    import torch

    num_threads = torch.get_num_threads()
    try:
        with plain_tensors():
            yield
    finally:
        torch.set_num_threads(num_threads)


def sha256_of_weights(file: Path) -> str:
    """The SHA-256 (hexadecimal) of a file of weights; raises PolicyNotUsable if it is no file or too large."""
    require_weights(file)
    return sha256_of_file(file)


def require_weights(file: Path, max_bytes: int = MAX_FILE_BYTES) -> int:
    """The size of a file of weights in bytes; raises PolicyNotUsable if it is no file, or has more than `max_bytes`."""
    if not file.is_file():  # which a device, a pipe, and a link to either is not
        what = "is no regular file" if file.exists() else "is not there"
        raise PolicyNotUsable(f"policy's weights: {file} {what}; give the path of a .safetensors, .pt, .onnx or .zip file")
    if (num_bytes := file.stat().st_size) > max_bytes:
        raise PolicyNotUsable(f"policy's weights: {file} has {num_bytes} bytes, expected at most {max_bytes}")
    return num_bytes


def _read_weights(file: Path) -> Any:
    """The tensors of a file by name; raises PolicyNotUsable if it is no file of weights, would run code or grow in memory."""
    num_bytes = require_weights(file)
    import safetensors.torch

    from worldmodel_v.policies.torch_file import read_torch

    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        return read_torch(file, num_bytes, f"policy checkpoint: {file}")
    except PolicyNotUsable:
        raise
    except Exception as error:
        raise PolicyNotUsable(
            f"policy checkpoint: {file} cannot be read as weights ({type(error).__name__}); "
            "give a .safetensors file, or a .pt of tensors"
        ) from None
