"""What the health watch measures, against references; when it warns, and when it holds its peace."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import make_episode, rollout_spec, with_columns
from tests.training.test_train import config, lines
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, load_vae
from worldmodel_v.data import read_frames
from worldmodel_v.errors import DatasetNotUsable, TrainingFailed
from worldmodel_v.evaluation.metrics import score_frames
from worldmodel_v.progress import Silent
from worldmodel_v.records import Episode
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset
from worldmodel_v.training import train
from worldmodel_v.training.checkpoint import load_checkpoint
from worldmodel_v.training.health import CLIP_WINDOW, GRACE_STEPS, Watch
from worldmodel_v.training.trainer import QUICK_EVALUATION_FRAMES


class Sayings(Silent):
    """A progress that keeps the warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        if warning:
            assert (name, facts) == ("training_warning", {"stage": "train"})
            self.said.append(message)


def evaluation(**changes: Any) -> dict[str, Any]:
    healthy = {"num_frames": 256, "psnr_db": 27.0, "squared_error": 25.0, "kl_nats": 20.0}
    return {**healthy, "active_units": 12, "latent_dim": 32, **changes}


def posterior(**changes: Any) -> dict[str, Any]:
    healthy = {"aggregate_max_mean": 0.3, "aggregate_max_correlation": 0.5, "aggregate_mean_square": 1.2}
    return {"kl_per_latent": [1.0] * 32, **healthy, "aggregate_kl_nats": 4.0, **changes}


def watch_of(said: list[str], **changes: Any) -> Watch:
    settings = config(Path(), Path(), **changes)
    annealing = {"beta_warmup_steps": settings.beta_warmup_steps, "beta_cycles": settings.beta_cycles}
    return Watch(settings, VAE(VAEConfig(frame_height=8, frame_width=8, **annealing)), said.append)


def watch(**changes: object) -> tuple[Watch, list[str]]:
    said: list[str] = []
    return watch_of(said, beta_warmup_steps=1000, **changes), said


class TestWarnings:
    def test_a_healthy_training_is_left_alone(self) -> None:
        watcher, said = watch()
        for step in range(20, 3000, 20):
            watcher.count(10.0)
            assert watcher.gradients(step) == {"clipped_share": 0.0}
            assert watcher.judge(step, evaluation(psnr_db=20 + step / 300), posterior()) is None
        assert said == []

    def test_a_collapse_is_told_once_with_the_remedy(self) -> None:
        watcher, said = watch()
        gone = evaluation(kl_nats=0.0213, active_units=0)
        findings = [watcher.judge(step, gone, posterior()) for step in (1500, 2000)]
        assert said == [
            "warning: KL is 0.021 nats and 0 of 32 latents are active at step 1500: the posterior has collapsed; lower beta, "
            "lengthen beta_warmup_steps, or use free_bits"
        ]
        assert [finding is not None for finding in findings] == [True, True]

    def test_nothing_is_judged_until_the_weight_of_the_kl_has_settled(self) -> None:
        watcher, said = watch()
        ill = evaluation(kl_nats=0.0, active_units=0), posterior(aggregate_mean_square=1000.0)
        assert watcher.judge(1000 + GRACE_STEPS - 1, *ill) is None
        assert said == []
        assert watcher.judge(1000 + GRACE_STEPS, *ill) is not None
        assert len(said) == 2

    def test_nothing_is_judged_until_the_weight_has_risen_for_the_last_time(self) -> None:
        said: list[str] = []
        settings = {"beta_warmup_steps": 100, "beta_cycles": 3, "steps": 1000}
        ill = evaluation(kl_nats=0.0, active_units=0), posterior()
        assert watch_of(said, **settings).judge(500 + GRACE_STEPS - 1, *ill) is None
        assert watch_of(said, **settings).judge(500 + GRACE_STEPS, *ill) is not None

    def test_latents_far_wider_than_the_prior_are_told(self) -> None:
        watcher, said = watch()
        watcher.judge(2000, evaluation(), posterior(aggregate_mean_square=156.25, aggregate_kl_nats=2350.04))
        assert said == [
            "warning: step 2000: the latents are 12.5 times as wide as the prior (KL of all frames' latents together to "
            "N(0, I): 2350.0 nats), so samples from the prior will not look like frames; raise beta if they shall"
        ]

    def test_latents_as_wide_as_a_learned_sigma_makes_them_are_not(self) -> None:
        watcher, said = watch()
        watcher.judge(2000, evaluation(kl_nats=275.2), posterior(aggregate_mean_square=12.8, aggregate_kl_nats=200.0))
        assert said == []

    def test_a_fall_of_the_psnr_is_told_and_a_dent_is_not(self) -> None:
        watcher, said = watch()
        for step, decibels in ((1500, 27.0), (2000, 28.0), (2500, 22.1), (3000, 21.9), (3500, 10.0)):
            watcher.judge(step, evaluation(psnr_db=decibels), posterior())
        assert said == [
            "warning: step 3000: held-out PSNR has fallen to 21.9 dB from 28.0 dB at step 2000: the training is exploding; "
            "lower learning_rate or max_grad_norm"
        ]

    @pytest.mark.parametrize(("clipped_of_20", "told"), [(20, True), (19, True), (18, False)])
    def test_gradients_that_are_cut_at_nearly_every_step_are_told(self, clipped_of_20: int, told: bool) -> None:
        watcher, said = watch(max_grad_norm=100.0)
        for step in range(1, 3 * CLIP_WINDOW + 1000 + GRACE_STEPS + 1):
            watcher.count(torch.tensor(100.5 if step % 20 < clipped_of_20 else 99.5))
            if step % 20 == 0:
                assert watcher.gradients(step) == {"clipped_share": clipped_of_20 / 20}
                assert not (said and step < 1000 + GRACE_STEPS)
        assert bool(said) == told
        if told:
            share = clipped_of_20 * 5
            assert said == [
                f"warning: step 1400: {share}% of the last 200 gradients were longer than 100 and were cut; raise "
                "max_grad_norm or lower learning_rate"
            ]


def test_the_figures_stand_in_the_record_and_on_the_board(tiny_rollouts: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, progress = tmp_path / "vae", Sayings()
    train(config(tiny_rollouts, out, max_grad_norm=1e-3), progress)
    assert progress.said == []
    records = lines(out, "health")
    assert [record["step"] for record in records] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert {record.get("clipped_share", 1.0) for record in records} == {1.0}
    last = records[-1]
    held_out = lines(out, "held-out")[-1]
    assert sum(last["kl_per_latent"]) == pytest.approx(held_out["kl_nats"], rel=1e-6)
    frames = read_frames(open_dataset(tiny_rollouts), lambda episode: episode % 4 == 3, QUICK_EVALUATION_FRAMES)
    model = load_vae(out).model
    again = model.health(score_frames(model, frames, torch.device("cpu")))
    assert last["aggregate_kl_nats"] == pytest.approx(again["aggregate_kl_nats"], rel=1e-6)
    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    assert "health/kl_per_latent" in board.Tags()["histograms"]
    assert {"health/aggregate_kl_nats", "health/clipped_share", "held-out/elbo_nats"} <= set(board.Tags()["scalars"])


@pytest.mark.parametrize("stop", [False, True])
def test_a_collapsed_posterior_warns_or_stops(
    tiny_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: bool
) -> None:
    """A weight of the KL beyond all measure presses every latent into the prior within some dozens of steps."""
    monkeypatch.setattr("worldmodel_v.training.health.GRACE_STEPS", 40)
    out, progress = tmp_path / "vae", Sayings()
    settings = config(
        tiny_rollouts, out, steps=80, checkpoint_every=20, beta=1e5, beta_warmup_steps=0, latent_dim=2, stop_on_collapse=stop
    )
    if stop:
        with pytest.raises(TrainingFailed, match=r"stopped, with a checkpoint of step \d+: KL is .* has collapsed; lower"):
            train(settings, progress)
        checkpoint = load_checkpoint(out)
        assert checkpoint is not None
        assert 40 <= checkpoint.step < 80
        assert not (out / "vae.safetensors").exists()
    else:
        assert train(settings, progress).steps == 80
    assert len(progress.said) == 1
    assert "0 of 2 latents are active" in progress.said[0]


def test_weights_that_became_nan_are_never_saved(tiny_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last finite step's update breaks the weights: its own terms are finite, the evaluation after it is not."""
    from worldmodel_v.training.run import TrainingRun

    def poisoned(run: TrainingRun, x: torch.Tensor) -> Any:
        terms = original(run, x)
        if run.step == 6:
            for parameter in run.model.parameters():
                parameter.data.fill_(math.nan)
        return terms

    original = TrainingRun.take_step
    monkeypatch.setattr(TrainingRun, "take_step", poisoned)
    with pytest.raises(TrainingFailed, match=r"step 6: NaN or infinite: .*psnr_db.*; .* keeps the checkpoint of step 3"):
        train(config(tiny_rollouts, tmp_path / "vae"))
    checkpoint = load_checkpoint(tmp_path / "vae")
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())


def test_frames_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    def grey(episode_id: int) -> Episode:
        episode = make_episode(episode_id, 5, size=8)
        return with_columns(episode, pixels=np.full_like(episode.pixels, 127))

    def dataset(name: str, episodes: list[Episode]) -> Path:
        spec = rollout_spec()
        with DatasetWriter(tmp_path / name, spec) as writer:
            for shard in range(2):
                writer.commit(shard, build_shard(episodes[2 * shard : 2 * shard + 2], spec_hash=spec.hash))
        return tmp_path / name

    constant = dataset("constant", [grey(i) for i in range(4)])
    with pytest.raises(DatasetNotUsable, match=r"all of 24 frames from all over it are identical.* wm-inspect .* --preview"):
        train(config(constant, tmp_path / "vae"))
    assert not (tmp_path / "vae").exists()
    one_differs = dataset("one", [grey(0), grey(1), make_episode(2, 5, size=8), grey(3)])
    assert train(config(one_differs, tmp_path / "vae")).steps == 6
