"""The weight of the KL, which changes with the step."""


def annealed_beta(step: int, beta: float, warmup_steps: int, cycles: int = 1) -> float:
    """The KL weight at a step: linear from 0 to `beta` over `warmup_steps`, then `beta`.

    While the weight is small, the encoder learns useful latents before the KL pulls it towards the prior. This prevents an
    early posterior collapse (Bowman et al. 2016, arXiv:1511.06349). With several `cycles`, each rises from 0 and then stays
    for as many steps as it rose (Fu et al. 2019, arXiv:1903.10145, with R = 1/2); the last one stays to the end. A cycle's
    length depends on its rise and not on the number of all steps, so a training that continues with more steps keeps the
    schedule of the steps that it did.
    """
    begun = min(step // (2 * warmup_steps), cycles - 1) if warmup_steps else 0
    into_cycle = step - begun * 2 * warmup_steps
    return beta if into_cycle >= warmup_steps else beta * into_cycle / warmup_steps
