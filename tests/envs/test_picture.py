"""Pictures in another form: every layout and dtype becomes the exact frame, and what is none, or not clear, is refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.wrappers import FrameStackObservation

from tests.conftest import stamp_config
from worldmodel_v.cli import inspect
from worldmodel_v.collection import collect
from worldmodel_v.envs.image_env import ImageEnv
from worldmodel_v.envs.making import choose_image_env
from worldmodel_v.envs.options import EnvOptions
from worldmodel_v.envs.parts import extra_column, extra_rows, part_of
from worldmodel_v.envs.picture import Picture, is_clear, layout_of, why_no_picture
from worldmodel_v.envs.stamp import StampEnv
from worldmodel_v.errors import EnvironmentNotUsable, EpisodesSetAside
from worldmodel_v.sources import Recorder
from worldmodel_v.storage import open_dataset

AXES = {"T": 4, "H": 40, "W": 48, "C": 3}
LAYOUTS = ["HWC", "HW", "CHW", "THW", "HWT", "THWC", "TCHW"]


def four_frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, [*AXES.values()], np.uint8)


def as_laid_out(layout: str) -> tuple[np.ndarray, np.ndarray]:
    """(four frames as an environment of this layout gives them, the frame that is to be recorded of them)"""
    stack, axes = four_frames(), [axis for axis in "THWC" if axis in layout]
    picked = stack[tuple(slice(None) if axis in axes else -1 for axis in "THWC")]
    newest = stack[-1] if "C" in layout else stack[-1, :, :, -1]
    return np.transpose(picked, [axes.index(axis) for axis in layout]), newest


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_newest_frame(layout: str, dtype: type) -> None:
    values, frame = as_laid_out(layout)
    space = Box(0, 255, values.shape, dtype)
    assert why_no_picture(space, layout) is None
    found = Picture(space, layout)(values.astype(dtype))
    np.testing.assert_array_equal(found, frame, strict=True)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("layout", ["THW", "HWT", "THWC", "TCHW"])
def test_a_stack_whose_newest_frame_is_the_first_is_refused(layout: str) -> None:
    values, _ = as_laid_out(layout)
    axis = layout.index("T")
    frames = [np.moveaxis(values, axis, 0)[number] for number in (0, 0, 0, 0, 0, 1, 2, 0, 1, 0, 1, 0)]
    stacks = [np.stack(frames[first : first + 4], axis) for first in range(len(frames) - 3)]
    oldest_first, newest_first = (Picture(Box(0, 255, values.shape, np.uint8), layout) for _ in range(2))
    for stack, newest in zip(stacks, frames[3:], strict=True):
        np.testing.assert_array_equal(oldest_first(stack), np.moveaxis(newest, 0, -1) if layout == "TCHW" else newest)
    turned = [np.flip(stack, axis) for stack in stacks]
    newest_first(turned[0])
    newest_first(turned[1])  # at rest, nothing shows the order
    with pytest.raises(ValueError, match="the newest frame of its stack is the first"):
        newest_first(turned[2])


class NewestFirst(gymnasium.ObservationWrapper):
    """A stack of the last two frames of the toy world, grey, the newest first."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = Box(0, 255, (2, 64, 64), np.uint8)
        self.stack = np.zeros((2, 64, 64), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        self.stack = np.stack([observation[..., 0], self.stack[0]])
        return self.stack


@pytest.mark.parametrize("pool", ["last", "max"])
def test_nor_where_actions_are_repeated_so_that_no_two_recorded_stacks_share_a_frame(pool: str) -> None:
    options = EnvOptions(frames="observation", layout="THW", frame_skip=2, frame_skip_pool=pool)
    env = ImageEnv(NewestFirst(StampEnv()), options)
    env.reset(0)
    with pytest.raises(ValueError, match="the newest frame of its stack is the first"):
        env.step(env.record_action([0.0, 0.0]))


def test_a_reset_to_the_same_frame_does_not_look_like_another_order() -> None:
    start, end = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    picture = Picture(Box(0, 255, (4, 8, 8), np.uint8), "THW")
    for _ in range(3):  # episodes of one step
        assert not picture(np.stack([start] * 4)).any()
        assert picture(np.stack([start, start, start, end])).all()


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        *[((40, 48, 3), "HWC"), ((40, 48, 1), "HWC"), ((3, 40, 48), "CHW"), ((1, 40, 48), "CHW"), ((40, 48), "HW")],
        *[
            ((4, 40, 48), None),
            ((40, 48, 4), None),
            ((3, 48, 3), None),
            ((4, 40, 48, 3), None),
            ((9, 40, 48), None),
            ((40,), None),
        ],
    ],
)
def test_auto_takes_a_layout_only_where_the_shape_leaves_no_other(shape: tuple[int, ...], layout: str | None) -> None:
    assert layout_of(Box(0, 255, shape, np.uint8)) == layout


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_scaled_by_the_bounds_of_their_space(bounds: tuple[float, float], dtype: type) -> None:
    low, high = bounds
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = (low + levels * ((high - low) / 255)).astype(dtype)
    found = Picture(Box(low, high, (16, 16), dtype), "HW")(values)
    np.testing.assert_array_equal(found, levels, strict=True)


def test_a_half_is_rounded_up() -> None:
    values = np.array([[0.0, 0.25, 0.5, 1.5], [2.5, 254.49, 254.5, 255.0]])
    assert Picture(Box(0, 255, (2, 4), np.float64), "HW")(values).tolist() == [[0, 0, 1, 2], [3, 254, 255, 255]]


@pytest.mark.parametrize(
    ("value", "text"), [(1.5, "1.5"), (1.000001, "1.000001"), (-0.001, "-0.001"), (np.nan, "nan"), (np.inf, "inf")]
)  # fmt: skip
def test_floats_outside_of_their_spaces_bounds_are_refused(value: float, text: str) -> None:
    picture = Picture(Box(0, 1, (2, 2), np.float32), "HW")
    with pytest.raises(ValueError, match=f"^the frame holds {text}, outside of its space's bounds 0 and 1$"):
        picture(np.array([[0, 1], [value, 0.5]], np.float32))


UNEVEN = Box(np.zeros((40, 48)), np.stack([np.full(48, 1.0 + y) for y in range(40)]), dtype=np.float64)
NO_PICTURES: list[tuple[gymnasium.Space, str, str]] = [
    (Discrete(3), "auto", "it is no array"),
    (Box(-1, 1, (4,), np.float32), "auto", "it has no rows and columns"),
    (Box(0, 255, (0, 64, 3), np.uint8), "auto", "it has no values"),
    (Box(0, 255, (4, 40, 48), np.uint8), "auto", "its axes are not clear; say them with layout"),
    (Box(0, 255, (4, 40, 48), np.uint8), "HWC", "its axes are not HWC with 1 or 3 channels"),
    (
        Box(-np.inf, np.inf, (40, 48, 3), np.float32),
        "auto",
        "floats are scaled by finite bounds, the same in every pixel; wrap",
    ),
    (UNEVEN, "HW", "floats are scaled by finite bounds, the same in every pixel; wrap"),
    (Box(0, 10, (7, 7, 3), np.uint8), "auto", "whole numbers are pixels with the bounds 0 and 255, and symbols with others"),
    (Box(0, 10, (40, 48, 3), np.int64), "HWC", "whole numbers are pixels with the bounds 0 and 255, and symbols with others"),
    (Box(0, 1, (40, 48, 3), np.bool_), "auto", "whole numbers are pixels with the bounds 0 and 255, and symbols with others"),
]


@pytest.mark.parametrize(("space", "layout", "text"), NO_PICTURES)
def test_what_no_frame_can_be_made_of_is_refused_with_the_remedy(space: gymnasium.Space, layout: str, text: str) -> None:
    assert str(why_no_picture(space, layout)).startswith(text)
    assert not is_clear(space, layout)


class Shown(gymnasium.Env):
    """Shows what it is told to, in the form of its space, for five steps; `render()` shows something else."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}
    action_space = Discrete(2)

    def __init__(self, space: gymnasium.Space, values: Callable[[int], Any], render_mode: str | None = None) -> None:
        self.observation_space, self._values, self.render_mode = space, values, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self._step = 0
        return self._values(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self._step += 1
        return self._values(self._step), 0.0, self._step == 5, False, {}

    def render(self) -> np.ndarray:
        return np.full((32, 32, 3), 99, np.uint8)


def grid(height: int, width: int, step: int) -> np.ndarray:
    """Objects, colours and states by number, 10 at most."""
    symbols = np.zeros((height, width, 3), np.uint8)
    symbols[step % height, step % width] = 10, 5, step % 3
    return symbols


CASES: dict[str, tuple[gymnasium.Space, Callable[[int], Any]]] = {
    "floats": (Box(0, 1, (40, 48, 3), np.float32), lambda step: np.full((40, 48, 3), step / 10, np.float32)),
    "floats that leave": (Box(0, 1, (40, 48, 3), np.float32), lambda step: np.full((40, 48, 3), step / 3, np.float32)),
    "floats in 0 to 1": (Box(0, 255, (40, 48, 3), np.float32), lambda step: np.full((40, 48, 3), step / 10, np.float32)),
    "stack": (
        Box(0, 255, (4, 40, 48), np.uint8),
        lambda step: np.stack([np.full((40, 48), 10 * step + t, np.uint8) for t in range(4)]),
    ),
    "symbols": (
        Dict({"image": Box(0, 255, (7, 7, 3), np.uint8), "direction": Discrete(4)}),
        lambda step: {"image": grid(7, 7, step), "direction": 0},
    ),
    "larger grid": (Box(0, 255, (25, 19, 3), np.uint8), lambda step: grid(25, 19, step)),
    "dark and of one value": (Box(0, 255, (8, 8, 3), np.uint8), lambda step: np.full((8, 8, 3), step, np.uint8)),
    "dark": (Box(0, 255, (16, 16, 3), np.uint8), lambda step: np.full((16, 16, 3), 10 + step, np.uint8)),
    "small and dark at first": (
        Box(0, 255, (8, 8, 3), np.uint8),
        lambda step: np.full((8, 8, 3), 40 * (step > 3), np.uint8),
    ),
    "matrix": (Box(0, 1, (40, 48), np.float32), lambda step: np.full((40, 48), step / 10, np.float32)),
    "symbols in one buffer": (Box(0, 255, (7, 7, 3), np.uint8), lambda step: in_one_buffer(step)),
}


class Parts(Dict):
    """As a library's own kind of Dict."""


CASES["of a class of its own"] = (
    Parts({"image": Box(0, 255, (16, 16, 3), np.uint8), "goal": Discrete(4)}),
    lambda step: {"image": np.full((16, 16, 3), 40 + step, np.uint8), "goal": 0},
)
USED_AGAIN = np.zeros((7, 7, 3), np.uint8)


def in_one_buffer(step: int) -> np.ndarray:
    """Symbols, of which nothing is left when the episode has ended."""
    USED_AGAIN[:] = grid(7, 7, step) if step < 5 else 0
    return USED_AGAIN


def shown(case: str, **arguments: Any) -> Shown:
    """The environment of a case."""
    return Shown(*CASES[case], **arguments)


for number, case in enumerate(CASES):
    gymnasium.register(f"tests/Shown{number}-v0", entry_point=shown, kwargs={"case": case})


def named(case: str) -> str:
    return f"tests/Shown{[*CASES].index(case)}-v0"


def pixels(tmp_path: Path, case: str, **settings: Any) -> list[int]:
    """The value of each recorded frame of an episode, which are all of one colour."""
    collect(stamp_config(tmp_path / "out", env=named(case), episodes=1, frame_size=16, **settings))
    frames = open_dataset(tmp_path / "out").episode(0).pixels
    assert (frames == frames[:, :1, :1, :1]).all()
    return frames[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("case", "settings", "values"),
    [
        ("floats", {}, [0, 26, 51, 77, 102, 128]),
        ("stack", {"layout": "THW"}, [3, 13, 23, 33, 43, 53]),
        ("small and dark at first", {}, [0, 0, 0, 0, 40, 40]),
        ("dark and of one value", {}, [0, 1, 2, 3, 4, 5]),
        ("dark", {}, [10, 11, 12, 13, 14, 15]),
        ("of a class of its own", {}, [40, 41, 42, 43, 44, 45]),
        ("matrix", {"layout": "HW"}, [0, 26, 51, 77, 102, 128]),
        ("matrix", {"frames": "observation"}, [0, 26, 51, 77, 102, 128]),
        ("matrix", {"frames": "render"}, [99] * 6),
    ],
)
def test_the_agents_picture_is_recorded(tmp_path: Path, case: str, settings: dict[str, Any], values: list[int]) -> None:
    assert pixels(tmp_path, case, **settings) == values


@pytest.mark.parametrize(
    ("case", "settings", "text"),
    [
        (
            "stack",
            {},
            "its observation holds what may be a picture: observation (Box(0, 255, (4, 40, 48), uint8): its axes are not",
        ),
        ("stack", {"layout": "HWT", "frames": "render"}, "layout='HWT': its observation is Box("),
        ("stack", {"frames": "observation.image"}, "frames='observation.image': there is no observation.image; pictures in"),
        (
            "matrix",
            {},
            "float32): if it is one, say frames='observation'); or else record the spectator's view with frames='render'",
        ),
        (
            "symbols",
            {},
            "observation.image is no picture: nothing in its first 6 frames is above 10 of 255, as in a grid of",
        ),
        ("symbols", {"frames": "observation.image"}, "is no picture: nothing in its first 6 frames is above 10 of 255"),
        ("larger grid", {}, "observation is no picture: nothing in its first 6 frames is above 10 of 255"),
        ("symbols in one buffer", {}, "observation is no picture: nothing in its first 6 frames is above 10 of 255"),
        ("floats in 0 to 1", {}, "is no picture: nothing in its first 6 frames is above 1 of 255"),
    ],
)
def test_what_is_no_picture_or_not_clear_is_refused_before_anything_is_written(
    tmp_path: Path, case: str, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(EnvironmentNotUsable) as caught:
        pixels(tmp_path, case, **settings)
    assert text in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_float_that_leaves_its_bounds_fails_its_episode_by_the_step(tmp_path: Path) -> None:
    with pytest.raises(
        EpisodesSetAside, match=r"in step 3: ValueError: the frame holds 1\.3333\d*, outside of its space's bounds"
    ):
        pixels(tmp_path, "floats that leave")


def test_a_stack_of_three_is_not_taken_for_three_channels() -> None:
    grey = Shown(Box(0, 255, (40, 48), np.uint8), lambda step: np.full((40, 48), step, np.uint8))
    stacked = FrameStackObservation(grey, 3)
    with pytest.raises(EnvironmentNotUsable, match=r"say which it is with layout='THW' or layout='CHW'$"):
        choose_image_env(stacked, "stacked", EnvOptions())
    env = choose_image_env(stacked, "stacked", EnvOptions(layout="THW"))
    env.reset(0)
    assert [int(env.step(0)[0].max()) for _ in range(4)] == [1, 2, 3, 4]


def test_the_layout_is_recorded_and_shown(
    tmp_path: Path, stamp_rollouts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def facts(path: Path, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["wm-inspect", str(path), *options])
        inspect.main()
        return capsys.readouterr().out

    pixels(tmp_path, "stack", layout="THW")
    assert "layout" not in open_dataset(stamp_rollouts).spec.settings()  # as in datasets from before there were layouts
    for path, layout in ((tmp_path / "out", "THW"), (stamp_rollouts, "HWC")):
        assert json.loads(facts(path, "--json"))["settings"]["layout"] == layout
        assert f" layout {layout}," in " ".join(facts(path).split())


def test_a_recorder_takes_layouts_too(tmp_path: Path) -> None:
    with Recorder(shown("stack"), tmp_path / "out", layout="THW", frame_size=16) as env:
        env.reset()
        env.step(0)
        env.step(1)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.spec.layout == "THW"
    assert dataset.episode(0).pixels[:, 0, 0, 0].tolist() == [3, 13, 23]


PLAIN = Box(0, 255, (40, 48, 3), np.uint8)
DOTS = Dict({"images.top": PLAIN, "state": Box(-1, 1, (2,), np.float32)})
NUMBERS = Dict({0: PLAIN, 1: Discrete(3)})  # type: ignore[dict-item]


def bright(step: int, height: int = 40) -> np.ndarray:
    return np.full((height, 48, 3), 100 + step, np.uint8)


@pytest.mark.parametrize(
    ("space", "values", "frames"),
    [
        (DOTS, lambda step: {"images.top": bright(step), "state": np.zeros(2)}, "observation.images.top"),
        (NUMBERS, lambda step: {0: bright(step), 1: 2}, "observation.0"),
    ],
)
def test_keys_may_hold_dots_or_be_numbers(space: gymnasium.Space, values: Callable[[int], Any], frames: str) -> None:
    env = choose_image_env(Shown(space, values), "world", EnvOptions(record=("observation.state",) if space is DOTS else ()))
    assert env.frames == frames
    assert [int(env.reset(0).max()), int(env.step(0)[0].max())] == [100, 101]


def test_a_path_that_names_two_parts_is_refused() -> None:
    twice = Shown(Dict({"cam.left": PLAIN, "cam": Dict({"left": PLAIN})}), lambda step: {})
    with pytest.raises(EnvironmentNotUsable, match=r"world: its observation holds 2 parts called observation\.cam\.left"):
        choose_image_env(twice, "world", EnvOptions())
    with pytest.raises(ValueError, match=r"a\.b names 2 parts"):
        part_of({"a.b": 1.0, "a": {"b": 2.0}}, ("a", "b"))


OTHERS = [
    (1.0, 2**53 + 1),
    (1, 0.5),
    (np.float32(1), 0.1),
    (True, 2),
    (1, 2**63 + 7),
    (np.uint8(1), np.int8(-1)),
    (1.0, np.ma.masked),
]


@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_a_value_that_its_column_does_not_hold_exactly_is_refused(first: Any, second: Any) -> None:
    column = extra_column("info.x", [first])
    assert extra_rows(column, [first, first]).tolist() == [first, first]
    with pytest.raises(ValueError, match=rf"info\.x in step 1 is .*, which {column.dtype} cannot hold"):
        extra_rows(column, [first, second])


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        (0, 0.5, "float64"),
        (1, 2, "int64"),
        (np.float32(1), np.float32(2), "float32"),
        (np.float32(1), 0.1, "float64"),
        ([0, 0], [0.5, 1], "float64"),
        (True, 2, "bool"),
        (np.uint8(1), -1, "int64"),
    ],
)
def test_a_column_holds_what_the_reset_and_the_first_step_give(first: Any, second: Any, dtype: str) -> None:
    assert extra_column("info.x", [first, second]).dtype == dtype


def test_a_chance_that_is_1_at_the_reset_is_recorded(tmp_path: Path) -> None:
    settings = {"env": "FrozenLake-v1", "frames": "render", "record": ("info.prob",)}
    collect(stamp_config(tmp_path / "out", **settings, policy="random", episodes=1))
    collected = open_dataset(tmp_path / "out").episode(0).columns["info.prob"]
    assert collected[:2].tolist() == pytest.approx([1, 1 / 3])
    with Recorder(gymnasium.make("FrozenLake-v1", render_mode="rgb_array"), tmp_path / "own", record=("info.prob",)) as env:
        env.reset()
        env.step(0)
    assert open_dataset(tmp_path / "own").episode(0).columns["info.prob"].tolist() == pytest.approx([1, 1 / 3])


def test_lists_of_several_lengths_are_no_array_and_are_named() -> None:
    uneven = [[1, 2], [3]]
    with pytest.raises(EnvironmentNotUsable, match=r"info\.x': is .* \(list\); expected a number or an array"):
        extra_column("info.x", [uneven])
    with pytest.raises(ValueError, match=r"info\.x in step 1: expected int64 \[2, 2\], got \[\[1, 2\], \[3\]\] \(list\)"):
        extra_rows(extra_column("info.x", [[[1, 2], [3, 4]]]), [[[1, 2], [3, 4]], uneven])


def test_numbers_in_the_other_byte_order_are_recorded() -> None:
    values = [np.array([value], ">i4") for value in (1, 70_000)]
    column = extra_column("info.x", values)
    assert column.dtype == "int32"
    assert extra_rows(column, values).tolist() == [[1], [70_000]]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_arrays_of_a_class_of_their_own_are_frames_by_their_values() -> None:
    grey = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48)
    env = choose_image_env(Shown(Box(0, 255, (40, 48), np.uint8), lambda step: np.matrix(grey)), "world", EnvOptions())
    frame = env.reset(0)
    assert type(frame) is np.ndarray
    np.testing.assert_array_equal(frame, grey)
    picture = Picture(Box(0, 1, (40, 48), np.float32), "HW")
    with pytest.raises(ValueError, match="the frame has masked values; fill them"):
        picture(np.ma.masked_less(np.zeros((40, 48), np.float32), 1))


def test_whole_numbers_in_the_place_of_uint8_do_not_wrap_around() -> None:
    picture = Picture(Box(0, 255, (3, 40, 48), np.uint8), "CHW")
    levels = np.arange(3 * 40 * 48, dtype=np.uint16).reshape(3, 40, 48)
    np.testing.assert_array_equal(picture(levels % 256), np.moveaxis(levels % 256, 0, -1))
    with pytest.raises(ValueError, match="the frame holds 256, outside of its space's bounds 0 and 255"):
        picture(np.full((3, 40, 48), 256, np.uint16))


def test_info_may_be_any_mapping() -> None:
    assert part_of(MappingProxyType({"arm": MappingProxyType({"speed": 3})}), ("arm", "speed")) == 3


def test_a_picture_in_an_observation_has_the_shape_that_its_space_says() -> None:
    taller = Shown(Dict({"image": PLAIN}), lambda step: {"image": bright(step, height=80)})
    with pytest.raises(ValueError, match=r"the frame has shape \(80, 48, 3\), the observation space \(40, 48, 3\)"):
        choose_image_env(taller, "world", EnvOptions()).reset(0)


class AlwaysDraws(Shown):
    """Has its render mode without being asked for it."""

    def __init__(self) -> None:
        super().__init__(Box(-1, 1, (2,), np.float32), lambda step: np.zeros(2, np.float32), "rgb_array")


gymnasium.register("tests/AlwaysDraws-v0", entry_point=AlwaysDraws)


@pytest.mark.parametrize("frames", ["auto", "render"])
def test_what_always_draws_is_not_asked_to(frames: str, tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", env="tests/AlwaysDraws-v0", episodes=2, frames=frames))
    assert all((episode.pixels == 99).all() for episode in open_dataset(tmp_path / "out"))
