"""An MDN-RNN that does not fit is refused in a line, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.builders import imported
from tests.cli.test_bad_input import Refusal
from tests.integration.test_example import EXAMPLE
from tests.view.conftest import HIDDEN, MIXTURES, WriteRnn
from worldmodel_v.autoencoders.artifact import describe
from worldmodel_v.storage import open_dataset
from worldmodel_v.view import dream
from worldmodel_v.view.dream import read_mdn_rnn
from worldmodel_v.view.packing import Weights

Refused = Callable[[Path], str]


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    stamp_vae: Path,
    stamp_rollouts: Path,
) -> Refused:
    """Runs wm-view with this --rnn."""
    refuse = Refusal(monkeypatch, capsys)

    def run(folder: Path) -> str:
        out = tmp_path / "page.html"
        line = refuse("wm-view", "--quiet", "--vae", stamp_vae, "--data", stamp_rollouts, "--rnn", folder, "--out", out)
        assert not out.exists()
        return line

    return run


def test_a_folder_without_the_file(refused: Refused, tmp_path: Path) -> None:
    assert "holds no mdn_rnn.safetensors; train it with examples/train_mdn_rnn.py on latents of this VAE" in refused(tmp_path)


def test_a_model_of_another_vae(refused: Refused, write_rnn: WriteRnn) -> None:
    assert "knows the latents of another VAE, 00000000000" in refused(write_rnn(about={"vae_sha256": "0" * 64}))


def test_other_actions(refused: Refused, write_rnn: WriteRnn) -> None:
    space = {"type": "Discrete", "dtype": "int64", "n": 3, "start": 0}
    assert "knows other actions; expected" in refused(write_rnn(about={"action_space": space}))


def test_another_number_of_latents(refused: Refused, write_rnn: WriteRnn) -> None:
    assert "'head.bias' does not fit; expected [74], got (47,)" in refused(write_rnn(latent_dim=5))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 100])
def test_a_damaged_file(refused: Refused, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mdn_rnn.safetensors").write_bytes(content)
    assert "mdn_rnn.safetensors: is no MDN-RNN (" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("head.bias"), "head.bias' does not fit; expected ["),
        (
            lambda tensors: tensors.update(more=np.zeros(1, np.float32)),
            "'more' does not fit; expected no such tensor, got (1,)",
        ),
        (lambda tensors: tensors["z_std"].fill(np.nan), "z_std is NaN or infinite"),
        (lambda tensors: tensors.pop("z_mean"), "is no MDN-RNN (KeyError: 'z_mean')"),
    ],
)
def test_tensors_that_are_not_those_of_the_example(
    refused: Refused, write_rnn: WriteRnn, change: Callable[[dict[str, np.ndarray]], object], message: str
) -> None:
    folder = write_rnn()
    file = folder / "mdn_rnn.safetensors"
    with safetensors.safe_open(file, "np") as opened:
        about = opened.metadata()
    tensors = {name: values.copy() for name, values in safetensors.numpy.load(file.read_bytes()).items()}
    change(tensors)
    file.write_bytes(safetensors.numpy.save(tensors, about))
    assert message in refused(folder)


def test_sizes_come_from_the_tensors(write_rnn: WriteRnn, stamp_vae: Path, stamp_rollouts: Path) -> None:
    actions = open_dataset(stamp_rollouts).schema.actions
    model = read_mdn_rnn(write_rnn(), vae_sha256=describe(stamp_vae).sha256, latent_dim=8, actions=actions)
    assert (model.hidden, model.mixtures) == (HIDDEN, MIXTURES)
    weights = Weights()
    places = model.for_page(weights)["tensors"]
    assert places["lstm.weight_hh_l0"]["shape"] == [HIDDEN, 4 * HIDDEN]
    assert len(weights.rounded("float32")) == sum(values.size for values in model.tensors.values())


def test_the_limits_are_those_of_the_example() -> None:
    example = imported(EXAMPLE, "train_mdn_rnn")
    assert (dream.MIN_LOG_SIGMA, dream.MAX_LOG_SIGMA) == (example.MIN_LOG_SIGMA, example.MAX_LOG_SIGMA)
    assert dream.WEIGHTS_NAME == example.WEIGHTS
