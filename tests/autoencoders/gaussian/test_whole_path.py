"""A map of latents and two levels of them from the commands' end: rollouts in; latents, windows, a report and exports out."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import commands
from tests.autoencoders.whole_path import LOOP, options, run
from worldmodel_v import Encoder, load_vae, open_dataset
from worldmodel_v.data import LatentSequences, LatentStream
from worldmodel_v.training import train, train_config

SMALL: dict[str, dict[str, Any]] = {
    "spatial": {"latent_grid": 2, "latent_channels": 3},
    "ladder": {"top_dim": 3, "bottom_dim": 5},
}
SHAPES = {"spatial": (2, 3, 3), "ladder": (8,)}
"""Of mu and logvar, for frames of 16x24."""


@pytest.fixture(scope="module", params=SMALL)
def work(request: pytest.FixtureRequest, rollouts: Path) -> tuple[str, Path]:
    """The name of an autoencoder, and a folder in which it was trained and has encoded."""
    kind, folder = request.param, rollouts.parent / request.param
    folder.mkdir()
    train_words = options(LOOP | SMALL[kind] | {"steps": 12, "beta_warmup_steps": 4, "publish": "best"})
    run(folder, "wm-train", "--autoencoder", kind, "--data", rollouts, "--out", "vae", *train_words)
    run(folder, "wm-encode", "--data", rollouts, "--vae", "vae", "--out", "latents", "--device", "cpu")
    return kind, folder


def test_training_records_its_own_figures(work: tuple[str, Path]) -> None:
    kind, folder = work
    lines = [json.loads(line) for line in (folder / "vae" / "metrics.jsonl").read_text().splitlines()]
    steps, heldout, health = (
        [line for line in lines if line["group"] == group and wanted in line]
        for group, wanted in (("train", "loss"), ("held-out", "elbo_nats"), ("health", "kl_per_latent"))
    )
    assert [line["step"] for line in heldout] == [4, 8, 12]
    for line, beside in zip(heldout, health, strict=True):
        assert line["latent_dim"] == len(beside["kl_per_latent"]) == np.prod(SHAPES[kind])
        parts = beside["kl_per_channel"] if kind == "spatial" else [line["kl_top_nats"], line["kl_bottom_nats"]]
        assert sum(parts) == pytest.approx(line["kl_nats"])
    if kind == "ladder":
        assert all(line["kl_top"] + line["kl_bottom"] == pytest.approx(line["kl"], rel=1e-4) for line in steps)
    best = max(heldout, key=lambda line: line["elbo_nats"])
    assert json.loads((folder / "vae" / "heldout.json").read_text())["weights_of_step"] == best["step"]


def test_a_training_that_is_continued_is_the_one_that_was_not(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    config = train_config(kind)
    for steps in (3, 6):
        train(config(data=rollouts, out=folder / "resumed", steps=steps, **LOOP, **SMALL[kind]))
    for name, settings in {"straight": {}, "recomputed": {"checkpoint_activations": True}}.items():
        train(config(data=rollouts, out=folder / name, steps=6, **LOOP, **SMALL[kind], **settings))
    resumed, straight, recomputed = (
        (folder / name / "vae.safetensors").read_bytes() for name in ("resumed", "straight", "recomputed")
    )
    assert resumed == straight == recomputed


def test_windows_draw_z_of_the_columns_shape(work: tuple[str, Path]) -> None:
    kind, folder = work
    sequences = LatentSequences(folder / "latents", length=4)
    mean = LatentSequences(folder / "latents", length=4, sample=False).batch(np.arange(3))
    batches = [sequences.batch(np.arange(3)), next(iter(LatentStream(folder / "latents", length=4).batches(3)))]
    for batch in batches:
        assert batch["z"].shape == batch["next_z"].shape == (3, 4, *SHAPES[kind])
        assert batch["z"].dtype == torch.float32
    mu = open_dataset(folder / "latents").episode(0).mu
    assert np.array_equal(mean["z"][0], mu[:4])
    assert np.array_equal(mean["next_z"][0], mu[1:5])
    assert not torch.equal(batches[0]["z"], mean["z"])


def test_the_controllers_encoder_gives_the_recorded_latents(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    encoder = Encoder.load(folder / "vae")
    frames, latents = (open_dataset(path).episode(2) for path in (rollouts, folder / "latents"))
    found = encoder(frames.pixels, preprocessed=True)
    np.testing.assert_allclose(found.mu, latents.mu, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.logvar, latents.logvar, rtol=1e-3, atol=1e-4)
    assert found.sample(np.random.default_rng(0)).shape == latents.mu.shape
    assert encoder.latent_shapes == {"mu": SHAPES[kind], "logvar": SHAPES[kind]}


def test_evaluation_says_what_it_says_of_a_vae(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    output = run(folder, "wm-eval", "--vae", "vae", "--data", rollouts, "--out", "eval", "--device", "cpu")
    metrics = json.loads((folder / "eval" / "metrics.json").read_text())
    assert metrics["autoencoder"] == kind
    assert metrics["summary"]["latent_dim"] == np.prod(SHAPES[kind])
    assert metrics["summary"]["kl_nats"] == pytest.approx(metrics["heldout"]["kl_nats"])
    assert metrics["bound"]["elbo_nats"] == pytest.approx(metrics["heldout"]["elbo_nats"])
    assert metrics["sizes"] == {name: SMALL[kind][name] for name in metrics["sizes"]}
    assert {"prior", "fitted_prior", "interpolations", "traversals", "inpainting"} <= {
        path.stem for path in (folder / "eval").glob("*.png")
    }
    page = re.sub(r"base64,[^\"]*", "", (folder / "eval" / "report.html").read_text())
    own = {"spatial": "Dead channels", "ladder": "KL top"}[kind]
    assert "active units" in output
    assert own in page
    assert "latent_dim" not in page.partition("What this page speaks of")[0]


def test_inspection_and_exports(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    model = json.loads(run(folder, "wm-inspect", "vae", "--json"))
    assert model["latents"] == {name: f"float32 {list(SHAPES[kind])}" for name in ("mu", "logvar")}
    dataset = open_dataset(folder / "latents")
    run(folder, "wm-export", "npz", "--data", "latents", "--out", "npz")
    with np.load(folder / "npz" / "000002.npz") as episode:
        assert np.array_equal(episode["mu"], dataset.episode(2).mu)
    if kind == "spatial":
        said = run(folder, "wm-export", "hardmaru", "--data", "latents", "--out", "hardmaru", code=2)
        assert "holds the latents mu and logvar as vectors, in latents they are maps of [2, 3, 3]; wm-export npz" in said
        assert not (folder / "hardmaru").exists()
    else:
        run(folder, "wm-export", "hardmaru", "--data", "latents", "--out", "hardmaru", "--truncate")
        assert (folder / "hardmaru" / "series.npz").exists()


def test_the_exported_encoder_gives_the_columns_and_the_decoder_takes_them(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    run(folder, "wm-export", "model", "--vae", "vae", "--data", rollouts, "--out", "model", "--formats", "onnx")
    described = json.loads((folder / "model" / "model.json").read_text())
    shape = ["batch", *SHAPES[kind]]
    assert [each["shape"] for each in described["encoder"]["outputs"]] == [shape, shape]
    assert described["decoder"]["inputs"][0]["shape"] == shape
    assert load_vae(folder / "vae").model.kind == kind


def test_what_makes_no_sense_for_it_is_refused(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    train_words = ("--autoencoder", kind, "--data", rollouts, "--out", "refused", "--holdout-every", 4, "--device", "cpu")
    refused = {("--architecture", "mlp"): "architecture", ("--latent-dim", 8): "latent-dim", ("--token-grid", 4): "token-grid"}
    for words, name in refused.items():
        said = run(folder, "wm-train", *train_words, *words, code=2)
        assert f"--{name}: is no setting of the autoencoder {kind}; leave it out" in said
    assert not (folder / "refused").exists()


def test_a_pipeline_file_has_its_settings(tmp_path: Path) -> None:
    (tmp_path / "spatial.yaml").write_text(
        "collect: {env: worldmodel_v/Stamp-v0, episodes: 4, frame_size: '16x16', workers: 0}\n"
        "train: {autoencoder: spatial, steps: 1, latent_grid: 2, latent_channels: 3, batch_size: 8, holdout_every: 2, "
        "device: cpu}\n"
        "encode: {device: cpu}\n"
    )
    pipeline = ("wm-pipeline", "run", "spatial.yaml", "--out", "out")
    said = run(tmp_path, *pipeline, "--train.latent_grid", 9, code=2)
    assert "latent_grid: 9: frames of 16x16 have at most 8 latents along a side" in said
    commands.run(*pipeline, "--train.latent_grid", "4", "--quiet", folder=tmp_path)
    assert open_dataset(tmp_path / "out" / "latents").schema["mu"].row_shape == (4, 4, 3)
