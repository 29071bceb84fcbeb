"""A user's optimiser: Lion (Chen et al. 2023, arXiv:2302.06675), with a number among its state."""

import torch


class Lion(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                state["num_updates"] = state.get("num_updates", 0) + 1
                update = momentum.lerp(parameter.grad, 0.1).sign() / state["num_updates"] ** 0.1
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)
                momentum.lerp_(parameter.grad, 0.01)


def lion(parameters: list[torch.nn.Parameter], *, learning_rate: float, weight_decay: float) -> Lion:
    return Lion(parameters, {"lr": learning_rate, "weight_decay": weight_decay})


def with_history(parameters: list[torch.nn.Parameter], *, learning_rate: float, weight_decay: float) -> torch.optim.LBFGS:
    """One that cannot be trained with: its step needs a closure."""
    return torch.optim.LBFGS(parameters, lr=learning_rate)
