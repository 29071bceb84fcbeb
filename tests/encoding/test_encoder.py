"""Shards under way: what is ahead of what, what an error or an early end leaves behind, and one size of batch to compile."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import digests, made_latent_schema, made_rollout_schema
from worldmodel_v.autoencoders.artifact import read_weights
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, load_vae
from worldmodel_v.encoding import EncodeConfig, encode, encode_frames, encoder
from worldmodel_v.encoding.encoder import SHARDS_UNDER_WAY, EncoderSettings, ShardEncoder, Source
from worldmodel_v.encoding.inference import inference_encoder
from worldmodel_v.errors import ConfigError, ShardDamaged
from worldmodel_v.storage import Shard, open_dataset, verify

CPU = torch.device("cpu")


def settings(small_vae: Path, **changes: object) -> EncoderSettings:
    of_latents = {"spec_hash": "a" * 64, "vae_sha256": "b" * 64}
    schemas = {"schema": made_latent_schema(3), "source_schema": made_rollout_schema()}
    computing = {"autoencoder": None, "device": "cpu", "precision": "fp32", "compile": False, "batch_size": None}
    return EncoderSettings(weights=read_weights(small_vae), **{**of_latents, **schemas, **computing, **changes})


def sources(rollouts: Path, taken: list[int]) -> Iterator[Source]:
    """The shards, noting the number of each that is taken."""
    dataset = open_dataset(rollouts)
    for entry in dataset.entries:
        taken.append(entry.shard)
        yield Source(entry, dataset.open_shard(entry))


def encode_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(("encode", "open"))]


def test_shards_come_in_order_and_a_bounded_number_is_taken_ahead(unequal: Path, small_vae: Path) -> None:
    taken: list[int] = []
    with ShardEncoder(settings(small_vae)) as shards:
        for number, (entry, _) in enumerate(shards.encode(sources(unequal, taken))):
            assert entry.shard == number
            under_way = number + SHARDS_UNDER_WAY
            assert min(under_way, 6) <= len(taken) <= min(under_way + 1, 6)
        assert number == 5
    assert encode_threads() == []


def test_stopping_early_leaves_no_thread_and_no_open_shard(unequal: Path, small_vae: Path) -> None:
    opened: list[Source] = []

    def noted() -> Iterator[Source]:
        for source in sources(unequal, []):
            opened.append(source)
            yield source

    with ShardEncoder(settings(small_vae)) as shards:
        latents = shards.encode(noted())
        next(latents)
        latents.close()
    assert encode_threads() == []
    assert SHARDS_UNDER_WAY <= len(opened) <= SHARDS_UNDER_WAY + 1
    assert {source.shard._file._descriptor for source in opened} == {-1}


def test_damage_that_a_thread_finds_is_the_houses_error_and_what_came_before_stays(
    unequal: Path,
    small_vae: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Shard.stored

    def damaged(self: Shard, name: str, number: int) -> bytes:
        stored = real(self, name, number)
        return stored[:-1] + bytes([stored[-1] ^ 1]) if "000003" in self.source and (name, number) == ("pixels", 2) else stored

    out = tmp_path / "latents"
    with monkeypatch.context() as patch:
        patch.setattr(Shard, "stored", damaged)
        with pytest.raises(ShardDamaged, match=r"000003.h5: pixel chunk 2 \(rows from 128\) fails its checksum"):
            encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu"))
    assert [entry.shard for entry in open_dataset(out).entries] == [0, 1, 2]
    assert verify(open_dataset(out)) == []
    assert encode_threads() == []
    encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu"))
    assert digests(out) == digests(alone)


def test_a_shard_that_cannot_be_opened_loses_none_before_it(
    unequal: Path,
    small_vae: Path,
    tmp_path: Path,
) -> None:
    rollouts = shutil.copytree(unequal, tmp_path / "rollouts")
    damaged = rollouts / "shards" / "000003.h5"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ShardDamaged, match=r"000003.h5: "):
        encode(EncodeConfig(data=rollouts, vae=small_vae, out=tmp_path / "latents", device="cpu"))
    assert [entry.shard for entry in open_dataset(tmp_path / "latents").entries] == [0, 1, 2]
    assert encode_threads() == []


def test_ctrl_c_keeps_what_is_committed_and_the_same_command_continues(
    unequal: Path,
    small_vae: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "latents"
    real = ShardEncoder._finish

    def interrupted(self: ShardEncoder, shard: encoder._UnderWay) -> tuple:
        if shard.source.entry.shard == 2:
            raise KeyboardInterrupt
        return real(self, shard)

    with monkeypatch.context() as patch:
        patch.setattr(ShardEncoder, "_finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu"))
    assert [entry.shard for entry in open_dataset(out).entries] == [0, 1]
    assert encode_threads() == []
    encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu"))
    assert digests(out) == digests(alone)


def test_a_batch_that_does_not_fit_in_memory_is_the_options_fault(
    unequal: Path,
    small_vae: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder, "inference_encoder", lambda *_, **__: too_large)
    with pytest.raises(ConfigError, match="batch_size=64: does not fit in the memory of cpu; lower it"):
        encode(EncodeConfig(data=unequal, vae=small_vae, out=tmp_path / "latents", device="cpu"))


@pytest.mark.parametrize("batch_size", [10**14, 10**18])
def test_frames_for_which_there_is_no_memory_are_the_options_fault(
    unequal: Path,
    small_vae: Path,
    batch_size: int,
) -> None:
    with ShardEncoder(settings(small_vae, batch_size=batch_size)) as shards:
        latents = shards.encode(sources(unequal, []))
        with pytest.raises(ConfigError, match=f"batch_size={batch_size}: does not fit in the memory of cpu; lower it"):
            next(latents)


@pytest.mark.parametrize("architecture", ["resnet", "conv", "ha2018", "mlp"])
def test_fp32_is_exact_and_bf16_is_near_for_every_architecture(architecture: str) -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(architecture=architecture, latent_dim=4)).eval()
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255
    with torch.no_grad():
        mu = model.double().to_posterior(model.encoder(x).flatten(1)).chunk(2, dim=1)[0]
    model.float()
    fp32, bf16 = (encode_frames(model, frames, CPU, precision) for precision in ("fp32", "bf16"))
    assert fp32["mu"].dtype == bf16["mu"].dtype == torch.float32
    np.testing.assert_allclose(fp32["mu"], mu, atol=2e-6)
    error = (bf16["mu"] - mu).abs().max()
    assert 1e-6 < error < 0.02
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler, about itself
def test_compiled_latents_are_the_same_but_for_rounding_and_compiled_once(
    unequal: Path,
    small_vae: Path,
    alone: Path,
    tmp_path: Path,
) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    encode(EncodeConfig(data=unequal, vae=small_vae, out=tmp_path / "latents", device="cpu", compile=True))
    assert counters["stats"]["unique_graphs"] == 2  # the trial of the compiler, and the encoder
    for episode_id in range(open_dataset(alone).num_episodes):
        compiled, eager = (open_dataset(path).episode(episode_id) for path in (tmp_path / "latents", alone))
        np.testing.assert_allclose(compiled.mu, eager.mu, atol=1e-6)


def test_a_missing_compiler_is_said_before_anything_is_encoded(
    unequal: Path,
    small_vae: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_compiler(_: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda _: no_compiler)
    with pytest.raises(ConfigError, match=r"compile=True: PyTorch cannot compile for cpu here .*; install a C\+\+ compiler"):
        encode(EncodeConfig(data=unequal, vae=small_vae, out=tmp_path / "latents", device="cpu", compile=True))
    assert open_dataset(tmp_path / "latents").entries == ()


def test_the_encoder_of_a_vae_leaves_its_weights_alone(small_vae: Path) -> None:
    model = load_vae(small_vae).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inference_encoder(model, CPU, "bf16")(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
