"""A Gymnasium environment and a policy: one episode, start to end, as a function of the settings and the episode's number."""

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.code.origin import held_in_common
from worldmodel_v.envs import ImageEnv, frame_preprocessor, import_env, make_image_env
from worldmodel_v.envs.calls import calls_noted
from worldmodel_v.envs.engines import installed, unsaid_engines
from worldmodel_v.envs.making import registration_kept
from worldmodel_v.envs.options import EnvOptions
from worldmodel_v.envs.source import env_source, is_known
from worldmodel_v.errors import (
    EnvironmentNotUsable,
    EpisodeFailed,
    PolicyNotUsable,
    WorldModelError,
    one_line,
    retold,
    shown,
)
from worldmodel_v.interrupts import handlers_restored
from worldmodel_v.policies import POLICIES, Policy, next_action, parse_policy, policy_maker, policy_source
from worldmodel_v.process import directory_kept
from worldmodel_v.records import Episode
from worldmodel_v.sources.base import episode_apart, episode_seeds
from worldmodel_v.sources.rows import EpisodeRows
from worldmodel_v.spec import RolloutSpec, differences
from worldmodel_v.surface import option
from worldmodel_v.untrusted import shortened

MAX_NAME = 1000
"""Characters of what a policy says it has chosen."""


@dataclass(frozen=True)
class GymSource:
    """Plays each episode in a fresh environment."""

    spec: RolloutSpec

    def check(self) -> None:
        """Raise EnvironmentNotUsable if this machine has another version of environment or policy than the settings say, or of
        what the environment simulates and draws with, or no such environment, and PolicyNotUsable if it lacks the policy."""
        sources, engines_unsaid = self._sources_here()
        here: dict[str, Any] = {"gymnasium": gymnasium.__version__}
        asked: dict[str, Any] = {"gymnasium": self.spec.gymnasium}
        recorded = {"env_source": engines_unsaid | self.spec.env_source, "policy_source": self.spec.policy_source}
        for name, source in recorded.items():
            if source:
                asked[name] = held_in_common(source)
                here[name] = installed(source) | held_in_common(sources[name])
        if differing := differences(here, asked):
            raise EnvironmentNotUsable(
                f"on {socket.gethostname()} {'; '.join(differing)}",
                where=self.spec.env,
                remedy="install the same on every node",
            )

    def _sources_here(self) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """Where environment and policy come from in this process, and the engines that the dataset does not record: a worker
        may lack modules that the user's process has."""
        spec = self.spec
        try:
            import_all(spec.env, spec.env_kwargs, spec.wrap, spec.policy)
            with episode_apart(spec.seed, 0), retold(lambda error: EnvironmentNotUsable(one_line(error))):
                env = make_image_env(spec.env, spec.env_kwargs, EnvOptions.of(vars(spec)))
                env.close()
            of_policy = policy_source(spec.policy)
        except PolicyNotUsable as error:
            raise PolicyNotUsable(**_lacking(f"policy {spec.policy}", "module:factory", error)) from error
        except EnvironmentNotUsable as error:
            raise EnvironmentNotUsable(**_lacking(spec.env, f"module:{spec.env.rpartition(':')[2]}", error)) from error
        sources = {"env_source": env_source(env.gym, spec.env, *spec.wrap), "policy_source": of_policy}
        return sources, unsaid_engines(env.gym)

    def episode(self, episode_id: int) -> Episode:
        """`rollout` of the settings."""
        return rollout(self.spec, episode_id)

    def beginning(self, episode_id: int, num_steps: int) -> Episode:
        """The same, cut after `num_steps` actions."""
        return rollout(dataclasses.replace(self.spec, max_steps=min(num_steps, self.spec.max_steps)), episode_id)

    @property
    def repeats(self) -> bool:
        """Whether the environment is Gymnasium's or this package's, without wrappers, and the policy built in."""
        return not self.spec.wrap and is_known(self.spec.env) and set(parse_policy(self.spec.policy).names()) <= POLICIES.keys()


def import_all(env: str, env_kwargs: dict[str, Any], wrap: tuple[str, ...], policy: str) -> None:
    """Import the modules of environment and policy. Each process does so before its first episode, so that all begin alike:
    what an import changes in the process stays, except for the working directory and the signal handlers.

    Raises EnvironmentNotUsable or PolicyNotUsable.
    """
    with directory_kept():
        import_env(env, env_kwargs, wrap)
        with registration_kept(env):
            policy_maker(policy)


def _lacking(where: str, name: str, error: WorldModelError) -> dict[str, str]:
    """The parts of the error where a worker lacks what the process that began the collection has."""
    worker = f"the worker on {socket.gethostname()} (process {os.getpid()})"
    return {
        "where": where,
        "what": f"{worker} lacks it, or what it needs ({one_line(error.__cause__ or error)})",
        "remedy": "install its package on every node, or put it into a module that workers can import and name it "
        f"{name}, or collect with {option('workers', 0)}",
    }


def rollout(spec: RolloutSpec, episode_id: int) -> Episode:
    """Play one episode in a fresh environment.

    Raises EpisodeFailed, naming episode, seed and step, if the environment or the policy raises or breaks its contract, or if
    the environment cannot be built any more.
    """
    seed, policy_rng = episode_seeds(spec.seed, episode_id)
    with retold(partial(_failed, spec, episode_id, seed)):
        make_policy = policy_maker(spec.policy)
        with episode_apart(spec.seed, episode_id):
            try:
                with handlers_restored():
                    env = make_image_env(spec.env, spec.env_kwargs, EnvOptions.of(vars(spec)))
            except EnvironmentNotUsable as error:  # `check` has built it in this process, so another process may build it
                raise EpisodeFailed(f"episode {episode_id} (seed {seed}) of {error}") from error
            with env:
                return _play(env, make_policy(env.gym), spec, episode_id, seed, policy_rng)


def _failed(spec: RolloutSpec, episode_id: int, seed: int, error: BaseException, where: str = "") -> EpisodeFailed:
    return EpisodeFailed(f"episode {episode_id} (seed {seed}) of {spec.env}: {where}{one_line(error)}")


def _play(
    env: ImageEnv, policy: Policy, spec: RolloutSpec, episode_id: int, seed: int, policy_rng: np.random.Generator
) -> Episode:
    with handlers_restored():
        raw = env.reset(seed)
    if env.state_names != spec.schema.state_names:
        raise EpisodeFailed(
            f"episode {episode_id} (seed {seed}) of {spec.env}: the environment's ground truth is "
            f"{shortened(repr(list(env.state_names)))}, "
            f"in episode 0 it is {list(spec.schema.state_names)}"
        )
    env.require_as_recorded(spec.schema, spec.render_shape)
    raw = env.begin(policy, policy_rng, raw, spec.policy)
    rows = EpisodeRows(env, frame_preprocessor(raw.shape, spec.preprocessing), spec.max_steps + 1)
    ended = False
    told = retold(lambda error: _failed(spec, episode_id, seed, error, where=f"in step {rows.num_steps}: "))
    with told, _watched(env, policy) as act:
        while not ended:
            rows.see(raw)  # before the policy, which may work in place on what it is given
            action = env.record_action(act(raw))
            raw, reward, terminated, truncated = env.step(action)
            truncated = truncated or (not terminated and rows.num_steps + 1 == spec.max_steps)
            rows.add(action, reward, terminated, truncated)
            ended = terminated or truncated
    rows.see(raw)
    return Episode(
        schema=spec.schema,
        episode_id=episode_id,
        seed=seed,
        policy=_name_of(policy, spec),
        columns=rows.columns(spec.schema),
    )


@contextmanager
def _watched(env: ImageEnv, policy: Policy) -> Iterator[Callable[[np.ndarray], Any]]:
    """Yields what gives the policy's action on a frame; it raises ValueError if the policy moves the environment meanwhile."""
    with calls_noted(env.gym) as calls:
        env.calls = calls

        def act(frame: np.ndarray) -> Any:
            calls.clear()
            action = next_action(policy, frame, env.seen[0])
            if calls:
                raise ValueError(
                    f"the policy calls the environment's {calls[0].name} in its own act, which no row would show; "
                    "have it use a copy, copy.deepcopy(env)"
                )
            return action

        yield act


def _name_of(policy: Policy, spec: RolloutSpec) -> str:
    """What the policy says it has chosen, or the policy as it was asked for; raises ValueError if that is no name."""
    name = getattr(policy, "chosen", spec.policy)
    if type(name) is not str or len(name) > max(MAX_NAME, len(spec.policy)) or not name.isprintable():
        raise ValueError(f"the policy's chosen is {shown(name)}, expected a text of at most {MAX_NAME} printable characters")
    return name
