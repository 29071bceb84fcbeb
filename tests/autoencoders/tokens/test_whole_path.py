"""Every autoencoder with tokens from the commands' end: rollouts in; tokens, windows, a report and exports out."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.autoencoders.kinds import SMALL_TOKENIZERS, TOKENIZERS
from tests.autoencoders.whole_path import LOOP, options, run
from worldmodel_v import Encoder, open_dataset
from worldmodel_v.data import LatentSequences
from worldmodel_v.training import train, train_config

WORDS_OF_A_VAE = ("KL", "logvar", "posterior", "ELBO", "latent_dim")


@pytest.fixture(scope="module", params=TOKENIZERS)
def work(request: pytest.FixtureRequest, rollouts: Path) -> tuple[str, Path]:
    """The name of an autoencoder, and a folder in which it was trained and has encoded."""
    kind, folder = request.param, rollouts.parent / request.param
    folder.mkdir()
    train_words = options(LOOP | SMALL_TOKENIZERS[kind] | {"steps": 12, "publish": "best"})
    run(folder, "wm-train", "--autoencoder", kind, "--data", rollouts, "--out", "vae", *train_words)
    run(folder, "wm-encode", "--data", rollouts, "--vae", "vae", "--out", "latents", "--device", "cpu")
    return kind, folder


def test_training_records_how_the_codes_are_used(work: tuple[str, Path]) -> None:
    _, folder = work
    lines = [json.loads(line) for line in (folder / "vae" / "metrics.jsonl").read_text().splitlines()]
    steps, heldout, health = (
        [line for line in lines if line["group"] == group and wanted in line]
        for group, wanted in (("train", "loss"), ("held-out", "psnr_db"), ("health", "entropy_bits_per_token"))
    )
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert all(1 <= line["perplexity"] <= 100 for line in steps)
    assert [line["step"] for line in heldout] == [4, 8, 12]
    for line, beside in zip(heldout, health, strict=True):
        assert 0 < line["entropy_bits"] <= line["capacity_bits"]
        assert 0 <= line["dead_codes"] < line["num_codes"]
        assert sum(beside["entropy_bits_per_token"]) == pytest.approx(line["entropy_bits"])
    best = max(heldout, key=lambda line: line["psnr_db"])
    assert json.loads((folder / "vae" / "heldout.json").read_text())["weights_of_step"] == best["step"]


def test_a_training_that_is_continued_is_the_one_that_was_not(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    config = train_config(kind)
    for steps in (5, 12):
        train(config(data=rollouts, out=folder / "resumed", steps=steps, **LOOP, **SMALL_TOKENIZERS[kind]))
    train(config(data=rollouts, out=folder / "straight", steps=12, **LOOP, **SMALL_TOKENIZERS[kind]))
    resumed, straight = ((folder / name / "vae.safetensors").read_bytes() for name in ("resumed", "straight"))
    assert resumed == straight


def test_windows_hold_whole_numbers(work: tuple[str, Path]) -> None:
    _, folder = work
    dataset = open_dataset(folder / "latents")
    (column,) = dataset.schema.by_role("latent")
    batch = LatentSequences(folder / "latents", length=4).batch(np.arange(3))
    assert not {"z", "mu", "logvar"} & batch.keys()
    for name in ("tokens", "next_tokens"):
        assert batch[name].dtype == torch.int64
        assert batch[name].shape == (3, 4, *column.row_shape)
    tokens = dataset.episode(0).tokens
    assert np.array_equal(batch["tokens"][0], tokens[:4])
    assert np.array_equal(batch["next_tokens"][0], tokens[1:5])
    assert column.num_values is not None
    assert int(tokens.max()) < column.num_values
    assert len({bytes(row) for row in tokens}) > 1


def test_the_controllers_encoder_gives_the_recorded_tokens(work: tuple[str, Path], rollouts: Path) -> None:
    _, folder = work
    encoder = Encoder.load(folder / "vae")
    frames, tokens = (open_dataset(path).episode(2) for path in (rollouts, folder / "latents"))
    found = encoder(frames.pixels, preprocessed=True)
    assert np.array_equal(found.tokens, tokens.tokens)
    assert found.tokens.dtype == tokens.tokens.dtype
    assert np.array_equal(encoder(frames.pixels[3], preprocessed=True).tokens, tokens.tokens[3])


def test_evaluation_speaks_of_codes_and_not_of_a_posterior(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    output = run(folder, "wm-eval", "--vae", "vae", "--data", rollouts, "--out", "eval", "--device", "cpu")
    assert {"PSNR", "SSIM", "perplexity of the codes", "dead codes"} <= {
        line.strip("│ ").split("│")[0].strip() for line in output.splitlines()
    }
    metrics = json.loads((folder / "eval" / "metrics.json").read_text())
    summary, codes = metrics["summary"], metrics["codes"]
    assert metrics["autoencoder"] == kind
    assert summary["kl_nats"] is None
    assert 1 <= summary["perplexity"] == metrics["heldout"]["perplexity"] <= codes["num_values"]
    assert sum(codes["shares"]) == pytest.approx(1)
    page = re.sub(r"base64,[^\"]*", "", (folder / "eval" / "report.html").read_text())
    assert "How the codes are used" in page
    assert 'aria-label="Share of each of' in page
    for words in (output, page):
        assert not [word for word in WORDS_OF_A_VAE if word in words]


def test_inspection_and_exports(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    model = json.loads(run(folder, "wm-inspect", "vae", "--json"))
    assert model["autoencoder"] == kind
    (column,) = open_dataset(folder / "latents").schema.by_role("latent")
    assert model["latents"] == {"tokens": f"{column.dtype} {list(column.row_shape)}, {column.num_values} values"}
    run(folder, "wm-export", "npz", "--data", "latents", "--out", "npz")
    with np.load(folder / "npz" / "000002.npz") as episode:
        assert np.array_equal(episode["tokens"], open_dataset(folder / "latents").episode(2).tokens)
    said = run(folder, "wm-export", "hardmaru", "--data", "latents", "--out", "hardmaru", code=2)
    assert "latents has tokens and no mu; wm-export npz holds any" in said
    said = run(folder, "wm-export", "model", "--vae", "vae", "--data", rollouts, "--out", "model", code=2)
    assert f"vae: its autoencoder is {kind}; this needs a VAE" in said
    assert not {"hardmaru", "model"} & {path.name for path in folder.iterdir()}


def test_what_makes_no_sense_for_it_is_refused(work: tuple[str, Path], rollouts: Path) -> None:
    kind, folder = work
    train_words = ("--autoencoder", kind, "--data", rollouts, "--out", "refused", "--holdout-every", 4, "--device", "cpu")
    for words, said in (
        (("--free-bits", 1), f"--free-bits: is no setting of the autoencoder {kind}; leave it out"),
        (("--likelihood", "calibrated"), "calibrated"),
        (("--checkpoint-activations",), f"--checkpoint-activations: {kind} does not compute activations again"),
    ):
        assert said in run(folder, "wm-train", *train_words, *words, code=2)
    said = run(folder, "wm-encode", "--data", rollouts, "--vae", "vae", "--out", "x", "--precision", "bf16", code=2)
    assert f"--precision bf16: {kind} encodes in fp32" in said
    said = run(folder, "wm-encode", "--data", rollouts, "--vae", "vae", "--out", "x", "--dtype", "float16", code=2)
    assert f"--dtype float16: {kind} stores tokens as uint" in said
    assert not {"refused", "x"} & {path.name for path in folder.iterdir()}


def test_a_pipeline_file_and_its_command_line_have_its_settings(tmp_path: Path) -> None:
    (tmp_path / "tokens.yaml").write_text(
        "collect: {env: worldmodel_v/Stamp-v0, episodes: 4, frame_size: '16x16', workers: 0}\n"
        "train: {autoencoder: fsq, steps: 1, levels: [5, 5], token_grid: 2, batch_size: 8, holdout_every: 2, device: cpu}\n"
        "encode: {device: cpu}\n"
    )
    pipeline = ("wm-pipeline", "run", "tokens.yaml", "--out", "out")
    said = run(tmp_path, *pipeline, "--train.levels", 5, 1, code=2)
    assert "the command line: train.levels: expected whole numbers of at least 2, got (5, 1)" in said
    assert "tokens.yaml:2: train.levels: unknown field" in run(tmp_path, *pipeline, "--train.autoencoder", "vq", code=2)
    run(tmp_path, *pipeline, "--train.levels", 4, 3, "--train.token_grid", 4)
    (column,) = open_dataset(tmp_path / "out" / "latents").schema.by_role("latent")
    assert (column.num_values, column.row_shape) == (12, (4, 4))
