"""The part of every global batch that one of several training processes computes, and the mean over all processes.

Every process sees the same stream of global batches and the same noise, and computes on its own rows. Gradients are averaged
before they are clipped. So all processes take the same step as a single process with the whole batch, except for the order of
floating-point sums. This needs one all-reduce of one flat buffer per step. Rejected: DistributedDataParallel. Its hooks need
a single `forward`, which the compiled objective and the recomputed activations do not have. It would overlap communication
with the backward pass, which is not worth it for a few million weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True)
class Share:
    """Process `rank` of `size`; by default a single process."""

    rank: int = 0
    size: int = 1

    def rows(self, batch_size: int) -> slice:
        """This process's rows of a global batch. The number of processes must divide the batch size."""
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace float tensors of one device by their means over all processes, in place; every process must call this."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes, with only this process's gradient; `average` completes the gradient."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total / self.size + (value - value.detach())

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes in their order; every process must call this with equally many.

        Only this process's rows have a gradient, `size` times as large: a function of all rows that every process computes
        gets its gradient when `average` has averaged those of the processes.
        """
        if self.size == 1:
            return rows
        own = rows.detach().contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        torch.distributed.all_gather(parts, own)
        parts[self.rank] = own + self.size * (rows - rows.detach())
        return torch.cat(parts)

    def agree(self, wish: bool, device: torch.device) -> bool:
        """The value of `wish` in the first process; every process must call this."""
        if self.size == 1:
            return wish
        flag = torch.tensor([float(wish)], device=device)
        torch.distributed.broadcast(flag, src=0)
        return bool(flag.item())


ALONE = Share()
