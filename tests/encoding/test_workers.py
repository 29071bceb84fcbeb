"""Ray workers that encode: lost ones, more of them than shards, shards of unequal size."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import digests
from tests.encoding.conftest import NUM_STEPS
from worldmodel_v.encoding import EncodeConfig, encode, stage
from worldmodel_v.encoding.encoder import EncoderSettings, EncodeTask, shard_encoder
from worldmodel_v.storage import open_dataset, verify


def test_shards_of_unequal_size_keep_their_rows(unequal: Path, alone: Path) -> None:
    found = [entry.num_rows for entry in open_dataset(alone).entries]
    assert found == [sum(steps + 1 for steps in lengths) for lengths in NUM_STEPS]
    assert found == [entry.num_rows for entry in open_dataset(unequal).entries]


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_bytes_whatever_the_shards(
    unequal: Path, small_vae: Path, alone: Path, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "latents"
    assert encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu", workers=workers)).new_rows == 472
    assert digests(out) == digests(alone)


@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_shards_are_not_started(unequal: Path, small_vae: Path, alone: Path, tmp_path: Path) -> None:
    """Three are asked of a cluster of two CPUs, for the two shards that are missing."""
    out, spec = tmp_path / "latents", open_dataset(alone)
    encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu"))
    lines = (out / "index.jsonl").read_text().splitlines(keepends=True)
    (out / "index.jsonl").write_text("".join(lines[:4]))
    for number in (4, 5):
        (out / "shards" / f"{number:06d}.h5").unlink()
    report = encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu", workers=3))
    assert report.new_rows == sum(entry.num_rows for entry in spec.entries[4:])
    assert digests(out) == digests(alone)


class Deadly:
    """An encoder whose first worker kills itself with SIGKILL in the middle of its work on shard 3."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __call__(self, settings: EncoderSettings) -> Callable[[EncodeTask], bytes]:
        encode_shard = shard_encoder(settings)

        def run(task: EncodeTask) -> bytes:
            image = encode_shard(task)
            if task.entry.shard == 3 and not self._marker.exists():
                self._marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return image

        return run


@pytest.mark.usefixtures("local_ray")
def test_a_worker_killed_with_sigkill_costs_its_shard_only(
    unequal: Path, small_vae: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, out = tmp_path / "killed", tmp_path / "latents"
    monkeypatch.setattr(stage, "shard_encoder", Deadly(marker))
    report = encode(EncodeConfig(data=unequal, vae=small_vae, out=out, device="cpu", workers=2))
    assert marker.exists()
    assert report.new_rows == 472
    assert verify(open_dataset(out)) == []
    assert digests(out) == digests(alone)
