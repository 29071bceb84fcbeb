"""What PyTorch's defaults are in the caller's program changes no result of this package, and they stay as they were."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.builders import digests
from tests.conftest import stamp_config
from worldmodel_v import Encoder, LatentSequences, LatentStream, load_vae, open_dataset
from worldmodel_v.collection import collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.encoding.ray_data import EncodeBatch
from worldmodel_v.evaluation import EvalConfig, evaluate, evaluate_frames, reconstruction_grid, sample_grid
from worldmodel_v.inspection import describe
from worldmodel_v.process import plain_tensors
from worldmodel_v.training import TrainConfig, train

OTHERS: dict[str, tuple[torch.dtype, str | None, Callable[[], AbstractContextManager[object]]]] = {
    "float64 and meta": (torch.float64, "meta", nullcontext),
    "bfloat16": (torch.bfloat16, None, nullcontext),
    "autocast": (torch.float32, None, lambda: torch.autocast("cpu", torch.bfloat16)),
    "no gradients": (torch.float32, None, torch.no_grad),
    "inference and fast products": (torch.float32, None, lambda: fast_products_for_inference()),
}
SETTINGS = {"batch_size": 16, "latent_dim": 8, "holdout_every": 4, "device": "cpu"}


@contextmanager
def fast_products_for_inference() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.inference_mode():
            yield
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.fixture(params=OTHERS)
def under_others(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    """Calls something under other defaults, which must still be there when it returns."""
    dtype, device, block = OTHERS[request.param]

    def call(work: Callable[[], Any]) -> Any:
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        try:
            with block():
                modes = modes_of_torch()
                result = work()
                assert modes_of_torch() == modes
            assert torch.get_default_dtype() is dtype
            assert torch.empty(0).device == torch.device(device or "cpu")
            return result
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)

    return call


def modes_of_torch() -> tuple[object, ...]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")


Under = Callable[[Callable[[], Any]], Any]
Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """The folder of that name, in which something is made under PyTorch's own defaults when it is first asked for."""
    folder = tmp_path_factory.mktemp("plain")

    def made(name: str, make: Callable[[Path], object]) -> Path:
        if not (folder / name).exists():
            make(folder / name)
        return folder / name

    return made


def require_same(found: Any, expected: Any) -> None:
    """Tensors and arrays in the same dtype, on the same device, with the same values; dictionaries of them, and all else."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            require_same(found[name], value)
    elif isinstance(expected, torch.Tensor):
        assert (found.dtype, found.device) == (expected.dtype, expected.device)
        assert torch.equal(found, expected)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def require_same_training(found: Path, expected: Path) -> None:
    for name in ("vae.safetensors", "heldout.json", "reconstructions.png"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    states = (safetensors.torch.load_file(folder / "checkpoint.safetensors") for folder in (found, expected))
    require_same(*states)


def test_a_training_that_is_interrupted_and_continued(
    under_others: Under, once: Once, stamp_rollouts: Path, tmp_path: Path
) -> None:
    plain = once("training", lambda out: train(TrainConfig(data=stamp_rollouts, out=out, steps=3, **SETTINGS)))
    other = tmp_path / "other"
    for steps in (2, 3):
        under_others(lambda steps=steps: train(TrainConfig(data=stamp_rollouts, out=other, steps=steps, **SETTINGS)))
    require_same_training(other, plain)


@pytest.mark.parametrize("estimator", ["sampling", "discriminator"])
def test_a_training_for_independent_latents(
    under_others: Under, once: Once, stamp_rollouts: Path, tmp_path: Path, estimator: str
) -> None:
    losses = {"total_correlation": 2.0, "total_correlation_estimator": estimator, "architecture": "conv", **SETTINGS}
    plain = once(estimator, lambda out: train(TrainConfig(data=stamp_rollouts, out=out, steps=1, **losses)))
    under_others(lambda: train(TrainConfig(data=stamp_rollouts, out=tmp_path / "other", steps=1, **losses)))
    require_same_training(tmp_path / "other", plain)


def test_a_grey_conditional_training(under_others: Under, once: Once, stamp_rollouts: Path, tmp_path: Path) -> None:
    grey = {"steps": 1, "channels": 1, "condition": ("action",), "likelihood": "gaussian", **SETTINGS}
    plain = once("grey", lambda out: train(TrainConfig(data=stamp_rollouts, out=out, **grey)))
    under_others(lambda: train(TrainConfig(data=stamp_rollouts, out=tmp_path / "other", **grey)))
    require_same_training(tmp_path / "other", plain)


def test_encoding(under_others: Under, stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path) -> None:
    under_others(lambda: encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=tmp_path / "out", device="cpu")))
    assert digests(tmp_path / "out") == digests(stamp_latents)


@pytest.mark.usefixtures("short_search")
def test_evaluating(under_others: Under, once: Once, stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path) -> None:
    def evaluated(out: Path) -> None:
        evaluate(EvalConfig(vae=stamp_vae, data=stamp_rollouts, out=out, device="cpu", frames=40))

    folder = once("evaluation", evaluated)
    under_others(lambda: evaluated(tmp_path / "other"))
    plain, other = (sorted(each.glob("*.[jp]*")) for each in (folder, tmp_path / "other"))
    assert [file.name for file in other] == [file.name for file in plain]
    assert all(first.read_bytes() == second.read_bytes() for first, second in zip(plain, other, strict=True))


def test_a_vae_from_its_directory(under_others: Under, stamp_rollouts: Path, stamp_vae: Path) -> None:
    frames = open_dataset(stamp_rollouts).episode(0).pixels

    def work() -> dict[str, Any]:
        vae, device = load_vae(stamp_vae).model, torch.device("cpu")
        return {
            "weights": dict(vae.state_dict()),
            "figures": evaluate_frames(vae, frames, device),
            "reconstructions": reconstruction_grid(vae, frames[:3], device),
            "samples": sample_grid(vae, rows=1, columns=2, seed=3),
            "description": repr(describe(stamp_vae)),
        }

    require_same(under_others(work), work())


def test_encoders_in_memory(under_others: Under, stamp_rollouts: Path, stamp_vae: Path) -> None:
    frames = open_dataset(stamp_rollouts).episode(0).pixels

    def work() -> dict[str, Any]:
        encoder = Encoder.load(stamp_vae)
        return {
            "one": dict(encoder(frames[0]).columns),
            "many": dict(encoder(frames).columns),
            "for batches": dict(Encoder.load(stamp_vae, for_batches=True)(frames).columns),
            "Ray Data": EncodeBatch(stamp_vae, device="cpu")({"pixels": frames}),
        }

    require_same(under_others(work), work())


@pytest.mark.parametrize("sample", [True, False])
def test_windows(under_others: Under, stamp_latents: Path, sample: bool) -> None:
    def work() -> dict[str, Any]:
        sequences = LatentSequences(stamp_latents, length=5, pad=True, sample=sample)
        stream = LatentStream(stamp_latents, length=5, sample=sample)
        return {
            "item": sequences[3],
            "drawn": sequences.sample_batch(4),
            "shuffled": dict(enumerate(sequences.batches(8))),
            "streamed": dict(enumerate(stream.batches(8))),
            "passed": next(iter(stream)),
            "whole": LatentSequences(stamp_latents, length=None).batch(np.arange(3)),
        }

    require_same(under_others(work), work())


def test_collecting_with_weights(under_others: Under, tmp_path: Path) -> None:
    torch.save({"factor": torch.tensor([0.3, -0.7])}, tmp_path / "w.pt")
    policy = f"checkpoint:tests.policies.test_drivers:Reddest:{tmp_path}/w.pt"
    collect(stamp_config(tmp_path / "plain", policy=policy, episodes=1))
    under_others(lambda: collect(stamp_config(tmp_path / "other", policy=policy, episodes=1)))
    assert digests(tmp_path / "other") == digests(tmp_path / "plain")


@pytest.fixture
def device_of_a_block() -> Iterator[None]:
    with torch.device("meta"):
        yield


@pytest.mark.usefixtures("device_of_a_block")
def test_defaults_come_back_after_an_error_and_in_a_block_of_a_device() -> None:
    def fail() -> None:
        with plain_tensors():
            assert torch.zeros(1).device.type == "cpu"
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        fail()
    assert torch.zeros(1).device.type == "meta"


def test_products_whose_precision_was_set_for_one_backend(stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path) -> None:
    frames = open_dataset(stamp_rollouts).episode(0).pixels
    backends = [getattr(torch.backends, name).matmul for name in ("cuda", "mkldnn")]
    before = [each.fp32_precision for each in backends]
    collect(stamp_config(tmp_path / "plain", episodes=1))
    expected = Encoder.load(stamp_vae)(frames[0]).mu
    assert [each.fp32_precision for each in backends] == before
    for each, asked in zip(backends, ("tf32", "bf16"), strict=True):
        each.fp32_precision = asked
    try:
        collect(stamp_config(tmp_path / "other", episodes=1))
        np.testing.assert_array_equal(Encoder.load(stamp_vae)(frames[0]).mu, expected)
        with plain_tensors():
            assert [each.fp32_precision for each in backends] == ["ieee", "ieee"]
        assert [each.fp32_precision for each in backends] == ["tf32", "bf16"]
    finally:
        torch.set_float32_matmul_precision("highest")
    assert digests(tmp_path / "other") == digests(tmp_path / "plain")
