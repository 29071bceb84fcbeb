"""Encoding in a controller's loop: the latents are the recorded ones, whatever shape the frames come in."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import worldmodel_v
from tests.builders import run_python
from tests.conftest import stamp_config
from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, load_vae
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.encoding import EncodeConfig, Encoder, encode, inference_encoder
from worldmodel_v.encoding.inference import reproducible_arithmetic
from worldmodel_v.envs import ImageEnv, make_image_env
from worldmodel_v.errors import FramesNotUsable, ModelNotUsable
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig, train

ROUNDING = 1e-5


def small_training(data: Path, out: Path, **changes: object) -> Path:
    settings = {"steps": 2, "batch_size": 16, "latent_dim": 4, "holdout_every": 2, "device": "cpu", "architecture": "conv"}
    train(TrainConfig(data=data, out=out, **{**settings, **changes}))
    return out


@pytest.fixture(scope="session")
def driving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real CarRacing episodes of 12 steps, a VAE that saw them, and their latents."""
    folder = tmp_path_factory.mktemp("driving")
    collect(CollectConfig(out=folder / "rollouts", episodes=2, episodes_per_shard=1, max_steps=12, workers=0, policy="random"))
    small_training(folder / "rollouts", folder / "vae")
    encode(EncodeConfig(data=folder / "rollouts", vae=folder / "vae", out=folder / "latents", device="cpu"))
    return folder


def replay(env: ImageEnv, seed: int, actions: np.ndarray) -> np.ndarray:
    """The raw frames of an episode, uint8 (T + 1, H, W, 3)."""
    frames = [env.reset(seed)]
    frames += [env.step(env.record_action(action))[0] for action in actions[:-1]]
    return np.stack([frame.copy() for frame in frames])


def test_raw_frames_of_car_racing_give_the_latents_that_were_recorded(driving: Path) -> None:
    encoder = Encoder.load(driving / "vae")
    env = make_image_env("CarRacing-v3", {})
    for episode_id in (0, 1):
        episode = open_dataset(driving / "rollouts").episode(episode_id)
        sequence = open_dataset(driving / "latents").episode(episode_id)
        raw = replay(env, episode.seed, episode.action)
        assert raw.shape == (13, 96, 96, 3)
        encoding = encoder(raw)
        np.testing.assert_array_equal(encoding.mu, encoder(episode.pixels).mu)
        np.testing.assert_array_equal(encoding.logvar, encoder(episode.pixels).logvar)
        np.testing.assert_allclose(encoding.mu, sequence.mu, atol=ROUNDING)
        np.testing.assert_allclose(encoding.logvar, sequence.logvar, atol=ROUNDING)
        assert np.ptp(sequence.mu, axis=0).max() > 100 * ROUNDING
        one_by_one = [encoder(frame) for frame in raw]
        np.testing.assert_allclose(np.stack([one.mu for one in one_by_one]), sequence.mu, atol=ROUNDING)
        np.testing.assert_allclose(np.stack([one.logvar for one in one_by_one]), sequence.logvar, atol=ROUNDING)
    env.close()


def test_one_frame_gives_a_vector_and_a_batch_a_matrix(driving: Path) -> None:
    encoder = worldmodel_v.Encoder.load(str(driving / "vae"))
    frames = open_dataset(driving / "rollouts").episode(0).pixels
    one, batch = encoder(frames[3]), encoder(frames[3:4])
    assert encoder.latent_shapes == {"mu": (4,), "logvar": (4,)}
    for single, rows in zip(one.columns.values(), batch.columns.values(), strict=True):
        assert (single.shape, single.dtype, rows.shape, rows.dtype) == ((4,), np.float32, (1, 4), np.float32)
        np.testing.assert_array_equal(single, rows[0])


def test_samples_follow_the_posterior_and_the_generator(driving: Path) -> None:
    encoding = Encoder.load(driving / "vae")(open_dataset(driving / "rollouts").episode(0).pixels[0])
    z = np.stack([encoding.sample(rng) for rng in [np.random.default_rng(0)] for _ in range(4000)])
    assert z.dtype == np.float32
    sigma = np.exp(0.5 * encoding.logvar)
    assert np.abs((z.mean(axis=0) - encoding.mu) / sigma).max() < 4 / np.sqrt(4000)
    np.testing.assert_allclose(z.std(axis=0), sigma, rtol=0.05)
    np.testing.assert_array_equal(encoding.sample(np.random.default_rng(0)), z[0])


def test_any_memory_layout_gives_the_same(driving: Path) -> None:
    encoder = Encoder.load(driving / "vae")
    recorded = open_dataset(driving / "rollouts").episode(0).pixels[:4]
    raw = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    for frames in (recorded, raw):
        require_any_layout(encoder, frames)


def test_batches_are_encoded_as_wm_encode_does_and_as_one_by_one(driving: Path) -> None:
    frames = open_dataset(driving / "rollouts").episode(0).pixels[:19]
    plain, for_batches = Encoder.load(driving / "vae"), Encoder.load(driving / "vae", for_batches=True)
    expected, found = plain(frames), for_batches(frames)
    np.testing.assert_allclose(found.mu, expected.mu, atol=1e-5)
    np.testing.assert_allclose(found.logvar, expected.logvar, atol=1e-5)
    np.testing.assert_array_equal(found.mu, for_batches(frames.copy()).mu)
    np.testing.assert_allclose(for_batches(frames[3]).mu, expected.mu[3], atol=1e-5)
    encode_batch = inference_encoder(load_vae(driving / "vae").model, torch.device("cpu"))
    with reproducible_arithmetic():
        np.testing.assert_array_equal(found.mu, encode_batch(torch.from_numpy(frames), None)["mu"].numpy())


def require_any_layout(encoder: Encoder, frames: np.ndarray) -> None:
    expected = encoder(frames).mu
    backwards = frames[::-1].copy()[::-1]
    strided = np.repeat(frames, 2, axis=2)[:, :, ::2]
    read_only = frames.copy()
    read_only.setflags(write=False)
    for layout in (backwards, strided, read_only, np.asfortranarray(frames)):
        before = layout.copy()
        np.testing.assert_array_equal(encoder(layout).mu, expected)
        np.testing.assert_array_equal(layout, before)


def test_grey_frames_count_as_grey_pictures(driving: Path, stamp_vae: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 1), dtype=np.uint8)
    for encoder, frames in ((Encoder.load(driving / "vae"), grey), (Encoder.load(stamp_vae), grey[:, :64, :64])):
        np.testing.assert_array_equal(encoder(frames).mu, encoder(frames.repeat(3, axis=3)).mu)


def test_a_condition_stands_beside_each_frame(tmp_path: Path) -> None:
    data = tmp_path / "rollouts"
    collect(stamp_config(data, frame_size=16))
    vae = small_training(data, tmp_path / "vae", condition=("step",))
    encode(EncodeConfig(data=data, vae=vae, out=tmp_path / "latents", device="cpu"))
    encoder, episode = Encoder.load(vae), open_dataset(data).episode(0)
    sequence = open_dataset(tmp_path / "latents").episode(0)
    step = episode.state[:, [episode.state_names.index("step")]]
    np.testing.assert_allclose(encoder(episode.pixels, step).mu, sequence.mu, atol=ROUNDING)
    np.testing.assert_allclose(encoder(episode.pixels[7], step[7]).mu, sequence.mu[7], atol=ROUNDING)
    assert np.abs(encoder(episode.pixels[7], step[7] + 5).mu - sequence.mu[7]).max() > 100 * ROUNDING
    with pytest.raises(ModelNotUsable) as caught:
        encoder(episode.pixels[:2])
    assert str(caught.value) == "the VAE is conditional on step; expected 1 values a frame, got 0"
    with pytest.raises(ModelNotUsable) as caught:
        encoder(episode.pixels[:2], step[0])
    assert str(caught.value) == "condition: expected the shape (2, 1) for frames of (2, 16, 16, 3), got (1,)"


FRAME = np.zeros((64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(64, 64, 3, dtype=torch.uint8), "expected frames as a numpy array, got Tensor"),
        (
            FRAME.astype(np.float32) / 255,
            "expected frames of uint8, 0 to 255 as the environment gives them, got float32",
        ),
        (FRAME[..., 0], "expected frames of shape (H, W, 3) or (B, H, W, 3), got (64, 64)"),
        (
            np.moveaxis(FRAME, -1, 0),
            "expected frames of shape (H, W, 3) or (B, H, W, 3), got (3, 64, 64); the channels stand first: "
            "np.moveaxis(frames, -3, -1) puts them last",
        ),
        (
            np.moveaxis(FRAME, -1, 0)[None],
            "expected frames of shape (H, W, 3) or (B, H, W, 3), got (1, 3, 64, 64); the channels stand first: "
            "np.moveaxis(frames, -3, -1) puts them last",
        ),
        (np.zeros((64, 64, 4), np.uint8), "expected frames of shape (H, W, 3) or (B, H, W, 3), got (64, 64, 4)"),
        (FRAME[None][:0], "expected at least one frame, got the shape (0, 64, 64, 3)"),
        (
            np.zeros((400, 600, 3), np.uint8),
            "expected frames of 64x64, got 400x600; of worldmodel_v/CarRacing-v3 give the agent's frames, 96x96, "
            "or preprocessed ones",
        ),
    ],
)
def test_frames_that_are_not_what_they_should_be_are_refused(driving: Path, frames: np.ndarray, message: str) -> None:
    with pytest.raises(FramesNotUsable) as caught:
        Encoder.load(driving / "vae")(frames)
    assert str(caught.value) == message


def test_frames_that_the_crop_does_not_fit_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "rollouts"
    collect(stamp_config(data, frame_size=16, crop="0:60,0:64"))
    encoder = Encoder.load(small_training(data, tmp_path / "vae"))
    assert encoder(FRAME).mu.shape == (4,)
    with pytest.raises(FramesNotUsable) as caught:
        encoder(FRAME[:32])
    assert str(caught.value) == (
        "expected frames of 16x16, got 32x64, which the crop 0:60,0:64 of worldmodel_v/Stamp-v0 does not fit; "
        "give the environment's frames, or preprocessed ones"
    )


def test_the_weights_alone_tell_how_frames_are_preprocessed(driving: Path, tmp_path: Path) -> None:
    shutil.copy(driving / "vae" / "vae.safetensors", tmp_path)
    raw = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Encoder.load(tmp_path)(raw).mu, Encoder.load(driving / "vae")(raw).mu)


def test_of_weights_that_do_not_tell_only_preprocessed_frames_are_encoded(tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").write_bytes(save(VAE(VAEConfig(frame_height=16, frame_width=24, latent_dim=3))))
    encoder = Encoder.load(tmp_path)
    assert encoder(FRAME[:16, :24]).mu.shape == (3,)
    with pytest.raises(FramesNotUsable) as caught:
        encoder(FRAME)
    assert str(caught.value) == (
        f"expected frames of 16x24, got 64x64, and the weights of {tmp_path} do not say how frames are preprocessed; train the "
        "VAE with wm-train, or give frames that are preprocessed to 16x24"
    )


def test_where_the_size_does_not_tell_raw_frames_from_recorded_ones_the_caller_does(tmp_path: Path) -> None:
    data = tmp_path / "rollouts"
    collect(stamp_config(data, crop="8:64,0:64", fit="letterbox"))
    encoder = Encoder.load(small_training(data, tmp_path / "vae"))
    episode = open_dataset(data).episode(0)
    env = make_image_env("worldmodel_v/Stamp-v0", {})
    raw = replay(env, episode.seed, episode.action)
    env.close()
    assert raw.shape == episode.pixels.shape
    found = encoder(raw, preprocessed=False)
    np.testing.assert_array_equal(found.mu, encoder(episode.pixels, preprocessed=True).mu)
    assert np.abs(found.mu - encoder(raw, preprocessed=True).mu).max() > 100 * ROUNDING
    with pytest.raises(FramesNotUsable) as caught:
        encoder(raw)
    assert str(caught.value) == (
        "frames of 64x64 may be recorded ones or the environment's own, which are cropped to 8:64,0:64 for the VAE: "
        "say which with preprocessed=True or preprocessed=False"
    )
    with pytest.raises(FramesNotUsable) as caught:
        encoder(raw[:, :32], preprocessed=True)
    assert str(caught.value) == (
        "expected frames of 64x64, got 32x64; leave out preprocessed=True for the environment's frames"
    )


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotUsable, match=r"holds no vae\.safetensors: it is no directory of wm-train"):
        Encoder.load(tmp_path)


def test_preprocessed_frames_need_neither_gymnasium_nor_numba(tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").write_bytes(save(VAE(VAEConfig(frame_height=16, frame_width=16, latent_dim=3))))
    code = (
        "import sys; sys.modules.update(gymnasium=None, numba=None)\n"
        "import numpy as np; from worldmodel_v import Encoder\n"
        "print(Encoder.load(sys.argv[1])(np.zeros((16, 16, 3), np.uint8)).mu.shape)"
    )
    assert run_python(code, tmp_path) == "(3,)"
