"""The controller's examples on the toy world, whose return says which actions were taken."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders import imported
from tests.commands import run
from worldmodel_v import Encoder
from worldmodel_v.envs import make_image_env
from worldmodel_v.errors import ModelNotUsable
from worldmodel_v.training import train as train_autoencoder
from worldmodel_v.training import train_config

EXAMPLES = Path(__file__).parents[2] / "examples"
RNN = {"--steps": 3, "--batch-size": 4, "--length": 8, "--dream-steps": 6, "--holdout-every": 4, "--device": "cpu"}
SHORT = {"--population": 4, "--tracks": 2, "--choose-every": 2, "--choice-tracks": 3, "--test-tracks": 3, "--envs": 3}


def words(options: dict[str, Any]) -> list[str]:
    return [str(word) for option in options.items() for word in option]


@pytest.fixture(scope="module")
def rnn(tmp_path_factory: pytest.TempPathFactory, stamp_latents: Path, stamp_vae: Path) -> Path:
    out = tmp_path_factory.mktemp("rnn") / "out"
    run(EXAMPLES / "train_mdn_rnn.py", *words({"--latents": stamp_latents, "--vae": stamp_vae, "--out": out} | RNN))
    return out


COURSE = {"--teacher": f"{__name__}:Steady", "--tracks": 3, "--choose-every": 1}
COURSE |= {name: SHORT[name] for name in ("--choice-tracks", "--test-tracks", "--envs")}


class Steady:
    """A teacher that always does the same."""

    action = np.array([0.5, -0.25], np.float32)

    def __init__(self, env: Any) -> None:
        pass

    def reset(self, rng: np.random.Generator) -> None:
        pass

    def act(self, frame: np.ndarray) -> np.ndarray:
        return self.action


def options(vae: Path, out: Path, **more: Any) -> list[str]:
    named = {f"--{name.replace('_', '-')}": value for name, value in ({"generations": 4, "workers": 0} | more).items()}
    return words({"--vae": vae, "--out": out} | SHORT | named)


def train(vae: Path, out: Path, **more: Any) -> dict[str, Any]:
    printed, _ = run(EXAMPLES / "train_controller.py", *options(vae, out, **more), "--json")
    assert json.loads(printed) == json.loads((out / "scores.json").read_text())
    return json.loads(printed)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, stamp_vae: Path, rnn: Path) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    train(stamp_vae, out, rnn=rnn)
    return out


def commands_of_make(out: Path, target: str = "drive") -> list[list[str]]:
    """What `make drive` runs with Python in a folder where M is already trained."""
    printed = subprocess.run(
        ["make", "--dry-run", target, f"OUT={out}"], cwd=EXAMPLES.parent, check=True, capture_output=True, text=True
    ).stdout
    lines = [line.split() for line in printed.splitlines() if line.startswith(".venv/bin/python examples/")]
    return [line[1:] for line in lines]


def test_make_drive_trains_a_controller_and_records_it(stamp_vae: Path, rnn: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    (first, *_) = commands_of_make(out)
    assert first[0] == "examples/train_mdn_rnn.py"
    out.mkdir()
    (out / "vae").symlink_to(stamp_vae)
    (out / "mdn_rnn").symlink_to(rnn)
    teach_command, watch_command = commands_of_make(out)
    assert teach_command[-2] == "--lessons"
    run(EXAMPLES.parent / teach_command[0], *teach_command[1:-1], 1, *words(COURSE | {"--workers": 0}))
    printed, _ = run(EXAMPLES.parent / watch_command[0], *watch_command[1:], "--start", "3", "--steps", "5", "--json")
    report = json.loads(printed)
    assert (report["gif"], report["steps"]) == (str(out / "controller" / "drive.gif"), 5)
    with Image.open(report["gif"]) as gif:
        assert gif.n_frames == 5
    for more, text in ((["--start", "500"], "fewer steps than the episode has"), (["--temperature", "0"], "a positive number")):
        _, said = run(EXAMPLES.parent / watch_command[0], *watch_command[1:], *more, code=2)
        assert text in said


def test_make_evolve_searches_a_controller_and_records_it(stamp_vae: Path, rnn: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    (out / "vae").symlink_to(stamp_vae)
    (out / "mdn_rnn").symlink_to(rnn)
    train_command, watch_command = commands_of_make(out, "evolve")
    assert train_command[-2] == "--generations"
    run(EXAMPLES.parent / train_command[0], *train_command[1:-1], 2, *words(SHORT | {"--workers": 0}))
    run(EXAMPLES.parent / watch_command[0], *watch_command[1:], "--start", "3", "--steps", "5")
    assert (out / "evolved" / "drive.gif").exists()


def by_hand(vae: Path, rnn: Path | None, controller_P: np.ndarray, track: int) -> tuple[float, int]:
    """The return and the length of an episode, one frame at a time."""
    encoder, model = Encoder.load(vae), imported(EXAMPLES / "train_mdn_rnn.py", "train_mdn_rnn")
    memory = model.load_mdn_rnn(rnn, vae) if rnn else None
    h, state = np.zeros(256 if rnn else 0), None
    with make_image_env("worldmodel_v/Stamp-v0", {}) as env:
        frame, total, num_steps, ended = env.reset(track), 0.0, 0, False
        while not ended:
            z = encoder(frame).mu
            weights = controller_P.reshape(2, -1)
            action = np.clip(weights[:, :-1] @ np.concatenate([z, h]) + weights[:, -1], -1, 1).astype(np.float32)
            frame, reward, terminated, truncated = env.step(action)
            total, num_steps, ended = total + reward, num_steps + 1, terminated or truncated
            if memory is not None:
                with torch.inference_mode():
                    _, state = memory.remember(torch.from_numpy(z)[None, None], torch.from_numpy(action)[None, None], state)
                h = state[0][0, 0].numpy()
    return total, num_steps


@pytest.mark.parametrize("with_rnn", [True, False])
def test_the_score_is_what_the_chosen_controller_drives(
    with_rnn: bool, stamp_vae: Path, rnn: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = unbroken if with_rnn else tmp_path / "out"
    if not with_rnn:
        train(stamp_vae, out)
    scores, chosen = json.loads((out / "scores.json").read_text()), np.load(out / "controller.npz")
    assert chosen["controller"].shape == (2 * (8 + (256 if with_rnn else 0) + 1),)
    for track, found in enumerate(scores["returns"]):
        assert found == pytest.approx(by_hand(stamp_vae, rnn if with_rnn else None, chosen["controller"], track)[0], abs=3)
    assert scores["mean"] == pytest.approx(np.mean(scores["returns"]))
    assert scores["standard_error"] == pytest.approx(np.std(scores["returns"], ddof=1) / np.sqrt(3))
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()][1:]
    assert [len(line["means"]) for line in history] == [4] * 4
    assert [line["choice"] for line in history if "choice" in line] == pytest.approx(
        [history[1]["choice"], history[3]["choice"]]
    )
    assert scores["choice_mean"] == max(history[1]["choice"], history[3]["choice"])
    assert scores["frames"] == sum(line["frames"] for line in history)


def test_a_run_that_goes_on_is_the_unbroken_one(stamp_vae: Path, rnn: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(stamp_vae, out, rnn=rnn, generations=2)
    with (out / "history.jsonl").open("a") as history:
        history.write('{"means": [1.0,')  # as a kill may leave it
    train(stamp_vae, out, rnn=rnn)
    for name in ("history.jsonl", "controller.npz", "scores.json"):
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), name


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"population": 5}, "population is 4 there, 5 asked"),
        ({"generations": 3}, "expected a multiple of 2 (--choose-every), got 3"),
        ({"choice_tracks": 101}, "expected 1 to 100, got 101"),
        ({"test_tracks": 1}, "expected 2 to 100, got 1"),
        ({"rnn": "nowhere"}, "mdn_rnn.safetensors: cannot be read: No such file or directory; run train_mdn_rnn.py"),
    ],
)
def test_what_cannot_go_on_is_refused(changes: dict, text: str, stamp_vae: Path, rnn: Path, unbroken: Path) -> None:
    _, said = run(EXAMPLES / "train_controller.py", *options(stamp_vae, unbroken, **{"rnn": rnn} | changes), "--quiet", code=2)
    assert text in said
    assert len(said.splitlines()) == 1


def test_an_episode_without_reward_ends_in_the_search(stamp_vae: Path) -> None:
    imported(EXAMPLES / "train_mdn_rnn.py", "train_mdn_rnn")
    example = imported(EXAMPLES / "train_controller.py", "train_controller")
    driver = example.Driver(stamp_vae, None, 2)
    still = np.zeros((5, driver.num_parameters))
    returns, num_steps, _ = driver(example.Job(still, [0, 1, 2, 3, 4], 0))
    assert (returns > 0).all()
    assert num_steps > 5 * 20
    for slot in driver.slots:
        slot.env.step = lambda action: (np.zeros((64, 64, 3), np.uint8), -1.0, False, False)
    returns, num_steps, _ = driver(example.Job(still, [0, 1, 2, 3, 4], 7))
    assert (returns.tolist(), num_steps) == ([-7.0] * 5, 35)


def test_a_search_in_dreams_goes_on_as_the_unbroken_one(
    stamp_vae: Path, stamp_latents: Path, rnn: Path, tmp_path: Path
) -> None:
    dreams = {"rnn": rnn, "dream": stamp_latents, "dream_steps": 5}
    train(stamp_vae, tmp_path / "unbroken", **dreams)
    train(stamp_vae, tmp_path / "out", generations=2, **dreams)
    train(stamp_vae, tmp_path / "out", **dreams)
    for name in ("history.jsonl", "controller.npz", "scores.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    history = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()][1:]
    assert [line["frames"] > 0 for line in history] == [False, True, False, True]  # only choosing takes the environment
    for changes, text in (
        ({"dream_steps": 6}, "dream_steps is 5 there, 6 asked"),
        ({"rnn": None}, "--rnn as well, which dreams"),
    ):
        left = {name: value for name, value in (dreams | changes).items() if value is not None}
        _, said = run(EXAMPLES / "train_controller.py", *options(stamp_vae, tmp_path / "out", **left), "--quiet", code=2)
        assert text in said


def test_a_dream_counts_the_rewards_that_come_before_its_end(stamp_vae: Path, stamp_latents: Path, rnn: Path) -> None:
    model = imported(EXAMPLES / "train_mdn_rnn.py", "train_mdn_rnn")
    example = imported(EXAMPLES / "train_controller.py", "train_controller")
    driver = example.Driver(stamp_vae, rnn, 1)
    config = example.ControllerConfig(vae=stamp_vae, out=Path("out"), rnn=rnn, dream=stamp_latents, dream_steps=4)
    dreamer = example.Dreamer(driver, config)
    job = example.Job(np.random.default_rng(0).normal(size=(3, driver.num_parameters)), [5, 5, 7])
    first, again = dreamer(job), dreamer(job)
    assert (first.returns.tolist(), first.frames) == (again.returns.tolist(), 0)
    actions: list[np.ndarray] = []
    begun: list[np.ndarray] = []

    def forecast(z: torch.Tensor, action: torch.Tensor, state: Any, temperature: float) -> Any:
        actions.append(action[:, 0].numpy())
        begun.append(z[:, 0].numpy())
        next_z = torch.distributions.Normal(torch.zeros(3, 1, 8), 1e-6)
        return model.Forecast(next_z, torch.full((3, 1), 2.0), torch.zeros(3, 1)), state

    dreamer.rnn = type("Always", (), {"remember": driver.rnn.remember, "__call__": staticmethod(forecast)})()
    assert dreamer(job).returns.tolist() == [2 * (1 + 1 / 2 + 1 / 4 + 1 / 8)] * 3
    assert (begun[0][0] == begun[0][1]).all()
    assert (begun[0][0] != begun[0][2]).any()
    h = driver.rnn.remember(*(dreamer.beginnings.batch(np.array([5]))[name] for name in ("z", "action")))[1][0][0]
    seen = np.concatenate([begun[0][0], h[0].detach().numpy(), [1]])
    np.testing.assert_allclose(actions[0][0], np.clip(job.controllers[0].reshape(2, -1) @ seen, -1, 1), atol=1e-4)


def teach(vae: Path, out: Path, **more: Any) -> dict[str, Any]:
    named = {f"--{name.replace('_', '-')}": value for name, value in ({"lessons": 3, "workers": 0} | more).items()}
    printed, _ = run(EXAMPLES / "teach_controller.py", *words({"--vae": vae, "--out": out} | COURSE | named), "--json")
    return json.loads(printed)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, stamp_vae: Path, rnn: Path) -> Path:
    out = tmp_path_factory.mktemp("taught") / "out"
    teach(stamp_vae, out, rnn=rnn)
    return out


def return_of_the_teacher(track: int) -> float:
    with make_image_env("worldmodel_v/Stamp-v0", {}) as env:
        env.reset(track)
        total, ended = 0.0, False
        while not ended:
            _, reward, terminated, truncated = env.step(Steady.action)
            total, ended = total + reward, terminated or truncated
    return total


def test_a_taught_controller_drives_as_its_teacher(stamp_vae: Path, rnn: Path, taught: Path) -> None:
    scores, chosen = json.loads((taught / "scores.json").read_text()), np.load(taught / "controller.npz")
    for track, found in enumerate(scores["returns"]):
        assert found == pytest.approx(by_hand(stamp_vae, rnn, chosen["controller"], track)[0], abs=3)
        assert found == pytest.approx(return_of_the_teacher(track), abs=60)  # 3 of 256 shades in each of 20 steps
    course = json.loads((taught / "lessons.json").read_text())
    lessons, num_seen = course["lessons"], 8 + 256 + 1
    tracks = np.random.default_rng((0, 1)).integers(1000, 2**31 - 1, 3)
    assert lessons[0]["mean"] == pytest.approx(np.mean([return_of_the_teacher(int(track)) for track in tracks]))
    assert np.shape(course["sums"]) == (num_seen, num_seen + 2)
    choices = [lesson["choice"] for lesson in lessons]
    assert scores["choice_mean"] == max(choices) == choices[scores["generation"] - 1]
    assert chosen["controller"].tolist() == lessons[scores["generation"] - 1]["controller"]
    assert scores["frames"] == sum(lesson["frames"] for lesson in lessons)


@pytest.mark.parametrize(("kind", "num_seen"), [("fsq", 8 * 8 * 4), ("categorical", 32 * 32)])
def test_a_controller_sees_what_tokens_are_decoded_from(kind: str, num_seen: int, stamp_rollouts: Path, tmp_path: Path) -> None:
    config = train_config(kind)
    train_autoencoder(config(data=stamp_rollouts, out=tmp_path / "vae", steps=1, batch_size=16, holdout_every=4, device="cpu"))
    imported(EXAMPLES / "train_mdn_rnn.py", "train_mdn_rnn")
    driver = imported(EXAMPLES / "train_controller.py", "train_controller").Driver(tmp_path / "vae", None, 2)
    assert driver.num_parameters == 2 * (num_seen + 1)
    frames = [slot.env.reset(seed) for seed, slot in enumerate(driver.slots)]
    z = torch.from_numpy(driver.look(frames))
    tokens = torch.from_numpy(driver.encoder(np.stack(frames), preprocessed=False).tokens.astype(np.int64))
    with torch.no_grad():
        decoded = driver.vae.decode_logits(z.reshape(*tokens.shape, -1)).sigmoid()
        torch.testing.assert_close(decoded, driver.vae.decode({"tokens": tokens}))
    assert (decoded[0] != decoded[1]).any()
    scores = teach(tmp_path / "vae", tmp_path / "taught")
    assert scores["returns"] == pytest.approx([return_of_the_teacher(track) for track in range(3)], abs=60)


def test_latents_that_are_neither_a_mean_nor_tokens_are_refused(tmp_path: Path) -> None:
    imported(EXAMPLES / "train_mdn_rnn.py", "train_mdn_rnn")
    example = imported(EXAMPLES / "train_controller.py", "train_controller")
    with pytest.raises(ModelNotUsable, match="a linear controller sees mu or tokens; got code"):
        example.as_numbers(torch.nn.Identity(), {"code": np.zeros((1, 4), np.float32)})


def test_a_controller_is_taught_by_the_least_squares_of_all_lessons() -> None:
    imported(EXAMPLES / "train_mdn_rnn.py", "train_mdn_rnn")
    imported(EXAMPLES / "train_controller.py", "train_controller")
    example = imported(EXAMPLES / "teach_controller.py", "teach_controller")
    rng = np.random.default_rng(0)
    seen_NX = np.concatenate([rng.normal(2, [[1, 10, 0.1, 1]], (500, 4)), np.ones((500, 1))], axis=1)
    wanted_NA = seen_NX @ rng.normal(size=(5, 3)) + rng.normal(size=(500, 3))
    pairs_NY = np.concatenate([seen_NX, wanted_NA], axis=1)
    sums = seen_NX[:200].T @ pairs_NY[:200] + seen_NX[200:].T @ pairs_NY[200:]
    ridge_X = np.sqrt(example.RIDGE * 500 * (seen_NX**2).mean(axis=0))
    expected_XA, *_ = np.linalg.lstsq(
        np.concatenate([seen_NX, np.diag(ridge_X)]), np.concatenate([wanted_NA, np.zeros((5, 3))]), rcond=None
    )
    np.testing.assert_allclose(example.taught(sums).reshape(3, 5), expected_XA.T, rtol=1e-9)


def test_lessons_that_go_on_are_the_unbroken_ones(stamp_vae: Path, rnn: Path, taught: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    teach(stamp_vae, out, rnn=rnn, lessons=1)
    teach(stamp_vae, out, rnn=rnn)
    for name in ("lessons.json", "controller.npz", "scores.json"):
        assert (out / name).read_bytes() == (taught / name).read_bytes(), name


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tracks": 5}, "tracks is 3 there, 5 asked"),
        ({"choose_every": 2}, "expected a multiple of 2 (--choose-every), got 3"),
        ({"teacher": "drivr"}, "unknown policy 'drivr'"),
        ({"teacher": "driver"}, "policy driver needs CarRacing with continuous actions"),
    ],
)
def test_lessons_that_cannot_go_on_are_refused(changes: dict, text: str, stamp_vae: Path, rnn: Path, taught: Path) -> None:
    named = {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    course = COURSE | {"--vae": stamp_vae, "--rnn": rnn, "--out": taught, "--lessons": 3, "--workers": 0} | named
    _, said = run(EXAMPLES / "teach_controller.py", *words(course), "--quiet", code=2)
    assert text in said
    assert len(said.splitlines()) == 1


def test_lessons_that_cannot_be_read_are_refused(stamp_vae: Path, rnn: Path, tmp_path: Path) -> None:
    (tmp_path / "lessons.json").write_text('{"settings": {}')
    course = COURSE | {"--vae": stamp_vae, "--rnn": rnn, "--out": tmp_path, "--lessons": 1, "--workers": 0}
    _, said = run(EXAMPLES / "teach_controller.py", *words(course), "--quiet", code=2)
    assert said.startswith(f"teach_controller.py: {tmp_path / 'lessons.json'}: cannot be read: ")
    assert len(said.splitlines()) == 1
