"""Batches in threads: the same figures as one after the other, in order, and threads that end."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from worldmodel_v.autoencoders.base import CodedBatch, Measure, Scores
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.evaluation.metrics import BATCH_SIZE, score_frames
from worldmodel_v.evaluation.threads import MOST_THREADS, in_threads, num_threads

CPU = torch.device("cpu")
COUNT = 4 * BATCH_SIZE + 3


@pytest.fixture(autouse=True)
def caller_keeps_its_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evaluate")]


class DrawingVAE(VAE):
    """Has one more measure, which draws noise and returns it at once."""

    def measures(self, generator: torch.Generator) -> dict[str, Measure]:
        def noise(batch: CodedBatch) -> torch.Tensor:
            return torch.rand(len(batch.x), generator=generator)

        return {**super().measures(generator), "noise": noise}


def scores_with(threads: int, model: VAE | None = None) -> Scores:
    torch.manual_seed(0)
    model = model or DrawingVAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3))
    frames = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    torch.set_num_threads(threads)
    try:
        return score_frames(model, frames, CPU, seed=3)
    finally:
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_every_figure_is_the_same_for_any_number_of_threads(threads: int) -> None:
    alone, found = scores_with(1), scores_with(threads)
    assert found.measures.keys() == {"squared_error", "log_likelihood", "noise"}
    for name, values in {**alone.latents, **alone.measures}.items():
        assert torch.equal({**found.latents, **found.measures}[name], values), name


def test_noise_is_drawn_in_the_order_of_the_frames() -> None:
    generator = torch.Generator().manual_seed(3)
    drawn = []
    for start in range(0, COUNT, BATCH_SIZE):
        size = min(BATCH_SIZE, COUNT - start)
        torch.randn(size, 3, generator=generator)  # z, for the likelihood
        drawn.append(torch.rand(size, generator=generator))
    assert torch.equal(scores_with(3).measures["noise"], torch.cat(drawn).double())


@pytest.mark.parametrize("broken", range(5))
def test_the_error_of_a_batch_is_raised_and_nobody_waits_for_its_turn(broken: int) -> None:
    class BrokenVAE(VAE):
        def encode(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
            if torch.equal(x[0], first_of_broken):
                raise RuntimeError(f"batch {broken} cannot be encoded")
            return super().encode(x, condition)

    frame = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)[broken * BATCH_SIZE]
    first_of_broken = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
    with pytest.raises(RuntimeError, match=f"batch {broken} cannot be encoded"):
        scores_with(2, BrokenVAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3)))


def test_results_come_in_order_and_few_are_computed_ahead() -> None:
    begun: list[int] = []
    for place, result in enumerate(in_threads(lambda item: begun.append(item) or item, range(20), 3)):
        assert result == place
        assert max(begun) <= place + 3
    assert sorted(begun) == [*range(20)]


def test_a_caller_that_stops_early_leaves_no_thread() -> None:
    torch.set_num_threads(2)
    results = in_threads(lambda item: torch.get_num_threads(), range(20), 2)
    assert next(results) == 1
    results.close()
    assert torch.get_num_threads() == 2


def test_a_gpu_and_a_few_batches_need_no_threads() -> None:
    torch.set_num_threads(3)
    assert [num_threads(count, CPU) for count in (0, 1, 2, 3, 40)] == [1, 1, 1, 3, 3]
    assert num_threads(40, torch.device("cuda")) == 1
    torch.set_num_threads(2 * MOST_THREADS)
    assert num_threads(40, CPU) == MOST_THREADS
