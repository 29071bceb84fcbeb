"""A user's own loop: a wrapper that records what the user does with an environment.

An episode is recorded when it ends. Each is one shard, committed as `wm-collect` commits its shards. So a kill loses only the
episode in progress, and the same script continues with the next number.
"""

import os
import weakref
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gymnasium
import numpy as np

from worldmodel_v.envs import frame_preprocessor
from worldmodel_v.envs.actions import require_inside
from worldmodel_v.envs.around import arguments, around
from worldmodel_v.envs.calls import calls_noted
from worldmodel_v.envs.engines import engines
from worldmodel_v.envs.making import choose_image_env
from worldmodel_v.envs.options import EnvOptions
from worldmodel_v.envs.parts import extra_columns
from worldmodel_v.envs.picture import AUTO, Layout
from worldmodel_v.envs.source import as_json, env_source
from worldmodel_v.errors import ConfigError, EnvironmentNotUsable
from worldmodel_v.preprocessing import Fit, Preprocessing, Resize, parse_frame_size, require_trainable
from worldmodel_v.records import MAX_SEED, Episode
from worldmodel_v.settings import local_path, require_at_least
from worldmodel_v.sources.base import episode_seeds
from worldmodel_v.sources.rows import EpisodeRows
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import DatasetWriter, build_shard
from worldmodel_v.storage.index import INDEX_NAME, read_index
from worldmodel_v.storage.layout import MAX_ROWS_PER_EPISODE


class Recorder(gymnasium.Wrapper):
    """Wraps an environment that the user steps, with any policy, human play included; use it as a context manager.

    The environment receives each action as it is recorded, cast to its space's dtype. `reset()` without a seed takes the next
    seed from the root seed, so that every recorded episode can be played again. An episode that is reset or closed before its
    end is recorded as truncated there. An episode is dropped if a step raises, if the environment is stepped or reset past the
    recorder, or if an exception leaves the context.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        out: str | Path,
        *,
        frame_size: int | str = 64,
        crop: str = AUTO,
        resize: Resize = "area",
        fit: Fit = "stretch",
        frames: str = AUTO,
        layout: Layout = AUTO,
        record: tuple[str, ...] = (),
        policy: str = "own",
        seed: int = 0,
    ) -> None:
        """Frames and what is recorded beside them as `wm-collect` takes them; `policy` says who acts.

        Nothing is written before the first episode begins. Raises EnvironmentNotUsable if the environment shows no picture, or
        if a dataset cannot hold its actions, and ConfigError if no architecture trains on such frames or the seed is negative.
        """
        if not isinstance(env, gymnasium.Env):
            raise EnvironmentNotUsable(where="Recorder", expected="one gymnasium.Env", got=type(env).__name__)
        super().__init__(env)
        require_at_least(0, seed=seed)
        if not isinstance(policy, str) or not policy.isprintable():
            raise ConfigError("Recorder: the name of who acts", field="policy", expected="a printable text", got=policy)
        options = EnvOptions(frames=frames, layout=layout, record=record)
        self._image_env = choose_image_env(env, env.spec.id if env.spec else type(env.unwrapped).__name__, options)
        height, width = parse_frame_size(frame_size)
        require_trainable(height, width, where="Recorder", field="frame_size", got=frame_size)
        crop = self._image_env.default_crop if crop == AUTO else crop
        self._preprocessing = Preprocessing(crop=crop, frame_height=height, frame_width=width, resize=resize, fit=fit)
        self._out, self._policy, self._root_seed = local_path(out).absolute(), policy, int(seed)
        self._writer: DatasetWriter | None = None
        self._source: dict[str, str] | None = None
        self._reset_options: dict[str, Any] = {}
        self._noting = ExitStack()
        weakref.finalize(self, self._noting.close)
        self._rows: EpisodeRows | None = None
        self._seed = 0
        self._process = os.getpid()

    @property
    def num_episodes(self) -> int:
        """Episodes in the dataset, those of earlier runs included."""
        return len(self._writer.entries if self._writer else read_index(self._out / INDEX_NAME))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode; raises ConfigError if int64 lacks the seed, or if the options are others than those of the
        dataset's first episode. The first reset opens the dataset, or with `record` the first step, and raises OutputNotUsable
        if `out` holds something else."""
        if seed is not None and not (isinstance(seed, int | np.integer) and 0 <= seed <= MAX_SEED):
            raise ConfigError("Recorder: a seed that is recorded", expected=f"a whole number from 0 to {MAX_SEED}", got=seed)
        recorded_options = as_json(dict(options or {}))
        if self._writer is not None and recorded_options != self._writer.spec.reset_options:
            raise ConfigError(
                "Recorder: the options of a reset, which are recorded once for all episodes",
                expected=str(self._writer.spec.reset_options),
                got=options,
                remedy="record these episodes into another directory, or have a wrapper draw the options by the seed",
            )
        self._cut()
        self._reset_options = recorded_options
        self._seed = episode_seeds(self._root_seed, self.num_episodes)[0] if seed is None else int(seed)
        raw = self._image_env.reset(self._seed, options)
        if self._writer is not None:
            self._image_env.require_as_recorded(self._writer.spec.schema, self._writer.spec.render_shape)
        rows = EpisodeRows(self._image_env, frame_preprocessor(raw.shape, self._preprocessing))
        rows.see(raw)
        self._note_calls()
        if self._writer is None and not self._image_env.record:  # else the first step says what these hold
            self._begin(rows)
        self._rows = rows
        self._image_env.calls.clear()
        return self._image_env.seen

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step; an episode that ends with it is committed before this returns.

        Raises ValueError or TypeError, before the environment moves, for an action that is none of its space; the loop may then
        take another.
        """
        if self._rows is None:
            raise ConfigError(
                "Recorder: the episode has ended or a step of it has failed, or none has begun",
                remedy="call reset() before step()",
            )
        if calls := self._image_env.calls:
            self._rows = None
            raise ConfigError(
                f"Recorder: the environment's {calls[0].name} was called past the recorder, so the next action would stand "
                "beside a frame that it was not chosen on; the episode is dropped",
                remedy="call the recorder's step and reset alone, and try actions out on a copy, copy.deepcopy(env.unwrapped)",
            )
        recorded = self._image_env.record_action(action)
        one, number = np.asarray(recorded)[None], self._rows.num_steps
        require_inside(self._image_env.action_space, self._image_env.actions, one, whose="the action", first_step=number)
        rows, self._rows = self._rows, None  # so none is left if something raises: the environment may have moved on
        raw, reward, terminated, truncated = self._image_env.step(recorded)
        self._image_env.calls.clear()
        rows.add(recorded, reward, terminated, truncated)
        rows.see(raw)
        if self._writer is None:
            self._begin(rows)
        self._rows = rows
        if terminated or truncated:
            self._commit()
        observation, info = self._image_env.seen
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Record the episode in progress as truncated, and close the dataset and the environment; may be called again.

        In a fork of the process that made the recorder it does nothing.
        """
        if os.getpid() != self._process:
            return
        try:
            self._cut()
        finally:
            self._let_go()
            super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._rows = None
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a Recorder is neither copied nor pickled, as two would write into one directory; copy the environment "
            "inside, copy.deepcopy(env.unwrapped), or make a Recorder in the process that steps it"
        )

    def _note_calls(self) -> None:
        """From now on, note who steps and resets the environment, whose layers this reset may have replaced; its source is read
        first, as noting changes its classes."""
        if self._source is None:
            self._source = env_source(self.env) | around(self.env) | engines(self.env)
        self._noting.close()
        self._image_env.calls = self._noting.enter_context(calls_noted(self.env))

    def _begin(self, rows: EpisodeRows) -> None:
        """Open the dataset, with a schema from what the first episode has shown."""
        env = self._image_env
        assert self._source is not None
        extras = extra_columns(env.record, rows.extras(), env.seen)
        spec = RolloutSpec(
            schema=env.schema(self._preprocessing.frame_shape, extras),
            env=self.env.spec.id if self.env.spec else type(self.env.unwrapped).__name__,
            env_kwargs=as_json(self.env.spec.kwargs) if self.env.spec else arguments(self.env.unwrapped),
            policy=self._policy,
            seed=self._root_seed,
            max_steps=MAX_ROWS_PER_EPISODE - 1,
            **vars(self._preprocessing),
            episodes_per_shard=1,
            frames=env.frames,
            layout=env.layout,
            render_shape=env.render_shape,
            record=env.record,
            reset_options=self._reset_options,
            gymnasium=gymnasium.__version__,
            env_source=self._source,
        )
        self._writer = DatasetWriter(self._out, spec)

    def _cut(self) -> None:
        """Commit the episode in progress as cut there, if it has any step."""
        if self._rows is not None and self._rows.num_steps:
            self._rows.cut()
            self._commit()
        self._rows = None

    def _commit(self) -> None:
        rows, writer = self._rows, self._writer
        assert rows is not None
        assert writer is not None
        self._rows = None
        number, spec = len(writer.entries), writer.spec
        columns = rows.columns(spec.schema)
        episode = Episode(schema=spec.schema, episode_id=number, seed=self._seed, policy=self._policy, columns=columns)
        writer.commit(number, build_shard([episode], spec_hash=spec.hash))

    def _let_go(self) -> None:
        self._noting.close()
        self._source = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
