"""The figures of `benchmarks/dreams.py`, on constructed pictures, curves, tracks and results."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import action_space
from worldmodel_v.autoencoders.base import CodedBatch
from worldmodel_v.autoencoders.tokens.fsq import FSQ, FSQConfig
from worldmodel_v.profiles import CAR_RACING
from worldmodel_v.schema import ActionSpace

FOLDER = Path(__file__).parents[2] / "benchmarks"
ROAD_GREY, GRASS, RED, WHITE, HULL, TYRE = (
    (102, 102, 102),
    (100, 228, 100),
    (255, 0, 0),
    (255, 255, 255),
    (204, 0, 0),
    (0, 0, 0),
)
KERB, IN_CAR = (20, slice(10, 18)), (slice(54, 58), slice(31, 33))


@pytest.fixture(scope="module")
def dreams() -> Iterator[ModuleType]:
    """`benchmarks/dreams.py`, with its neighbours and the examples."""
    path = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    import dreams

    yield dreams
    sys.path[:] = path


# Small things


def picture() -> torch.Tensor:
    """A frame of road and grass, with 8 pixels of kerb, and 8 of hull and 2 of tyre where the car is."""
    frame = np.zeros((64, 64, 3), np.uint8) + np.array(GRASS, np.uint8)
    frame[:, 24:40] = ROAD_GREY
    frame[20, 10:18:2], frame[20, 11:18:2] = RED, WHITE
    frame[IN_CAR] = HULL
    frame[52, 30] = frame[52, 33] = TYRE
    return torch.from_numpy(frame).permute(2, 0, 1)[None] / 255


def painted(x_BCHW: torch.Tensor, where: tuple[Any, ...], colour: tuple[int, int, int]) -> torch.Tensor:
    x = x_BCHW.clone()
    x[0, :, *where] = torch.tensor(colour).view(3, *[1] * (x[0, 0][where].ndim)) / 255
    return x


def figures(dreams: ModuleType, original: torch.Tensor, found: torch.Tensor, name: str) -> tuple[float, float, float]:
    """Recall, precision, F1."""
    from _small_things import class_measures, recall_precision_f1

    batch = CodedBatch(original, (), {}, found)
    measures = class_measures()
    return recall_precision_f1(*(float(measures[f"{name}_{count}"](batch).sum()) for count in ("there", "found", "both")))


def test_kerb_and_car_are_told_apart_by_colour_and_place(dreams: ModuleType) -> None:
    from _small_things import CAR, KERB, OTHER, pixel_classes

    classes = pixel_classes(picture())[0]
    assert (classes[20, 10:18] == KERB).all()
    assert (classes[IN_CAR] == CAR).all()
    assert classes[52, 30] == classes[52, 33] == CAR
    counts = torch.bincount(classes.flatten())
    assert counts.tolist() == [64 * 64 - 18, 8, 10]
    assert classes[0, 0] == classes[0, 30] == OTHER


def test_a_perfect_reconstruction_keeps_all_and_one_without_kerb_nothing_of_it(dreams: ModuleType) -> None:
    x = picture()
    assert figures(dreams, x, x, "kerb") == figures(dreams, x, x, "car") == (1, 1, 1)
    without = painted(x, KERB, GRASS)
    assert figures(dreams, x, without, "kerb") == (0, 0, 0)
    assert figures(dreams, x, without, "car") == (1, 1, 1)


def test_stripes_that_are_blurred_into_pink_are_still_kerb(dreams: ModuleType) -> None:
    assert figures(dreams, picture(), painted(picture(), KERB, (255, 128, 128)), "kerb") == (1, 1, 1)


def test_half_a_kerb_has_half_the_recall(dreams: ModuleType) -> None:
    half = painted(picture(), (20, slice(10, 14)), ROAD_GREY)
    assert figures(dreams, picture(), half, "kerb") == pytest.approx((0.5, 1, 2 / 3))


def test_painting_everything_red_has_full_recall_and_no_precision(dreams: ModuleType) -> None:
    red = painted(picture(), (slice(None), slice(None)), RED)
    recall, precision, f1 = figures(dreams, picture(), red, "kerb")
    assert recall == 1
    assert precision == 8 / (64 * 64 - 8 * 6)
    assert f1 < 0.01


def test_a_class_that_is_nowhere_has_no_recall(dreams: ModuleType) -> None:
    without = painted(picture(), KERB, GRASS)
    recall, precision, f1 = figures(dreams, without, without, "kerb")
    assert math.isnan(recall)
    assert precision == 0
    assert math.isnan(f1)


def test_errors_count_at_edges_only(dreams: ModuleType) -> None:
    from _small_things import edge_psnr

    x = torch.zeros(1, 3, 64, 64)
    x[..., 32:] = 1.0  # an edge between columns 31 and 32, whose gradient covers these two; the rest of the tenth is flat
    far, near = x.clone(), x.clone()
    far[..., 50, 60], near[..., 31] = 0.0, 0.5
    assert edge_psnr(CodedBatch(x, (), {}, near)).item() == pytest.approx(-10 * math.log10(64 * 0.25 / 410), abs=1e-4)
    assert edge_psnr(CodedBatch(x, (), {}, far)) > edge_psnr(CodedBatch(x, (), {}, near)) + 10


# The road


def straight_then_left() -> np.ndarray:
    """A track of 40 tiles: 20 to the north (direction 0), then 20 to the west (direction π/2)."""
    north = [(0.0, 0.0, 3.5 * i) for i in range(20)]
    return np.array(north + [(np.pi / 2, -3.5 * (i + 1), 3.5 * 19) for i in range(20)])


def state_at(rows: int = 60, **values: float) -> np.ndarray:
    state = np.zeros((rows, len(CAR_RACING.state_names)), np.float32)
    for name, value in values.items():
        state[:, CAR_RACING.state_names.index(name)] = value
    return state


def test_the_road_is_seen_from_the_car(dreams: ModuleType) -> None:
    from _road import NAMES, road_state

    state = state_at(position_x=2, position_y=35, angle=0.3, velocity_x=3, velocity_y=4, steering_angle=0.1)
    road, near = road_state(straight_then_left(), state)
    expected = {"offset": 2, "heading": 0.3, "turn ahead": 0, "steering": 0.1, "speed": 5, "yaw rate": 0}
    np.testing.assert_allclose(road[0], [expected[name] for name in NAMES], atol=1e-6)
    assert near[50:].all()
    assert not near[:50].any()  # the camera still zooms in


def test_the_turn_ahead_depends_on_where_the_car_looks(dreams: ModuleType) -> None:
    from _road import road_state

    ahead, _ = road_state(straight_then_left(), state_at(position_x=2, position_y=56))
    np.testing.assert_allclose(ahead[0, :3], [2, 0, np.pi / 2], atol=1e-6)
    back, _ = road_state(straight_then_left(), state_at(position_x=2, position_y=56, angle=np.pi))
    np.testing.assert_allclose(back[0, :3], [-2, 0, 0], atol=1e-6)


@pytest.mark.parametrize("values", [{"position_x": 14}, {"angle": 1.2}])
def test_a_car_in_the_grass_or_across_the_road_is_left_out(dreams: ModuleType, values: dict[str, float]) -> None:
    from _road import road_state

    assert not road_state(straight_then_left(), state_at(position_y=35, **values))[1].any()


# Dreams


class Adds:
    """Dynamics that are known: the next latent is this one plus the action, and a draw adds 100 at once."""

    def remember(self, z: torch.Tensor, action: torch.Tensor) -> tuple[None, None]:
        return None, None

    def imagine(self, z: torch.Tensor, action: torch.Tensor, state: None) -> tuple[torch.Tensor, torch.Tensor, None]:
        expected = z + action
        return expected + 100, expected, state


def test_a_dream_goes_on_from_its_draws_with_the_action_of_each_row(dreams: ModuleType) -> None:
    from _dreaming import WARM_UP, dream

    rows = WARM_UP + 3
    action = 10.0 ** torch.arange(rows)[None, :, None].double()
    latents = torch.zeros(1, WARM_UP, 1).double()
    found = dream(Adds(), latents, action, 3, seed=0)[0, :, 0]
    first, second, third = action[0, WARM_UP - 1 : WARM_UP + 2, 0]
    torch.testing.assert_close(found, torch.stack([first, first + second + 100, first + second + third + 200]))


def test_tokens_are_drawn_one_after_the_other_each_given_those_before(dreams: ModuleType) -> None:
    """Both tokens of a frame are the same one of four, by chance: independent draws would agree once in four."""
    from _dreaming import TokenRnn

    def window() -> dict[str, torch.Tensor]:
        tokens = torch.randint(4, (64, 9, 1)).repeat(1, 1, 2)
        return {"tokens": tokens[:, :-1], "next_tokens": tokens[:, 1:], "action": torch.zeros(64, 8, 1)}

    torch.manual_seed(0)
    model = TokenRnn(window(), torch.eye(4), ActionSpace(action_space(1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.nll(window()).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.9 * math.log(4)
    assert losses[-1] == pytest.approx(math.log(4), rel=0.05)
    seen = window()
    with torch.no_grad():
        drawn, expected, _ = model.imagine(seen["tokens"][:, :1], seen["action"][:, :1], None)
    assert drawn.shape == (64, 1, 2)
    assert (drawn[..., 0] == drawn[..., 1]).float().mean() > 0.9
    assert set(drawn.flatten().tolist()) == {0, 1, 2, 3}
    assert (expected[:, 0, 4:].argmax(dim=-1) == drawn[:, 0, 0]).float().mean() > 0.9


def test_errors_are_in_standard_deviations_over_dreams_and_variables(dreams: ModuleType) -> None:
    from _dreaming import error_curves

    true = np.zeros((2, 3, 2))
    read = true + np.array([[[3.0, 0.0]], [[4.0, 0.0]]])
    found = error_curves(read, true, np.array([5.0, 1.0]))
    np.testing.assert_allclose(found[0], [math.sqrt(0.5), 0, 0.5])
    assert found.shape == (3, 3)


@pytest.mark.parametrize(
    ("curve", "steps"),
    [([0.1, 0.2, 0.3], 3), ([0.6, 0.1, 0.1], 0), ([0.1, 0.5, 0.51, 0.1], 2), ([0.1, math.nan, 0.1], 1)],
)
def test_a_horizon_ends_before_the_first_step_beyond_the_threshold(dreams: ModuleType, curve: list[float], steps: int) -> None:
    from _study_results import horizon

    assert horizon(curve, 0.5) == steps


def test_known_steps_are_the_share_of_variance_that_is_known(dreams: ModuleType) -> None:
    from _study_results import known_steps

    assert known_steps([0.0, 0.5, 1.0, 2.0], [1.0] * 4) == pytest.approx(1.75)
    assert known_steps([0.5, 0.5], [0.5, 1.0]) == pytest.approx(0.75)


def test_draws_have_the_spread_of_the_posterior_and_a_seed(dreams: ModuleType) -> None:
    from _dreaming import draws_of

    mu, logvar = torch.full((4000, 2), 3.0), np.log(np.full((4000, 2), 0.25)).astype(np.float16)
    first, again = (draws_of(mu, {"logvar": logvar}, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.mean().item() == pytest.approx(3, abs=0.03)
    assert first.std().item() == pytest.approx(0.5, abs=0.02)
    assert draws_of(mu, {}, torch.Generator()) is mu


def test_dreams_begin_where_the_car_stays_near_the_road(dreams: ModuleType) -> None:
    from _dreaming import WARM_UP
    from _study_measures import HORIZON, MAX_STARTS, starts_of

    near = np.ones(WARM_UP + HORIZON + 25, bool)
    near[5] = False
    episode = {"near": near}
    assert [row for _, row in starts_of([episode])] == [10, 20]
    assert len(starts_of([episode] * MAX_STARTS)) == MAX_STARTS
    with pytest.raises(SystemExit, match="more --frames"):
        starts_of([{"near": ~near}])


def test_tokens_are_read_as_what_the_decoder_gets(dreams: ModuleType) -> None:
    from _dreaming import features_of

    model = FSQ(FSQConfig(frame_height=16, frame_width=16, levels=(3, 3), token_grid=2))
    tokens = np.array([[[0, 8], [4, 5]]], np.uint8)
    found = features_of(model, {"tokens": tokens})
    assert found.tolist() == [[-1, -1, 1, 1, 0, 0, 1, 0]]


# Results


def result(recipe: str, seed: int, curve: list[float], **figures: float) -> dict[str, Any]:
    curves = {
        "dream": {"offset": curve, "all": curve},
        "latent stays": {"all": [1.0] * 4},
        "state stays": {"all": [0.1, 1, 1, 1]},
    }
    curves |= {"real latents": {"all": [0.25] * 4}, "mean": {"all": [1.0] * len(curve)}}
    zeros = dict.fromkeys(("SSIM", "PSNR at edges", "kerb F1", "car F1", "bytes a frame", "encoding, µs"), 0.0)
    zeros |= dict.fromkeys(
        ("nats over constant", "nats over staying", "kerb recall", "probe R²", "R² of draws", "steering R²"), 0.0
    )
    rest = {"latent": "32 numbers", "curves": curves, "frames scored": 10, "dreams": 5, "PSNR": 20.0, "rate, nats": 1.0}
    budget = {"frames": 1, "steps": 1, "batch size": 1, "dynamics steps": 1}
    head = {"recipe": recipe, "seed": seed, "settings": {}, "budget": budget, "seconds": 1, "machine": "a machine"}
    return {**head, "figures": {**zeros, **rest, **figures}}


def test_a_line_that_was_cut_short_is_dropped_and_replaced(dreams: ModuleType, tmp_path: Path) -> None:
    from _study_results import append_result, is_done, read_results

    file = tmp_path / "results.jsonl"
    assert read_results(file) == []
    first, second = result("ha2018", 0, [0.1] * 4), result("fsq", 0, [0.1] * 4)
    append_result(file, first)
    with file.open("a") as torn:
        torn.write(json.dumps(second)[:50])
    assert read_results(file) == [first]
    assert not is_done(read_results(file), "fsq", 0, {})
    append_result(file, second)
    assert read_results(file) == [first, second]
    assert is_done(read_results(file), "fsq", 0, {})


def test_other_settings_budgets_and_broken_lines_are_refused(dreams: ModuleType, tmp_path: Path) -> None:
    from _study_results import is_done, read_results

    with pytest.raises(SystemExit, match="fsq was measured with"):
        is_done([result("fsq", 0, [0.1])], "fsq", 0, {"levels": [8, 8]})
    file = tmp_path / "results.jsonl"
    lines = [result("fsq", 0, [0.1]), {**result("fsq", 1, [0.1]), "budget": {"frames": 2}}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit, match=r"results.jsonl:2 has another budget"):
        read_results(file)
    file.write_text("{\n" + json.dumps(lines[0]) + "\n")
    with pytest.raises(SystemExit, match=r"results.jsonl:1 is no JSON"):
        read_results(file)


def test_a_directory_has_one_budget(dreams: ModuleType, tmp_path: Path) -> None:
    dreams.require_budget(tmp_path / "out", {"steps": 1})
    dreams.require_budget(tmp_path / "out", {"steps": 1})
    with pytest.raises(SystemExit, match="give another --out"):
        dreams.require_budget(tmp_path / "out", {"steps": 2})


def test_the_tables_come_from_the_results_alone(
    dreams: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from _study_results import append_result

    late = [0.1, 0.1, 0.1, 0.9]
    for line in (
        result("fsq", 0, late, PSNR=30.0),
        result("ha2018", 0, [0.1, 0.9, 0.9, 0.9], PSNR=20.0),
        result("ha2018", 1, [0.1, 0.1, 0.9, 0.9], PSNR=22.0),
        result("conv", 0, [0.1, 0.1, 0.8, 0.9], PSNR=25.0),
        result("mlp", 0, [0.9, 0.9, 0.9, 0.9], PSNR=10.0),
        result("vq", 0, [0.1, 0.1, 0.1, 0.1], PSNR=31.0),
    ):
        append_result(tmp_path / "results.jsonl", line)
    monkeypatch.setattr(sys, "argv", ["dreams.py", "--out", str(tmp_path), "--report"])
    dreams.main()
    printed = capsys.readouterr().out
    assert "5 recipes, 1 or 2 seeds" in printed
    assert "This is a small budget" in printed
    assert "| ha2018 | 32 numbers | 21.00 (20.00–22.00) |" in printed
    assert "| ha2018 | 2 (1–2) | 1.0× | 2.0 (1.6–2.4) | 1.0× | 0 | 0.25 | 2 (1–2) |" in printed
    assert "| fsq | 3 | 2.0× | 3.2 | 1.6× | 0 | 0.25 | 3 |" in printed
    assert "| PSNR | +1.00 (p = 0.000) | +1.00 (p = 0.000) |" in printed
    assert "| SSIM |" not in printed.split("Spearman")[1]
    assert "| kerb recall | – | – |" in printed
    monkeypatch.setattr(sys, "argv", ["dreams.py", "--out", str(tmp_path), "--report", "--threshold", "0.85"])
    dreams.main()
    assert "| conv | 3 | 2.0× |" in capsys.readouterr().out


def test_a_horizon_that_never_ends_is_a_lower_bound(dreams: ModuleType) -> None:
    from _study_results import by_recipe, dreams_table

    table = dreams_table(by_recipe([result("ha2018", 0, [0.1] * 4)]), most=4)
    assert "| ha2018 | >4 |" in table


def test_ranks_are_compared_without_what_is_not_a_number(dreams: ModuleType) -> None:
    from _study_results import rank_correlation

    assert rank_correlation([1, 2, 3, 4, 5, math.nan], [5.0, 4, 3, 2, 1, 9])[0] == pytest.approx(-1)
    assert all(map(math.isnan, rank_correlation([1.0] * 5, [1.0, 2, 3, 4, 5])))
    assert all(map(math.isnan, rank_correlation([1, 2, 3, 4, math.nan], [1, 2, 3, 4, 5])))


@pytest.mark.slow
def test_a_study_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(FOLDER / "dreams.py"),
        "--out",
        str(tmp_path),
        "--seeds",
        "1",
        "--frames",
        "3000",
        "--steps",
        "2",
    ]
    command += ["--batch-size", "4", "--dynamics-steps", "2", "--threads", "1", "--recipes"]

    def run(*recipes: str) -> str:
        return subprocess.run([*command, *recipes], check=True, capture_output=True, text=True).stdout

    assert "ha2018, seed 0: done" in run("ha2018")
    both = run("ha2018", "categorical")
    assert "ha2018, seed 0: done" not in both
    assert "categorical, seed 0: done" in both
    assert "| ha2018 | 32 numbers |" in both
    assert "| categorical | 32 tokens of 32 |" in both
