"""Gymnasium's ``CarRacing-v3`` with a compiled drawing of the observation.

`FastCarRacing` is Gymnasium's own environment (track, rewards, terminations, seeding and `render()` are inherited, Box2D moves
the car, `car` computes the wheels) except for the drawing of the 96x96 observation, which takes 98% of Gymnasium's time: Python
transforms some 700 polygons, pygame draws those in sight on a 1000x800 surface, and the surface is shrunk. Here `kernels`
computes the same bytes directly.

**Chosen**: byte identity.  The kernels follow pygame's rasterisers, blending
and area filter in integer arithmetic, so a policy or a world model trained
here sees exactly what Gymnasium would show it, and tests can compare with
``==``.

**Cost**: numba, 15 to 30 seconds of compilation once per machine (cached; call `warm_up` to choose when), and a dependency on
details of pygame-ce: the tests would show if another release rasterises differently.

**Rejected**, with microseconds per frame over a recorded lap on one machine,
out of 131 for all the compiled work:

- a canvas of rows, filled span by span (the first version: a frame on the road
  took 241 when repeated, 103 now), with many short loops of unpredictable
  length, which cost still more where each frame is new;
- pixels of four 16-bit lanes instead of bytes, with twice the memory traffic,
  and smooth lines blended one pixel at a time: 20 more together;
- masked stores instead of reading, selecting and storing: 7 more;
- leaving out those edges which a later tile overpaints: saves 4 of painting,
  costs 4 of finding them;
- reading Box2D's memory directly (not tried; it would break with the first
  rebuild).

Anything but ``state_pixels`` is drawn by the inherited pygame path.
"""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import numpy as np
import pygame
from gymnasium.envs.box2d.car_dynamics import Car
from gymnasium.envs.box2d.car_racing import (
    GRASS_DIM,
    PLAYFIELD,
    SCALE,
    STATE_H,
    STATE_W,
    WINDOW_H,
    ZOOM,
    CarRacing,
)

from worldmodel_v.envs.fast_car_racing import kernels
from worldmodel_v.envs.fast_car_racing.car import make_fast

SCORE_FONT_SIZE = 42
SCORE_CENTRE = (60, WINDOW_H - WINDOW_H * 2.5 / 40.0)
SCORES_KEPT = 2048  # about 5 kB each
START_ZOOM = 0.1
GRASS_RANGE = range(-20, 20, 2)
SPARE_POLYGONS = 200  # in the workspace, for longer tracks to come


class _Score(NamedTuple):
    """The score as it appears on the panel."""

    grey_HW: np.ndarray
    left: int
    top: int


_scores: dict[str, _Score] = {}


def _score(reward: float) -> _Score:
    """What shows the sum of rewards."""
    text = f"{reward:04.0f}"
    score = _scores.get(text)
    if score is None:
        if len(_scores) >= SCORES_KEPT:
            _scores.clear()
        near = range(round(reward) - 30, round(reward) + 70) if math.isfinite(reward) else ()
        drawn = _draw_scores({text, *(f"{each:04d}" for each in near)})
        _scores.update(drawn)
        score = drawn[text]
    return score


def _draw_scores(texts: set[str]) -> dict[str, _Score]:
    """A score and those that are likely to follow, because the first text of a font takes as long as 40 others.

    The font is opened each time: after a `pygame.quit()`, pygame 2.6 draws with an open one into memory that is free.
    """
    pygame.font.init()
    font = pygame.font.Font(pygame.font.get_default_font(), SCORE_FONT_SIZE)
    return {text: _grey(font.render(text, True, (255, 255, 255), (0, 0, 0))) for text in texts}


def _grey(surface: pygame.Surface) -> _Score:
    """White text on black, where Gymnasium shows it."""
    rect = surface.get_rect()
    rect.center = SCORE_CENTRE
    grey_WH = pygame.surfarray.array3d(surface)[:, :, 0]
    return _Score(np.ascontiguousarray(grey_WH.T), rect.left, rect.top)


def _ground_quads() -> list[list[tuple[float, float]]]:
    """The playfield and its patches of lighter grass."""
    edge = PLAYFIELD
    quads = [[(edge, edge), (edge, -edge), (-edge, -edge), (-edge, edge)]]
    for column in GRASS_RANGE:
        for row in GRASS_RANGE:
            x, y = GRASS_DIM * column, GRASS_DIM * row
            quads.append(
                [
                    (x + GRASS_DIM, y),
                    (x, y),
                    (x, y + GRASS_DIM),
                    (x + GRASS_DIM, y + GRASS_DIM),
                ]
            )
    return quads


def _build_world(env: CarRacing) -> kernels.World:
    """Gather what does not move, and let the road's tiles keep their colours in it.

    A visited tile changes colour by writing into its own array, so each tile's
    array becomes a row of the world's: no frame needs to look for changes.
    """
    ground = _ground_quads()
    patches = len(ground) - 1
    quads = np.array(ground + [quad for quad, _ in env.road_poly], dtype=np.float64)
    colours = np.array(
        [env.bg_color] + [env.grass_color] * patches + [colour for _, colour in env.road_poly],
        dtype=np.float64,
    )
    tile_of = {id(tile.color): tile for tile in env.road}
    for k, (quad, colour) in enumerate(env.road_poly):
        tile = tile_of.get(id(colour))
        if tile is not None:
            tile.color = colours[len(ground) + k]
            env.road_poly[k] = (quad, tile.color)
    centres = quads.mean(axis=1)
    radii = np.linalg.norm(quads - centres[:, None], axis=2).max(axis=1)
    return kernels.World(quads, colours, centres, radii)


def _car_shape(car: Car) -> kernels.CarShape:
    """Gather the car's polygons in the order in which Gymnasium draws them."""
    polygons = [
        (fixture.shape.vertices, index, [int(c * 255) for c in body.color])
        for index, body in enumerate(car.drawlist)
        for fixture in body.fixtures
    ]
    paths = np.zeros((len(polygons), kernels.MAX_VERTICES, 2), dtype=np.float32)
    for path, (vertices, _, _) in zip(paths, polygons, strict=True):
        path[: len(vertices)] = vertices
    return kernels.CarShape(
        paths=paths,
        sizes=np.array([len(vertices) for vertices, _, _ in polygons]),
        bodies=np.array([index for _, index, _ in polygons]),
        rgb=np.array([r | g << 8 | b << 16 for _, _, (r, g, b) in polygons], dtype=np.uint32),
    )


_of_thread = threading.local()


def workspace(static_polygons: int) -> kernels.Workspace:
    """The scratch memory of all drawing in this thread, for worlds of so many polygons at least: with many environments, each
    one's own would not be in the core's cache when it is needed."""
    if getattr(_of_thread, "capacity", 0) < static_polygons:
        _of_thread.capacity = static_polygons + SPARE_POLYGONS
        _of_thread.work = kernels.make_workspace(_of_thread.capacity)
    work: kernels.Workspace = _of_thread.work
    return work


class _Scene:
    """What the drawing keeps between the frames of one episode."""

    def __init__(self, env: CarRacing) -> None:
        self.world = _build_world(env)
        self.state = np.zeros(kernels.STATE_FIELDS)
        self.car: Car | None = None
        self.car_shape: kernels.CarShape | None = None

    def observe(self, car: Car, time: float) -> None:
        """Record the moment to draw (see ``kernels.STATE_*``)."""
        if self.car is not car:
            self.car, self.car_shape = car, _car_shape(car)
        hull, wheels = car.hull, car.wheels
        values = [
            START_ZOOM * SCALE * max(1 - time, 0) + ZOOM * SCALE * min(time, 1),
            -hull.angle,
        ]
        for body in car.drawlist:
            transform = body.transform
            position, turn = transform.position, transform.q
            values += (position.x, position.y, turn.s, turn.c)
        values += [wheel.phase for wheel in wheels]
        values += [wheel.omega for wheel in wheels]
        velocity = hull.linearVelocity
        values += (velocity.x, velocity.y, wheels[0].joint.angle, hull.angularVelocity)
        self.state[:] = values

    def draw(self, score: _Score) -> np.ndarray:
        """Draw the moment recorded last, as a new (96, 96, 3) array."""
        assert self.car_shape is not None
        frame_HWC = np.empty((STATE_H, STATE_W, 3), dtype=np.uint8)
        kernels.draw_frame(
            tuple(workspace(len(self.world.quads))),
            tuple(self.world),
            tuple(self.car_shape),
            self.state,
            score.grey_HW,
            score.left,
            score.top,
            frame_HWC,
        )
        return frame_HWC


class FastCarRacing(CarRacing):
    """``CarRacing-v3``, the same to the byte, with faster observations.

    Takes the arguments of Gymnasium's class.  ``render()`` works in every mode.
    One difference in kind: observations are C-contiguous arrays, where
    Gymnasium returns transposed views.
    """

    _scene: _Scene | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's."""
        begun = super().reset(seed=seed, options=options)
        make_fast(self.car)
        return begun

    def _create_track(self) -> bool:
        if not super()._create_track():
            return False
        self._scene = _Scene(self)
        return True

    def _render(self, mode: str) -> np.ndarray | bool | None:
        if mode != "state_pixels":
            return super()._render(mode)
        if self._scene is None or self.car is None:
            return None  # reset() not called yet
        self._scene.observe(self.car, self.t)
        return self._scene.draw(_score(self.reward))


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache."""
    env = FastCarRacing()
    env.reset(seed=0)
    env.close()
