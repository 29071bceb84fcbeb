"""`EncodeBatch` in a real Ray Data pipeline, and what it says of batches that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from tests.encoding.test_encode import conditional_vae
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.device import resolve_device
from worldmodel_v.encoding import encode_frames
from worldmodel_v.encoding.ray_data import EncodeBatch
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.storage import open_dataset

CPU = resolve_device("cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.filterwarnings("ignore")  # of Ray Data, about itself
def test_a_pool_of_actors_encodes_as_wm_encode_does(stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path) -> None:
    import ray

    pixels = np.concatenate([open_dataset(stamp_rollouts).episode(i).pixels for i in range(8)])
    frames = ray.data.from_items([{"pixels": frame, "row": row} for row, frame in enumerate(pixels)], override_num_blocks=5)
    encoded = frames.map_batches(
        EncodeBatch,
        fn_constructor_args=(str(stamp_vae), "cpu"),
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
        batch_size=37,
    )
    rows = sorted(encoded.take_all(), key=lambda row: row["row"])
    assert [row["row"] for row in rows] == list(range(len(pixels)))
    assert rows[0].keys() == {"row", "mu", "logvar"}
    expected = [open_dataset(stamp_latents).episode(i) for i in range(8)]
    for name in ("mu", "logvar"):
        found = np.stack([row[name] for row in rows])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.concatenate([getattr(latents, name) for latents in expected]), atol=1e-5)


def test_a_conditional_vae_takes_its_condition_from_its_column(tmp_path: Path) -> None:
    vae = conditional_vae(tmp_path, names=("speed",), dim=1)
    rng = np.random.default_rng(0)
    frames, speed = rng.integers(0, 256, (70, 64, 64, 3), dtype=np.uint8), rng.normal(size=(70, 1)).astype(np.float32)
    found = EncodeBatch(vae, "cpu", frames="image", condition="speed")({"image": frames, "speed": speed})
    expected = encode_frames(load_vae(vae).model, frames, CPU, condition_BK=speed)
    assert found.keys() == {"speed", "mu", "logvar"}
    np.testing.assert_allclose(found["mu"], expected["mu"], atol=1e-5)
    with pytest.raises(ModelNotUsable, match="the batch has no column 'condition'; it has pixels; name yours to EncodeBatch"):
        EncodeBatch(vae, "cpu")({"pixels": frames})


def test_an_empty_batch_stays_one(stamp_vae: Path) -> None:
    found = EncodeBatch(stamp_vae, "cpu")({"pixels": np.zeros((0, 64, 64, 3), np.uint8), "row": np.zeros(0, int)})
    assert {name: column.shape for name, column in found.items()} == {"row": (0,), "mu": (0, 8), "logvar": (0, 8)}


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (np.zeros((2, 32, 32, 3), np.uint8), r"uint8 of \(32, 32, 3\)"),
        (np.zeros((2, 64, 64, 3), np.float32), r"float32 of \(64, 64, 3\)"),
        (np.zeros((64, 64, 3), np.uint8), r"uint8 of \(64, 3\)"),
    ],
)
def test_frames_of_another_kind_are_refused(stamp_vae: Path, frames: np.ndarray, found: str) -> None:
    expected = rf"pixels: expected uint8 frames of \(64, 64, 3\), as the VAE takes them, got {found}"
    with pytest.raises(ModelNotUsable, match=expected):
        EncodeBatch(stamp_vae, "cpu")({"pixels": frames})
