"""What flows through the pipeline: one episode as pixels, and one episode as latents.

Legend: T actions in the episode, so T + 1 rows; H, W frame height and width; A action size; S state factors; Z latent size.

Both records are frozen and checked when they are made, so that a wrong shape or dtype stops where it arises and not
three stages later. An episode of T actions is T + 1 rows in every column; the last row holds the final observation alone,
with NaN (discrete: -1) for its action and NaN for its reward.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from worldmodel_v.errors import EpisodeFailed

Array = np.ndarray


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class _Trajectory:
    """The columns that both kinds of episode share. Every array has T + 1 rows."""

    episode_id: int
    """Which episode of its dataset this is, from 0."""

    seed: int
    """The seed that the environment was reset with."""

    action: Array
    """float32 (T + 1, A), or int64 (T + 1,) for discrete actions; the last row is NaN (discrete: -1)."""

    reward: Array
    """float32 (T + 1,); the last row is NaN."""

    terminated: Array
    """bool (T + 1,): whether the row's action ended the episode."""

    truncated: Array
    """bool (T + 1,): whether the episode was cut after the row's action."""

    policy: str = ""
    """Which policy drove it: of a mixture, the one that was drawn. Empty where the file does not say."""

    state: Array | None = None
    """float32 (T + 1, S): the environment's ground truth, where it offers one."""

    state_names: tuple[str, ...] = ()
    """The names of the S factors of `state`."""

    observation_columns: ClassVar[tuple[str, ...]] = ()

    @property
    def num_rows(self) -> int:
        return len(self.reward)

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return self.num_rows - 1

    @property
    def episode_return(self) -> float:
        """The undiscounted sum of rewards, in float64."""
        return float(self.reward[:-1].sum(dtype=np.float64))

    def columns(self) -> dict[str, Array]:
        """All columns by their name in the file, in the file's order."""
        names = [*self.observation_columns, "action", "reward", "terminated", "truncated"]
        if self.state is not None:
            names.append("state")
        return {name: getattr(self, name) for name in names}

    def __post_init__(self) -> None:
        for name, column in self.columns().items():
            self._require(len(column) == self.num_rows, f"{name} has {len(column)} rows, reward has {self.num_rows}")
        self._require(self.num_rows >= 2, f"expected at least one action, got {self.num_rows} rows")
        self._check_dtypes()
        self._check_final_row()
        self._check_endings()

    def _check_dtypes(self) -> None:
        discrete = self.action.ndim == 1
        self._require_dtype("action", np.int64 if discrete else np.float32, ndim=1 if discrete else 2)
        self._require_dtype("reward", np.float32, ndim=1)
        self._require_dtype("terminated", np.bool_, ndim=1)
        self._require_dtype("truncated", np.bool_, ndim=1)
        if self.state is not None:
            self._require_dtype("state", np.float32, ndim=2)
            num_factors = self.state.shape[1]
            self._require(num_factors == len(self.state_names), f"{num_factors} state factors but {self.state_names}")
            self._require_finite(self.state, "state holds NaN or infinite values", self.state_names)

    def _check_final_row(self) -> None:
        final = self.action[-1]
        empty = final == -1 if self.action.ndim == 1 else np.isnan(final)
        self._require(bool(np.all(empty)) and bool(np.isnan(self.reward[-1])), "the last row must hold no action or reward")
        self._require_finite(self.reward[:-1], "reward is NaN or infinite before the last row")
        if self.action.ndim == 2:
            self._require_finite(self.action[:-1], "action is NaN or infinite before the last row")

    def _check_endings(self) -> None:
        ended = self.terminated | self.truncated
        self._require(not ended[:-2].any() and not ended[-1], "the episode goes on after it ended")
        self._require(bool(ended[-2]), "the last action neither terminated nor truncated the episode")

    def _require_dtype(self, name: str, dtype: type, ndim: int) -> None:
        column = getattr(self, name)
        found = f"{column.dtype} with {column.ndim} axes"
        expected = f"{np.dtype(dtype)} with {ndim} axes"
        self._require(found == expected, f"{name}: expected {expected}, got {found}")

    def _require_finite(self, values: Array, what: str, names: tuple[str, ...] = ()) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            row, *column = np.argwhere(~finite)[0].tolist()
            name = f"{names[column[0]]} is " if names else ""
            self._require(False, f"{what}: {name}{values[row, *column]} in row {row}")

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise EpisodeFailed(f"episode {self.episode_id} (seed {self.seed}): {what}")

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {column.dtype}{list(column.shape)}" for name, column in self.columns().items())
        return f"{type(self).__name__}({self.episode_id}, seed {self.seed}, {self.num_steps} steps: {shapes})"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Episode(_Trajectory):
    """One rolled-out episode, as frames."""

    pixels: Array
    """uint8 (T + 1, H, W, 3), RGB: row t is what the agent saw when it chose action t."""

    observation_columns: ClassVar[tuple[str, ...]] = ("pixels",)

    def _check_dtypes(self) -> None:
        self._require_dtype("pixels", np.uint8, ndim=4)
        self._require(self.pixels.shape[3] == 3, f"pixels: expected 3 channels, got frames of {self.pixels.shape[1:]}")
        super()._check_dtypes()


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LatentSequence(_Trajectory):
    """One episode as a sequence of posteriors N(mu, exp(logvar)), row for row the episode it was encoded from."""

    mu: Array
    """float32 (float16 on request) (T + 1, Z): the posterior's mean."""

    logvar: Array
    """Like `mu`: log σ², the logarithm of the posterior's variance."""

    observation_columns: ClassVar[tuple[str, ...]] = ("mu", "logvar")

    def _check_dtypes(self) -> None:
        for name in self.observation_columns:
            column = getattr(self, name)
            self._require(column.dtype in (np.float32, np.float16), f"{name}: expected float32 or float16, got {column.dtype}")
            self._require(column.ndim == 2, f"{name}: expected 2 axes, got {column.ndim}")
            self._require(bool(np.isfinite(column).all()), f"{name} holds NaN or infinite values")
        same = (self.mu.dtype, self.mu.shape) == (self.logvar.dtype, self.logvar.shape)
        self._require(same, f"mu is {self.mu.dtype}{self.mu.shape}, logvar {self.logvar.dtype}{self.logvar.shape}")
        super()._check_dtypes()
