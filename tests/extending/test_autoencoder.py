"""An autoencoder of a user's own, one file of 40 lines, through every command that makes or reads latents."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import commands
from tests.builders import digests
from worldmodel_v.data import LatentSequences, LatentStream
from worldmodel_v.storage import open_dataset

FILE = Path(__file__).with_name("my_tokenizer.py")
KIND = "my_tokenizer:Tokenizer"
TRAIN = ("--autoencoder", KIND, "--levels", 3, "--batch-size", 16, "--checkpoint-every", 4)
TRAIN += ("--log-every", 2, "--holdout-every", 4, "--learning-rate", 0.01, "--device", "cpu")


def run(folder: Path, program: str, *words: object, code: int = 0) -> str:
    """The output of a command in a folder that it should end in with this code; of a failed one what it says."""
    output, errors = commands.run(program, *words, "--quiet", code=code, folder=folder)
    return output if code == 0 else errors


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's file, rollouts, and what was trained and encoded from them by the commands."""
    folder = tmp_path_factory.mktemp("tokens")
    for file in (FILE, FILE.with_name("my_bounded.py")):
        shutil.copy(file, folder)
    collect = ("--env", "worldmodel_v/Stamp-v0", "--episodes", 8, "--episodes-per-shard", 3, "--frame-size", "16x32")
    run(folder, "wm-collect", *collect, "--workers", 0, "--out", "rollouts")
    run(folder, "wm-train", "--data", "rollouts", "--out", "vae", "--steps", 12, "--publish", "best", *TRAIN)
    run(folder, "wm-encode", "--data", "rollouts", "--vae", "vae", "--out", "latents", "--autoencoder", KIND, "--device", "cpu")
    return folder


def test_a_user_writes_one_short_file() -> None:
    assert len(FILE.read_text().splitlines()) <= 40


def test_training_records_the_losses_own_figures(work: Path) -> None:
    lines = [json.loads(line) for line in (work / "vae" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["group"] == "train"]
    assert [line["step"] for line in steps] == [2, 4, 6, 8, 10, 12]
    assert steps[0].keys() == {"step", "group", "loss", "used_codes", "grad_norm"}
    assert all(1 <= line["used_codes"] <= 27 for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]
    heldout = [line for line in lines if line["group"] == "held-out"]
    assert [line.keys() for line in heldout] == [{"step", "group", "num_frames", "psnr_db", "squared_error"}] * 3
    published = json.loads((work / "vae" / "heldout.json").read_text())
    assert published["weights_of_step"] == max(heldout, key=lambda line: line["psnr_db"])["step"]


def test_a_training_that_is_continued_is_the_one_that_was_not(work: Path) -> None:
    for steps in (5, 12):
        run(work, "wm-train", "--data", "rollouts", "--out", "resumed", "--steps", steps, *TRAIN)
    run(work, "wm-train", "--data", "rollouts", "--out", "straight", "--steps", 12, *TRAIN)
    resumed, straight = ((work / name / "vae.safetensors").read_bytes() for name in ("resumed", "straight"))
    assert resumed == straight


def test_tokens_are_whole_numbers_in_windows(work: Path) -> None:
    rows = [open_dataset(work / "latents").episode(i) for i in range(8)]
    sequences = LatentSequences(work / "latents", length=4)
    stream = LatentStream(work / "latents", length=4)
    batch = sequences.batch(np.arange(3))
    for window in (batch, next(iter(stream.batches(3)))):
        assert {"tokens", "next_tokens"} <= window.keys()
        assert not {"z", "next_z", "mu", "logvar"} & window.keys()
        assert window["tokens"].dtype == window["next_tokens"].dtype == torch.int64
        assert window["tokens"].shape == (3, 4, 2, 4)
        assert 0 <= int(window["tokens"].min()) <= int(window["tokens"].max()) < 27
    assert rows[0].tokens.dtype == np.uint16
    assert np.array_equal(batch["tokens"][0], rows[0].tokens[:4])
    assert np.array_equal(batch["next_tokens"][0], rows[0].tokens[1:5])
    assert len({bytes(row) for row in rows[0].tokens}) > 1


def test_the_controllers_encoder_gives_the_recorded_tokens(work: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from worldmodel_v import Encoder, open_dataset\n"
        f"encoder = Encoder.load('vae', autoencoder={KIND!r})\n"
        "frames, tokens = (open_dataset(Path(name)).episode(2).columns[column] for name, column in\n"
        "                  (('rollouts', 'pixels'), ('latents', 'tokens')))\n"
        "found = encoder(frames, preprocessed=True)\n"
        "assert found.tokens.dtype == np.uint16 and np.array_equal(found.tokens, tokens)\n"
        "assert np.array_equal(encoder(frames[3], preprocessed=True).tokens, tokens[3])\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=work, check=True)


def test_evaluation_says_what_applies(work: Path) -> None:
    output = run(work, "wm-eval", "--vae", "vae", "--data", "rollouts", "--out", "eval", "--autoencoder", KIND)
    assert "PSNR" in output
    assert "KL" not in output
    metrics = json.loads((work / "eval" / "metrics.json").read_text())
    assert metrics["autoencoder"] == KIND
    assert metrics["summary"]["psnr_db"] > 5
    assert metrics["summary"]["kl_nats"] is None
    pictures = {"reconstructions.png", "inpainting.png", "anomalies.png"}
    assert metrics["files"].keys() == {*pictures, "report.html"}
    page = (work / "eval" / "report.html").read_text()
    assert KIND in page
    assert page.count("it is of a VAE&#39;s latents, whose distribution is Gaussian") == 5
    assert page.count("no prior is fitted to such latents, or to so many tokens") == 1
    assert page.count("it needs a fitted prior and two episodes") == 1
    assert "posterior" not in page


def test_inspection_shows_kind_and_columns_without_the_users_code(work: Path) -> None:
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    model = json.loads(run(elsewhere, "wm-inspect", "../vae", "--json"))
    assert model["autoencoder"] == KIND
    assert model["latents"] == {"tokens": "uint16 [2, 4], 27 values"}
    assert model["model"]["levels"] == 3
    assert model["best"].keys() == {"step", "psnr_db"}
    latents = json.loads(run(elsewhere, "wm-inspect", "../latents", "--verify", "--vae", "../vae", "--json"))
    assert latents["columns"]["tokens"] == "uint16 (rows, 2, 4), 27 values"


def test_exports_hold_tokens_or_say_that_they_cannot(work: Path) -> None:
    run(work, "wm-export", "npz", "--data", "latents", "--out", "npz")
    with np.load(work / "npz" / "000002.npz") as episode:
        assert np.array_equal(episode["tokens"], open_dataset(work / "latents").episode(2).tokens)
    for name in ("hardmaru", "zacwellmer", "adsp"):
        said = run(work, "wm-export", name, "--data", "latents", "--out", name, code=2)
        assert "holds the latents mu and logvar of a VAE, latents has tokens and no mu; wm-export npz holds any" in said
        assert not (work / name).exists()
    said = run(work, "wm-export", "model", "--vae", "vae", "--data", "rollouts", "--out", "model", code=2)
    assert f"vae: its autoencoder is {KIND}; this needs a VAE, with mu and logvar" in said


def test_a_strangers_code_is_not_run(work: Path, tmp_path: Path) -> None:
    """Its module lies in the current directory, where it could be imported from, and would leave a file behind."""
    (tmp_path / "my_tokenizer.py").write_text("open('it_ran', 'w').close()\n")
    encode = ("--data", work / "rollouts", "--vae", work / "vae")
    said = run(tmp_path, "wm-encode", *encode, "--out", "latents", code=2)
    assert f"its autoencoder is {KIND}, which is no part of this package" in said
    assert f"add --autoencoder {KIND}" in said
    said = run(tmp_path, "wm-eval", *encode, "--out", "eval", code=2)
    assert f"add --autoencoder {KIND}" in said
    said = run(tmp_path, "wm-encode", *encode, "--out", "latents", "--autoencoder", "gaussian", code=2)
    assert f"--autoencoder gaussian: is not the one that was trained; expected {KIND}" in said
    run(tmp_path, "wm-inspect", work / "vae")
    assert [path.name for path in tmp_path.iterdir()] == ["my_tokenizer.py"]


def test_what_another_autoencoder_has_no_use_for_is_refused(work: Path) -> None:
    data = ("--data", "rollouts", "--out", "refused", "--holdout-every", 4)
    train = (*data, "--autoencoder", KIND)
    assert "--beta: is no setting of the autoencoder" in run(work, "wm-train", *train, "--beta", 2, code=2)
    assert "--codes" in run(work, "wm-train", *train, "--codes", 3, code=2)
    said = run(work, "wm-train", *data, "--levels", 3, code=2)
    assert "--levels: is no setting of the autoencoder gaussian; leave it out, or set --autoencoder to fsq\n" in said
    said = run(work, "wm-train", "--data", "rollouts", "--out", "vae", "--steps", 12, "--holdout-every", 4, code=2)
    assert f"was trained with other settings: autoencoder is '{KIND}' there, 'gaussian' asked; use those settings" in said
    bounded = (*data, "--autoencoder", "my_bounded:Bounded")
    assert "--levels: expected 2 to 40, got 41" in run(work, "wm-train", *bounded, "--levels", 41, code=2)
    assert "--levels: expected a whole number, got 'x'" in run(work, "wm-train", *train, "--levels", "x", code=2)
    said = run(work, "wm-train", "--data", "rollouts", "--out", "vae", "--steps", 12, *TRAIN[:3], 4, *TRAIN[4:], code=2)
    assert "vae: was trained with other settings: levels is 3 there, 4 asked" in said
    said = run(work, "wm-train", *train, "--checkpoint-activations", code=2)
    assert f"--checkpoint-activations: {KIND} does not compute activations again; leave it out" in said
    said = run(work, "wm-train", *data, "--autoencoder", "my_tokenizer:TokenizerSettings", code=2)
    assert "TokenizerSettings is no subclass of worldmodel_v.autoencoders.Autoencoder" in said


@pytest.mark.parametrize(
    ("right", "wrong", "text"),
    [
        (
            "nn.ConvTranspose2d(32, 3, ",
            "nn.ConvTranspose2d(32, 1, ",
            "the autoencoder's decode gives the shape (2, 1, 16, 32) for frames of the shape (2, 3, 16, 32); let it give (B,",
        ),
        ('{"tokens": sum(', '{"token": sum(', "declares a column tokens of shape (2, 2, 4); its encode gives none, but token"),
        (
            ".pow(2).mean(),",
            ".pow(2),",
            "the autoencoder's loss is no scalar; expected the mean over the batch, got the shape (16, 3, 16, 32)",
        ),
    ],
)
def test_one_that_breaks_its_word_is_refused_before_it_is_trained(
    work: Path, tmp_path: Path, right: str, wrong: str, text: str
) -> None:
    code = FILE.read_text()
    assert code.count(right) == 1
    (tmp_path / "my_tokenizer.py").write_text(code.replace(right, wrong))
    said = run(tmp_path, "wm-train", "--data", work / "rollouts", "--out", "vae", "--steps", 2, *TRAIN, code=1)
    assert text in said
    assert "Traceback" not in said
    assert not (tmp_path / "vae" / "checkpoint.safetensors").exists()


def test_a_pipeline_takes_it_for_every_stage(work: Path) -> None:
    (work / "tokens.yaml").write_text(
        "collect: {env: worldmodel_v/Stamp-v0, episodes: 4, frame_size: '16x32', workers: 0}\n"
        f"train: {{autoencoder: '{KIND}', steps: 2, levels: 5, batch_size: 8, holdout_every: 2, device: cpu}}\n"
        "eval: {}\nencode: {device: cpu}\n"
    )
    pipeline = ("wm-pipeline", "run", "tokens.yaml", "--out", "pipeline")
    said = run(work, *pipeline, "--train.autoencoder", "my_bounded:Bounded", "--train.levels", 1, code=2)
    assert "the command line: train.levels: expected 2 to 40, got 1" in said
    assert "tokens.yaml:2: train.levels: unknown field" in run(work, *pipeline, "--train.autoencoder", "gaussian", code=2)
    output = run(work, *pipeline)
    assert "squared error" in output
    rollouts, latents = (open_dataset(work / "pipeline" / name) for name in ("rollouts", "latents"))
    for i in range(4):
        assert latents.episode(i).tokens.shape == (rollouts.episode(i).num_rows, 2, 4)
    assert json.loads((work / "pipeline" / "vae" / "config.json").read_text())["training"]["levels"] == 5
    evaluated = json.loads((work / "pipeline" / "eval" / "metrics.json").read_text())
    assert evaluated["identity"]["vae_sha256"] == latents.spec.vae_sha256


def test_latents_of_edited_code_are_not_added_to_those_of_the_old(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(work, folder)
    words = ("--data", "rollouts", "--vae", "vae", "--out", "latents", "--autoencoder", KIND, "--device", "cpu")
    (folder / "latents" / "shards" / "000002.h5").unlink()
    index = folder / "latents" / "index.jsonl"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:2]))
    file = folder / FILE.name
    file.write_text(FILE.read_text().replace(").round()", ").add(0.3).round()"))  # of another size, or Python runs the old
    errors = run(folder, "wm-encode", *words, code=2)
    assert "autoencoder_sha256 is " in errors
    assert errors.endswith("use those versions, files and values, or another directory\n")
    shutil.copy(FILE, file)
    run(folder, "wm-encode", *words)
    assert digests(folder / "latents") == digests(work / "latents")
