"""Weights and checkpoints that a stranger made: no code runs, and no more memory is taken than the file backs."""

import hashlib
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tests.hostile.fuzz import SMALL, _checkpoint, read_checkpoint
from tests.hostile.limits import run_limited
from worldmodel_v.autoencoders.artifact import from_bytes, metadata, save
from worldmodel_v.autoencoders.gaussian import VAE
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.errors import ModelNotUsable, PolicyNotUsable
from worldmodel_v.policies.checkpoint import CheckpointPolicy
from worldmodel_v.training.checkpoint import sealed, unseal

LOAD = """
from pathlib import Path
from worldmodel_v.autoencoders.gaussian import load_vae
for folder in sys.argv[1:]:
    try: what = repr(load_vae(Path(folder)).sha256)
    except Exception as error: what = f"{type(error).__name__}: {error}"
    with open("/proc/self/status") as status: peak = re.search(r"VmHWM:\\s+(\\d+)", status.read())[1]
    sys.stderr.write(f"{what} KB at most: {peak}\\n")
"""
"""Loads one VAE after another, and tells what came of it and how much memory was in use at most until then."""


class Runs:
    """What a pickle runs when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def network(_: object) -> torch.nn.Module:
    """A policy's network."""
    return torch.nn.Linear(2, 2)


def header_of(content: bytes) -> dict:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def with_header(content: bytes, header: dict | bytes) -> bytes:
    """A safetensors file with another header."""
    end = 8 + int.from_bytes(content[:8], "little")
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + content[end:]


def with_config(**changes: object) -> bytes:
    """A VAE's file whose configuration says something else, with the hash of what it says."""
    record = json.loads(header_of(save(VAE(SMALL)))["__metadata__"]["autoencoder"])
    return with_record(config={**record["config"], **changes})


def with_record(**changes: object) -> bytes:
    """A VAE's file that says something else of itself, with the hash of what it says."""
    content = save(VAE(SMALL))
    header = header_of(content)
    record = json.loads(header["__metadata__"]["autoencoder"]) | changes
    del record["sha256"]
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    header["__metadata__"]["autoencoder"] = json.dumps({**record, "sha256": digest})
    return with_header(content, header)


def edited(**tensor: object) -> bytes:
    """A VAE's file whose header says something else of one tensor."""
    content = save(VAE(SMALL))
    header = header_of(content)
    header["from_latent.bias"] |= tensor
    return with_header(content, header)


def hostile_files() -> dict[str, bytes]:
    """By what is wrong with them."""
    sound = save(VAE(SMALL))
    end = 8 + int.from_bytes(sound[:8], "little")
    offsets = header_of(sound)["from_latent.bias"]["data_offsets"]
    return {
        "nothing": b"",
        "a header of 2^60 bytes": struct.pack("<Q", 2**60) + sound[8:],
        "a header of 2^64 - 1 bytes": struct.pack("<Q", 2**64 - 1) + sound[8:],
        "a header that is longer than the file": struct.pack("<Q", len(sound)) + sound[8:],
        "a header of 20 MB": with_header(sound, sound[8:end] + b" " * (20 << 20)),
        "a deep header": with_header(sound, b"[" * 100_000),
        "a header that is a list": with_header(sound, b"[]"),
        "a header with a tensor twice": with_header(sound, b'{"x": {}, ' + sound[9:end]),
        "no metadata": with_header(sound, {k: v for k, v in header_of(sound).items() if k != "__metadata__"}),
        "metadata that are no texts": with_header(sound, {**header_of(sound), "__metadata__": {"autoencoder": {"a": 1}}}),
        "overlapping tensors": edited(data_offsets=[offsets[0] - 8, offsets[1] - 8]),
        "tensors beyond the end": edited(data_offsets=[2**50, 2**50 + offsets[1] - offsets[0]]),
        "a shape of 2^60": edited(shape=[2**60]),
        "a shape that overflows": edited(shape=[2**32, 2**32, 2]),
        "a negative shape": edited(shape=[-1]),
        "an unknown type": edited(dtype="OBJECT"),
        "another type": edited(dtype="I32"),
        "bytes as type": edited(dtype="F8_E4M3"),
        "a record that is no object": with_header(sound, {**header_of(sound), "__metadata__": {"autoencoder": "[5]"}}),
        "a deep record": with_header(sound, {**header_of(sound), "__metadata__": {"autoencoder": "[" * 100_000}}),
        "a configuration that is no object": with_record(config=[5]),
        "a kind that is no text": with_record(kind=["gaussian"]),
        "a kind that nobody knows": with_record(kind="vq"),
        "a kind of two lines": with_record(kind="os:\nsystem"),
        "a latent of 4096": with_config(latent_dim=4096),
        "a latent of many": with_config(latent_dim=10**15),
        "a latent that is a text": with_config(latent_dim="2"),
        "a latent that is true": with_config(latent_dim=True),
        "frames of 2^40": with_config(frame_height=2**40),
        "a condition of 10^9 values": with_config(condition=["x"], condition_dim=10**9),
        "a condition of numbers": with_config(condition=[1], condition_dim=1),
        "a condition that is a text": with_config(condition="xy", condition_dim=2),
        "an infinite sigma": with_config(sigma=float("inf")),
        "a sigma whose square overflows": with_config(sigma=1e300),
        "an architecture that is a list": with_config(architecture=["mlp"]),
        "an unknown field": with_config(__class__="os.system"),
        "a pickle": pickle.dumps({"a": 1}, protocol=2),
        "an archive": zip_of({"data.pkl": b"x"}),
    }


def zip_of(files: dict[str, bytes]) -> bytes:
    """A ZIP archive, such as torch.save writes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


FILES = hostile_files()


@pytest.mark.parametrize("what", FILES)
def test_a_hostile_vae_is_refused_by_name(what: str) -> None:
    with pytest.raises(ModelNotUsable) as caught:
        from_bytes(FILES[what], "vae")
    message = str(caught.value)
    assert message.startswith("vae: vae.safetensors is damaged or of another version (")
    assert message.endswith("; restore it, or train again")
    assert "\n" not in message
    assert len(message) < 600


def test_code_that_a_file_names_is_not_imported() -> None:
    """`antigravity` would be told by its import alone."""
    with pytest.raises(ModelNotUsable, match=r"its autoencoder is antigravity:geohash, which is no part of this package"):
        from_bytes(with_record(kind="antigravity:geohash"), "vae")
    assert "antigravity" not in sys.modules


def test_no_more_memory_is_taken_than_the_file_backs(tmp_path: Path) -> None:
    names = ["a condition of 10^9 values", "a latent of 4096", "a header of 2^60 bytes", "a shape of 2^60"]
    contents = [save(VAE(SMALL)), *(FILES[name] for name in names), b""]
    folders = [tmp_path / str(number) for number in range(len(contents))]
    for folder, content in zip(folders, contents, strict=True):
        folder.mkdir()
        (folder / "vae.safetensors").write_bytes(content)
    with (folders[-1] / "vae.safetensors").open("wb") as file:
        file.truncate(1 << 40)
    sound, *refused = run_limited(LOAD, *folders, memory_bytes=6 << 30).lines
    assert [line.split(":")[0] for line in refused] == ["ModelNotUsable"] * 5
    assert "it has 1099511627776 bytes, expected at most 4294967296); restore it, or train again" in refused[-1]
    assert max(_peak(line) for line in refused) < _peak(sound) + 50_000


def _peak(line: str) -> int:
    return int(line.rpartition(" KB at most: ")[2])


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ["vae.safetensors", "checkpoint.safetensors"])
def test_a_pickle_in_the_place_of_a_model_runs_nothing(tmp_path: Path, name: str, protocol: int) -> None:
    from worldmodel_v.inspection import describe

    (tmp_path / name).write_bytes(pickle.dumps(Runs(tmp_path / "ran"), protocol=protocol))
    with pytest.raises(ModelNotUsable, match="damaged"):
        describe(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["policy.pt", "policy.safetensors"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickle_in_the_place_of_a_policys_weights_runs_nothing(tmp_path: Path, name: str, wrapped: bool) -> None:
    if wrapped:
        torch.save({"weight": Runs(tmp_path / "ran")}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(Runs(tmp_path / "ran"), protocol=2))
    env = StampEnv()
    with pytest.raises(PolicyNotUsable, match=rf"{name} cannot be read as weights"):
        CheckpointPolicy(env, f"{__name__}:network:{name}", tmp_path)
    assert not (tmp_path / "ran").exists()


# Checkpoints whose hash is right


def resealed(changes: dict[str, torch.Tensor | None] | None = None, **notes: str) -> bytes:
    """A checkpoint with other tensors (None: without it) or notes, and the hash that is right for them."""
    tensors, found = unseal(_checkpoint())
    tensors |= {name: tensor for name, tensor in (changes or {}).items() if tensor is not None}
    for name in [name for name, tensor in (changes or {}).items() if tensor is None]:
        del tensors[name]
    return sealed(tensors, found | notes)


MOMENT = "optimizer.0.exp_avg"
CHECKPOINTS = {
    "no step": lambda: resealed(step=""),
    "a negative step": lambda: resealed(step="-1"),
    "a step of many digits": lambda: resealed(step="9" * 5000),
    "a step in other digits": lambda: resealed(step="٣"),
    "deep settings": lambda: resealed(settings="[" * 100_000),
    "settings that are a list": lambda: resealed(settings="[]"),
    "a moment too few": lambda: resealed({MOMENT: None}),
    "a moment of another shape": lambda: resealed({MOMENT: torch.zeros(3)}),
    "a moment that is a number": lambda: resealed({MOMENT: torch.zeros(())}),
    "a moment of no parameter": lambda: resealed({"optimizer.99.exp_avg": torch.zeros(())}),
    "a moment of a negative parameter": lambda: resealed({"optimizer.-1.step": torch.zeros(())}),
    "an unknown moment": lambda: resealed({"optimizer.0.more": torch.zeros(400, 192)}),
    "a moment without a name": lambda: resealed({"optimizer.": torch.zeros(())}),
    "a weight of another shape": lambda: resealed({"model.from_latent.bias": torch.zeros(3)}),
    "a weight too few": lambda: resealed({"model.from_latent.bias": None}),
    "a pickle": lambda: pickle.dumps({"step": 1}),
}


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused_by_name(what: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotUsable) as caught:
        read_checkpoint(CHECKPOINTS[what](), tmp_path)
    assert "restore it from a copy, or train anew with resume=False" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_sound_checkpoint_is_taken(tmp_path: Path) -> None:
    read_checkpoint(resealed(), tmp_path)
    assert metadata(resealed())["step"] == "1"
