"""In a notebook: bars below the cell, short texts for objects, and an interrupted cell keeps what is committed."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import stamp_config
from worldmodel_v import Encoder, FrameStream, LatentSequences, LatentStream, collect, load_vae, open_dataset
from worldmodel_v.notebook import shown
from worldmodel_v.progress import Silent
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import Shard


def test_a_script_stays_silent() -> None:
    assert isinstance(shown(None), Silent)


def test_a_progress_of_ones_own_is_used() -> None:
    own = Silent()
    assert shown(own) is own


def test_objects_say_in_a_line_what_they_are(stamp_latents: Path, stamp_vae: Path, tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "data", episodes=2))
    dataset = open_dataset(tmp_path / "data", RolloutSpec)
    assert repr(dataset) == f"Dataset('{tmp_path}/data': rollouts, 2 episodes, {dataset.num_rows} rows)"
    stream = FrameStream(dataset, lambda episode: True, batch_size=4, seed=0)
    assert repr(stream) == f"FrameStream('{tmp_path}/data': {dataset.num_rows} frames, in batches of 4)"
    for kind in (LatentSequences, LatentStream):
        windows = kind(stamp_latents, length=2)
        number = len(windows) if isinstance(windows, LatentSequences) else windows.num_windows
        assert repr(windows) == f"{kind.__name__}('{stamp_latents}': {number} windows of 2 transitions)"
    assert repr(Encoder.load(stamp_vae)).startswith(f"Encoder('{stamp_vae}': gaussian, frames of ")
    assert repr(load_vae(stamp_vae)).startswith("Trained(VAEConfig(")


def test_a_dataset_is_a_table_and_a_picture_of_a_few_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(stamp_config(tmp_path / "data", episodes=10, episodes_per_shard=1))
    dataset = open_dataset(tmp_path / "data")
    read: list[int] = []
    rows = Shard.rows
    with monkeypatch.context() as patch:
        patch.setattr(
            Shard, "rows", lambda shard, name, start, stop: read.append(stop - start) or rows(shard, name, start, stop)
        )
        text = dataset._repr_html_()
    assert read == [1] * 8
    assert "<td>worldmodel_v/Stamp-v0</td>" in text
    picture = Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2].partition('"')[0])))
    width = min(dataset.schema.by_role("observation")[0].row_shape[1], 96)
    assert picture.size[0] == 8 * width + 7 * 2


def test_a_vae_is_a_table_and_a_picture_of_what_it_samples(stamp_vae: Path) -> None:
    trained = load_vae(stamp_vae)
    text = trained._repr_html_()
    assert f"<td>{trained.sha256}</td>" in text
    assert "<td>worldmodel_v/Stamp-v0</td>" in text
    picture = Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2].partition('"')[0])))
    height, width = trained.model.config.frame_shape
    assert picture.size == (8 * width + 7 * 2, height)


def test_latents_are_a_table_and_a_picture_of_an_episode(stamp_latents: Path) -> None:
    dataset = open_dataset(stamp_latents)
    text = dataset._repr_html_()
    picture = Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2].partition('"')[0])))
    mu = dataset[0].mu
    assert (picture.mode, picture.size) == ("L", (4 * len(mu), 4 * 8))
    grey = np.array(picture)[::4, ::4].T
    assert np.unravel_index(grey.argmax(), grey.shape) == np.unravel_index(mu.argmax(), mu.shape)
    assert np.unravel_index(grey.argmin(), grey.shape) in zip(*np.nonzero(mu < mu.min() + np.ptp(mu) / 255), strict=True)


def test_a_strangers_text_is_escaped_and_a_missing_shard_named(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "<b>data", episodes=1))
    dataset = open_dataset(tmp_path / "<b>data")
    dataset.shard_path(dataset.entries[0]).unlink()
    text = dataset._repr_html_()
    assert "<b>" not in text
    assert "&lt;b&gt;data" in text
    assert "<img" not in text
    assert text.endswith("</p>")


KERNEL = """
import json, sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")

def run(cell, interrupt_at=None):
    shown, error = [], None
    request = client.execute(cell)
    while True:
        message = client.get_iopub_msg(timeout=120)
        if message["parent_header"].get("msg_id") != request:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind in ("display_data", "update_display_data", "execute_result"):
            shown.append(content["data"]["text/plain"])
        if kind == "error":
            error = content["ename"]
        if interrupt_at and shown and interrupt_at in shown[-1]:
            manager.interrupt_kernel()
            interrupt_at = None
        if kind == "status" and content["execution_state"] == "idle":
            return shown, error

BEGIN = '''
from worldmodel_v import CollectConfig, collect, open_dataset
def config(episodes, length=20):
    return CollectConfig(out=OUT, env="worldmodel_v/Stamp-v0", env_kwargs={"length": length},
                         frame_size=8, episodes=episodes, episodes_per_shard=1, workers=0)
'''
try:
    run(f"import sys; OUT = {sys.argv[1]!r}")
    run(BEGIN)
    done = run("collect(config(3))")
    cut = run("collect(config(100_000))", interrupt_at="/100000 episodes")
    kept = run("open_dataset(OUT)")
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
print(json.dumps([done, cut, kept]))
"""


@pytest.mark.slow
def test_a_cell_shows_bars_and_can_be_interrupted(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [sys.executable, "-c", KERNEL, str(tmp_path / "data")]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr
    (bars, failed), (_, interrupted), (kept, _) = json.loads(ran.stdout.splitlines()[-1])
    assert failed is None
    assert any(line.startswith("collect ░░░") and " 0/3 episodes" in line for line in bars), bars
    assert any("███ 3/3 episodes" in line for line in bars), bars
    assert interrupted == "KeyboardInterrupt"
    (text,) = kept
    assert text.startswith(f"Dataset('{tmp_path}/data': rollouts, ")
    assert 3 <= int(text.split(" episodes")[0].rpartition(" ")[2]) < 100_000
