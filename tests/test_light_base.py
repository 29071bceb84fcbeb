"""Reading latents, drawing windows and encoding frames need none of the heavier packages; where one is needed, it is named."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.artifact import TrainedOn
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.data import LatentSequences
from worldmodel_v.encoding import Encoder
from worldmodel_v.errors import PackageMissing
from worldmodel_v.execution import connection
from worldmodel_v.preprocessing import Preprocessing
from worldmodel_v.storage import open_dataset
from worldmodel_v.training.metrics import MetricsLog, last_records

LATENTS = Path(__file__).parent / "golden" / "latents"

HEAVY = ("grpc", "gymnasium", "jinja2", "numba", "ray", "rich", "scipy", "sklearn", "tensorboard", "torchmetrics", "tyro")

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def without(missing: tuple[str, ...], code: str, *arguments: object) -> str:
    """What a fresh Python prints that runs the code without these packages."""
    command = [sys.executable, "-W", "error", "-c", BLOCKED.format(heavy=set(missing)) + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


READ = """
import numpy as np
import torch
from worldmodel_v import Encoder, LatentSequences, LatentStream, open_dataset, verify

latents, vae, frames, out = sys.argv[1:]
dataset = open_dataset(latents)
print(dataset.num_rows)
assert verify(dataset) == []
for windows in (LatentSequences(latents, length=4), LatentStream(latents, length=4)):
    print(sum(len(batch["z"]) for batch in windows.batches(8, epoch=0)))
torch.set_num_threads(1)
np.save(out, Encoder.load(vae)(np.load(frames)).mu)
"""


RAW = """
import numpy as np
from worldmodel_v import Encoder
from worldmodel_v.errors import PackageMissing

try:
    Encoder.load(sys.argv[1])(np.zeros((96, 96, 3), np.uint8))
except PackageMissing as error:
    print(error)
"""


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    """Fresh weights for frames of 16x16."""
    (tmp_path / "vae.safetensors").write_bytes(save(VAE(VAEConfig(frame_height=16, frame_width=16, latent_dim=3))))
    return tmp_path


def test_latents_windows_and_an_encoder(vae: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    rows, *windows = map(int, without(HEAVY, READ, LATENTS, vae, tmp_path / "frames.npy", tmp_path / "mu.npy").split())
    assert rows == open_dataset(LATENTS).num_rows
    assert windows == [len(LatentSequences(LATENTS, length=4))] * 2
    np.testing.assert_allclose(np.load(tmp_path / "mu.npy"), Encoder.load(vae)(frames).mu, rtol=0, atol=1e-5)


def test_joining_a_cluster_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(PackageMissing, match=r"needs grpcio, which is not installed; pip install 'worldmodel_v\[cluster\]'$"):
        connection._require_cluster("127.0.0.1:1", is_client_server=False)
    assert PackageMissing.exit_code == 2


def test_a_training_without_tensorboard_has_no_curves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with closing(MetricsLog(tmp_path, 0)) as log:
        assert not log.draws_curves
        log.write(1, "train", {"loss": 1.0})
    assert last_records(tmp_path) == {"train": {"step": 1, "loss": 1.0}}


def test_raw_frames_without_numba_name_it(vae: Path) -> None:
    trained_on = TrainedOn("Own-v0", Preprocessing(crop="full", frame_height=16, frame_width=16))
    weights = save(VAE(VAEConfig(frame_height=16, frame_width=16, latent_dim=3)), trained_on)
    (vae / "vae.safetensors").write_bytes(weights)
    assert without(("numba",), RAW, vae) == (
        "expected frames of 16x16, got 96x96; resizing them needs numba, which is not installed; pip install numba, or give "
        "preprocessed frames\n"
    )
