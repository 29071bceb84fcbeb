"""A page of the toy world with a dream, made once."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from worldmodel_v.autoencoders.artifact import describe
from worldmodel_v.schema import ActionSpace
from worldmodel_v.storage import open_dataset
from worldmodel_v.view import ViewConfig, ViewReport, view

HIDDEN, MIXTURES = 6, 3

WriteRnn = Callable[..., Path]


def mdn_rnn_file(vae: Path, data: Path, **changes: object) -> bytes:
    """What the example would write of an untrained model of this VAE: random weights of a small size."""
    return mdn_rnn_bytes(open_dataset(data).schema.actions, describe(vae).sha256, **changes)


def mdn_rnn_bytes(
    actions: ActionSpace, vae_sha256: str, *, latent_dim: int = 8, about: dict[str, object] | None = None
) -> bytes:
    """The same of a VAE of which only the hash is known."""
    draw = np.random.default_rng(0)
    outputs = 2 + 3 * latent_dim * MIXTURES
    shapes = {
        "lstm.weight_ih_l0": (4 * HIDDEN, latent_dim + actions.vector_size),
        "lstm.weight_hh_l0": (4 * HIDDEN, HIDDEN),
        "lstm.bias_ih_l0": (4 * HIDDEN,),
        "lstm.bias_hh_l0": (4 * HIDDEN,),
        "head.weight": (outputs, HIDDEN),
        "head.bias": (outputs,),
        "z_mean": (latent_dim,),
        "z_std": (latent_dim,),
        "reward_mean": (),
        "reward_std": (),
        "usual_termination": (),
    }
    tensors = {name: np.array(np.abs(draw.normal(0.5, 0.3, shape)), np.float32) for name, shape in shapes.items()}
    tensors["usual_termination"] = np.array(-6.0, np.float32)
    told = {"action_space": actions.record, "vae_sha256": vae_sha256} | (about or {})
    return safetensors.numpy.save(tensors, {"about": json.dumps(told)})


@pytest.fixture
def write_rnn(tmp_path: Path, stamp_vae: Path, stamp_rollouts: Path) -> WriteRnn:
    """Writes such a file, with changes, into a new folder."""

    def write(**changes: object) -> Path:
        folder = tmp_path / "rnn"
        folder.mkdir(exist_ok=True)
        (folder / "mdn_rnn.safetensors").write_bytes(mdn_rnn_file(stamp_vae, stamp_rollouts, **changes))
        return folder

    return write


@pytest.fixture(scope="session")
def stamp_page(tmp_path_factory: pytest.TempPathFactory, stamp_vae: Path, stamp_rollouts: Path) -> ViewReport:
    """The page, read-only."""
    folder = tmp_path_factory.mktemp("view")
    (folder / "mdn_rnn.safetensors").write_bytes(mdn_rnn_file(stamp_vae, stamp_rollouts))
    return view(ViewConfig(vae=stamp_vae, data=stamp_rollouts, rnn=folder, out=folder / "page.html", device="cpu"))


def data_of(page: Path) -> dict[str, object]:
    """The JSON that a page contains."""
    text = page.read_text()
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])
