"""The part of every global batch that one of several training processes takes, and the mean over all of them.

Every process sees the same stream of global batches and the same noise, and computes on its own rows of them; the gradients
are averaged before they are clipped, so that all processes make the step that one alone would make with the whole batch, to
within the order of floating-point sums. One all-reduce of one flat buffer a step does it. Rejected: DistributedDataParallel,
whose hooks want a single `forward` and would have to be led around the compiled objective and the recomputed activations;
it would hide the communication behind the backward pass, which for a few million weights is not worth it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True)
class Share:
    """Process `rank` of `size`; the default is a process alone."""

    rank: int = 0
    size: int = 1

    def rows(self, batch_size: int) -> slice:
        """This process's rows of a global batch, whose size the number of processes must divide."""
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put the mean over all processes into float tensors of one device, in place; every process must call it alike."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes, with this process's gradient: that is what `average` makes whole."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total / self.size + (value - value.detach())

    def agree(self, wish: bool, device: torch.device) -> bool:
        """What the first process wishes; every process must call it alike."""
        if self.size == 1:
            return wish
        flag = torch.tensor([float(wish)], device=device)
        torch.distributed.broadcast(flag, src=0)
        return bool(flag.item())


ALONE = Share()
