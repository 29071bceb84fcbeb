"""The weight of the KL, which changes with the step."""


def annealed_beta(step: int, beta: float, warmup_steps: int, cycles: int = 1) -> float:
    """The KL weight at a step: linear from 0 to `beta` over `warmup_steps`, then `beta`.

    While the weight is small the encoder learns to be useful before it is pushed towards the prior, which is what keeps
    the posterior from collapsing early (Bowman et al. 2016, arXiv:1511.06349). With several `cycles` each rises anew and
    stays for as many steps as it rose, before the next begins at 0 (Fu et al. 2019, arXiv:1903.10145, whose R is 1/2); the
    last one stays for good. A cycle's length is that of its rise and not a share of all steps, so that a training that is
    continued with more steps keeps the schedule of those it did.
    """
    begun = min(step // (2 * warmup_steps), cycles - 1) if warmup_steps else 0
    into_cycle = step - begun * 2 * warmup_steps
    return beta if into_cycle >= warmup_steps else beta * into_cycle / warmup_steps
