"""Networks for --perceptual-network: one as a user would write it, and some that give nonsense."""

import torch
from torch import Tensor, nn


class Edges(nn.Module):
    """Differences of neighbours, and their means over 2x2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> list[Tensor]:
        edges = self.scale * (x[:, :, :, 1:] - x[:, :, :, :-1])
        return [edges, nn.functional.avg_pool2d(edges, 2)]


class Returns(nn.Module):
    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Tensor) -> object:
        return self.result(x) if callable(self.result) else self.result


def edges() -> nn.Module:
    return Edges()


def fails() -> nn.Module:
    raise RuntimeError("no weights here")


def no_module() -> object:
    return "VGG16"


def no_list() -> nn.Module:
    return Returns(lambda x: x)


def no_maps() -> nn.Module:
    return Returns([])


def whole_numbers() -> nn.Module:
    return Returns(lambda x: [x.long()])


def one_for_all() -> nn.Module:
    return Returns(lambda x: [x.mean(dim=0, keepdim=True)])


def constant() -> nn.Module:
    return Returns(lambda x: [x.detach()])


def infinite() -> nn.Module:
    return Returns(lambda x: [x / 0])


def wants_one_channel() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3))


NOT_CALLABLE = 3
