"""Encoding: rows stay in their place, batches equal single frames, results are bound to their sources and resumable."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import digests
from tests.conftest import stamp_config
from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, load_vae
from worldmodel_v.collection import collect
from worldmodel_v.encoding import EncodeConfig, encode, encode_frames
from worldmodel_v.errors import ModelFailed, ModelNotUsable
from worldmodel_v.storage import open_dataset, verify
from worldmodel_v.training import TrainConfig, train

CPU = torch.device("cpu")


def conditional_vae(folder: Path, names: tuple[str, ...], dim: int) -> Path:
    """A VAE with fresh weights that is told `dim` values beside its frames of 64x64."""
    vae = folder / "vae"
    vae.mkdir()
    model = VAE(VAEConfig(frame_height=64, frame_width=64, latent_dim=2, condition=names, condition_dim=dim))
    (vae / "vae.safetensors").write_bytes(save(model))
    return vae


@torch.inference_mode()
def exact_posterior(model: VAE, frames_BSSC: np.ndarray) -> tuple[torch.Tensor, ...]:
    """mu and logvar of a VAE in float64."""
    x_BCHW = torch.from_numpy(frames_BSSC).permute(0, 3, 1, 2).double() / 255
    return model.to_posterior(model.encoder(x_BCHW).flatten(start_dim=1)).chunk(2, dim=1)


def test_every_latent_row_is_its_frame_encoded_alone_and_the_other_columns_are_the_rollouts(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path
) -> None:
    model = load_vae(stamp_vae).model.double()  # PyTorch's float32 GroupNorm alone is further off than 1e-5
    rollouts, latents = open_dataset(stamp_rollouts), open_dataset(stamp_latents)
    assert latents.num_episodes == rollouts.num_episodes == 8
    for episode_id in range(8):
        episode, sequence = rollouts.episode(episode_id), latents.episode(episode_id)
        one_by_one = [exact_posterior(model, frame[None]) for frame in episode.pixels]
        np.testing.assert_allclose(sequence.mu, torch.cat([mu for mu, _ in one_by_one]), atol=1e-5)
        np.testing.assert_allclose(sequence.logvar, torch.cat([logvar for _, logvar in one_by_one]), atol=1e-5)
        for name in ("action", "reward", "terminated", "truncated", "state"):
            np.testing.assert_array_equal(getattr(sequence, name), getattr(episode, name))
        assert (sequence.episode_id, sequence.seed) == (episode.episode_id, episode.seed)
        assert sequence.state_names == episode.state_names


def test_each_latent_shard_names_its_vae_and_its_rollout_shard(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path
) -> None:
    rollouts, latents = open_dataset(stamp_rollouts), open_dataset(stamp_latents)
    assert len(latents.entries) == len(rollouts.entries) == 3
    for source, entry in zip(rollouts.entries, latents.entries, strict=True):
        with latents.open_shard(entry) as shard:
            assert shard.attributes["vae_sha256"] == load_vae(stamp_vae).sha256
            assert shard.attributes["source_sha256"] == source.sha256 == entry.source_sha256
    assert latents.spec.source == rollouts.spec.settings()


def test_encoding_continues_with_what_is_missing_and_gives_the_same_bytes(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    out = tmp_path / "latents"
    shutil.copytree(stamp_latents, out)
    lines = (out / "index.jsonl").read_text().splitlines()
    (out / "index.jsonl").write_text("".join(line + "\n" for line in lines[:1]))
    (out / "shards" / "000001.h5").unlink()
    report = encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=out, device="cpu"))
    assert report.new_rows == json.loads(lines[1])["num_rows"]
    assert digests(out) == digests(stamp_latents)
    assert verify(open_dataset(out)) == []
    assert encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=out, device="cpu")).new_rows == 0


def test_the_batch_size_changes_nothing_but_rounding(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=tmp_path / "large", device="cpu", batch_size=65))
    for episode_id in (0, 2, 7):
        large = open_dataset(tmp_path / "large").episode(episode_id)
        by_64 = open_dataset(stamp_latents).episode(episode_id)
        np.testing.assert_allclose(large.mu, by_64.mu, atol=1e-5)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_workers_give_the_bytes_that_this_process_gives(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path, workers: int
) -> None:
    encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=tmp_path / "ray", device="cpu", workers=workers))
    assert verify(open_dataset(tmp_path / "ray")) == []
    assert digests(tmp_path / "ray") == digests(stamp_latents)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_byte_and_is_put_back(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=tmp_path / "latents", device="cpu"))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert digests(tmp_path / "latents") == digests(stamp_latents)


def test_latents_in_half_precision_are_the_rounded_ones(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=tmp_path / "half", device="cpu", dtype="float16"))
    half, full = open_dataset(tmp_path / "half").episode(2), open_dataset(stamp_latents).episode(2)
    assert half.mu.dtype == np.float16
    np.testing.assert_array_equal(half.mu, full.mu.astype(np.float16))


def test_latents_that_half_precision_does_not_hold_are_named(stamp_rollouts: Path, tmp_path: Path) -> None:
    model = VAE(VAEConfig(latent_dim=2))
    with torch.no_grad():
        model.to_posterior.bias.fill_(1e5)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "vae.safetensors").write_bytes(save(model))
    config = EncodeConfig(data=stamp_rollouts, vae=tmp_path / "vae", out=tmp_path / "half", device="cpu", dtype="float16")
    with pytest.raises(ModelFailed, match=r"000000\.h5: mu has values that float16 cannot hold; use dtype='float32'"):
        encode(config)


def test_rollouts_that_grew_are_encoded_from_where_it_stopped(stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path) -> None:
    rollouts = tmp_path / "rollouts"
    shutil.copytree(stamp_rollouts, rollouts)
    config = EncodeConfig(data=rollouts, vae=stamp_vae, out=tmp_path / "latents", device="cpu")
    before = encode(config).rows
    collect(stamp_config(rollouts, episodes=10))
    report = encode(config)
    assert report.episodes == 10
    assert report.new_rows == report.rows - before > 0


def test_a_conditional_vae_is_trained_and_encodes_each_row_under_its_own_condition(tmp_path: Path) -> None:
    data, vae, out = tmp_path / "rollouts", tmp_path / "vae", tmp_path / "latents"
    collect(stamp_config(data, env_kwargs='{"discrete": true}'))
    settings = {"steps": 2, "batch_size": 16, "latent_dim": 4, "holdout_every": 4, "device": "cpu"}
    train(TrainConfig(data=data, out=vae, **settings, condition=("step", "action")))
    encode(EncodeConfig(data=data, vae=vae, out=out, device="cpu", batch_size=7))
    model, rollouts = load_vae(vae).model, open_dataset(data)
    num_actions = model.config.condition_dim - 1
    trained_on = np.concatenate([rollouts.episode(i).state[:, 0] for i in (0, 1, 2, 4, 5, 6)])
    assert float(model.condition_mean[0]) == pytest.approx(trained_on.mean(), rel=1e-5)
    assert float(model.condition_std[0]) == pytest.approx(trained_on.std(), rel=1e-5)
    for episode_id in (0, 5):
        episode, sequence = rollouts.episode(episode_id), open_dataset(out).episode(episode_id)
        one_hot = (episode.action[:, None] == np.arange(num_actions)).astype(np.float32)
        condition = np.concatenate([episode.state[:, :1], one_hot], axis=1)
        np.testing.assert_allclose(
            sequence.mu, encode_frames(model, episode.pixels, CPU, condition_BK=condition)["mu"], atol=1e-5
        )
        shifted = encode_frames(model, episode.pixels, CPU, condition_BK=np.roll(condition, 1, axis=0))["mu"]
        assert np.abs(sequence.mu - shifted.numpy()).max() > 1e-3


def test_data_without_what_the_vae_is_conditional_on_is_refused(stamp_rollouts: Path, tmp_path: Path) -> None:
    vae = conditional_vae(tmp_path, names=("speed",), dim=1)
    with pytest.raises(ModelNotUsable, match=r"records no 'speed' for a VAE .*; it has action, step, action_stamp"):
        encode(EncodeConfig(data=stamp_rollouts, vae=vae, out=tmp_path / "latents", device="cpu"))
    assert not (tmp_path / "latents").exists()


@pytest.mark.parametrize(("setting", "value"), [("crop", "0:32,0:64"), ("resize", "bilinear"), ("fit", "letterbox")])
def test_frames_that_were_made_otherwise_than_those_of_the_training_are_refused(
    stamp_vae: Path, tmp_path: Path, setting: str, value: str
) -> None:
    collect(stamp_config(tmp_path / "rollouts", episodes=1, **{setting: value}))
    with pytest.raises(ModelNotUsable) as caught:
        encode(EncodeConfig(data=tmp_path / "rollouts", vae=stamp_vae, out=tmp_path / "latents", device="cpu"))
    assert f"frames that were made otherwise: {setting} is " in str(caught.value)
    assert f"there, {value!r} in " in str(caught.value)
    assert f"; collect with {setting}=" in str(caught.value)
    assert not (tmp_path / "latents").exists()
