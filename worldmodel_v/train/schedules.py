"""Settings that change with the step."""


def annealed_beta(step: int, beta: float, warmup_steps: int) -> float:
    """The KL weight at a step: linear from 0 to `beta` over `warmup_steps`, then `beta`.

    While the weight is small the encoder learns to be useful before it is pushed towards the prior, which is what keeps
    the posterior from collapsing early (Bowman et al. 2016, arXiv:1511.06349).
    """
    return beta if step >= warmup_steps else beta * step / warmup_steps
