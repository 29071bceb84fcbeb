"""An extra loss whose network learns from the batches that the autoencoder learns from, against it.

The network takes a step of Adam after each step of the autoencoder, with a learning rate of its own times the factor of the
schedule. Its gradients are those of the whole batch, for any number of processes. While the autoencoder's loss is computed, its
weights have no gradients. Weights, buffers and moments are in the checkpoint.
"""

from abc import abstractmethod
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from worldmodel_v.training.extras import ExtraLoss, under
from worldmodel_v.training.optimizers import as_tensors, restore_state, state_of
from worldmodel_v.training.parts import Terms
from worldmodel_v.training.share import Share

_NETWORK, _OPTIMIZER = "network.", "optimizer."

Network = TypeVar("Network", bound=nn.Module)


class Adversary(ExtraLoss, Generic[Network]):
    """A network, its optimiser, and its step."""

    figure: ClassVar[str]
    """The name of the network's own loss in the record."""

    def __init__(self, network: Network, learning_rate: float, betas: tuple[float, float]) -> None:
        """`network` is on its device."""
        self._network, self._learning_rate = network, learning_rate
        self._optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas)

    def _fixed(self) -> Network:
        """The network as the autoencoder's loss needs it: in evaluation mode, without gradients of its weights."""
        return self._network.eval().requires_grad_(requires_grad=False)

    @abstractmethod
    def _own_loss(self) -> Tensor:
        """What the network minimises for the last batch of `term`, 0-dim: a mean over this process's part of the batch."""

    def learn(self, share: Share, factor: float) -> Terms:
        """One step of Adam on the network's own loss."""
        self._network.train().requires_grad_()
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._own_loss()
        loss.backward()
        loss = loss.detach()
        share.average([*(each.grad for each in self._network.parameters() if each.grad is not None), loss])
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * factor
        self._optimizer.step()
        return {self.figure: loss}

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers and moments."""
        moments = as_tensors(state_of(self._optimizer))
        return {_NETWORK + name: tensor for name, tensor in self._network.state_dict().items()} | {
            _OPTIMIZER + name: tensor for name, tensor in moments.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` gave."""
        self._network.load_state_dict(under(_NETWORK, tensors))
        restore_state(self._optimizer, under(_OPTIMIZER, tensors))
