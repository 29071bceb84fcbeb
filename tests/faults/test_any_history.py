"""Any history of a dataset: Hypothesis collects, extends, kills, meddles, reads, encodes and exports in any order.

The model is a set of episodes. After every step: an episode exists if and only if a line of the index names its shard; none is
ever lost; the bytes of its shard are those that an unbroken run gives; whoever opened the dataset before sees what he saw; and
nothing else lies in the folder but what the next run clears away.

A kill is a copy of the folder, made behind a step (`worldmodel_v.steps`) while the work stands still there, which takes the
folder's place: what the process did after that, and its clean-up too, has not happened. So a step of a history takes a tenth of
a second, where a process takes seconds; `test_every_step.py` kills processes.
"""

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.conftest import stamp_config
from tests.faults.every_step import SMALL, dataset_content
from worldmodel_v import steps
from worldmodel_v.autoencoders.artifact import WEIGHTS_NAME, save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.collection import collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.errors import DatasetBusy, OutputNotUsable
from worldmodel_v.export import FORMATS, export
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.steps import Step
from worldmodel_v.storage import Dataset, DatasetWriter, build_shard, open_dataset
from worldmodel_v.storage.index import complete_lines
from worldmodel_v.storage.publish import is_temporary

MAX_EPISODES = 8
NAMES = {"dataset.json", "index.jsonl", ".lock", "shards"}
STEPS = st.integers(0, 45)
"""More than any stage takes; what is to happen behind a step that is never reached does not happen."""

GOALS = st.integers(1, MAX_EPISODES)


class Killed(BaseException):
    """What ends the work at hand where it stands."""


class Unbroken:
    """Rollouts and a VAE that nothing happened to, and what runs that nothing happens to give."""

    def __init__(self, folder: Path) -> None:
        self.vae = folder / "vae"
        collect(stamp_config(folder / "rollouts", **SMALL | {"episodes": MAX_EPISODES}))
        self.vae.mkdir()
        config = VAEConfig(frame_height=8, frame_width=8, latent_dim=2, architecture="mlp")
        (self.vae / WEIGHTS_NAME).write_bytes(save(VAE(config)))
        self.rollouts: Dataset[RolloutSpec] = open_dataset(folder / "rollouts", RolloutSpec)
        self.shard = functools.cache(self._shard)

    def _shard(self, first: int, count: int) -> bytes:
        episodes = [self.rollouts.episode(i) for i in range(first, first + count)]
        return build_shard(episodes, spec_hash=self.rollouts.spec_hash)


class History(RuleBasedStateMachine):
    """A folder with rollouts, latents and exports, and what is known to be in it."""

    unbroken: Unbroken

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.out = self.folder / "out"
        self.rollouts, self.latents = self.out / "rollouts", self.out / "latents"
        self.out.mkdir()
        self.episodes: dict[Path, set[int]] = {self.rollouts: set(), self.latents: set()}
        self.readers: list[tuple[Dataset, dict[str, bytes]]] = []
        self.num_exports = 0

    # What happens

    @rule(goal=GOALS)
    def collects(self, goal: int) -> None:
        standing = self.standing()
        self.collect(goal)
        self.require_complete(self.rollouts, standing.union(range(goal)))

    @rule(goal=GOALS, step=STEPS)
    def is_killed_while_it_collects(self, goal: int, step: int) -> None:
        self.killed_behind(step, lambda: self.collect(goal))

    @rule(goal=GOALS, step=STEPS)
    def another_wants_to_commit_while_it_collects(self, goal: int, step: int) -> None:
        self.meanwhile(step, self.require_busy, lambda: self.collect(goal))

    @rule(goal=GOALS, step=STEPS)
    def another_reads_while_it_collects(self, goal: int, step: int) -> None:
        self.meanwhile(step, self.opens, lambda: self.collect(goal))

    @rule()
    def another_reads(self) -> None:
        self.opens()

    @rule(seed=st.integers(8, 9))
    def other_settings_are_refused(self, seed: int) -> None:
        if self.episodes[self.rollouts]:
            before = everything(self.out)
            with pytest.raises(OutputNotUsable):
                collect(stamp_config(self.rollouts, **SMALL | {"seed": seed}))
            assert everything(self.out) == before

    @precondition(lambda self: (self.rollouts / "index.jsonl").exists())
    @rule(torn=st.sampled_from([b"{", b'{"shard": 3, "first_ep']), leftover=st.booleans())
    def the_power_fails(self, torn: bytes, leftover: bool) -> None:
        """A line of which only the beginning came to the disk, and half a file."""
        with (self.rollouts / "index.jsonl").open("ab") as index:
            index.write(torn)
        if leftover:
            (self.rollouts / "shards" / ".tmp-1-000003.h5").write_bytes(b"half")

    @precondition(lambda self: self.episodes[self.rollouts])
    @rule(step=STEPS)
    def encodes_or_is_killed(self, step: int) -> None:
        if not self.killed_behind(step, self.encode):
            self.require_complete(self.latents, self.episodes[self.rollouts])

    @precondition(lambda self: self.episodes[self.rollouts])
    @rule(step=st.integers(0, 12), of_latents=st.booleans())
    def exports_or_is_killed(self, step: int, of_latents: bool) -> None:
        data = self.latents if of_latents and self.episodes[self.latents] else self.rollouts
        out = self.out / f"export-{self.num_exports}"
        killed = self.killed_behind(step, lambda: export(FORMATS["npz"](data=data, out=out)))
        if not killed or out.exists():  # then it is whole
            self.num_exports += 1
            told = json.loads((out / "source.json").read_text())["episodes"]
            assert {episode["episode_id"] for episode in told} == self.episodes[data]
            assert {file.name for file in out.iterdir()} == {"source.json", *(f"{id_:06d}.npz" for id_ in self.episodes[data])}

    # How it is done

    def collect(self, goal: int) -> None:
        collect(stamp_config(self.rollouts, **SMALL | {"episodes": goal}))

    def standing(self) -> set[int]:
        """The episodes whose shards are in place. A kill may have left one without its line; the next run writes that."""
        episodes: set[int] = set()
        for path in (self.rollouts / "shards").glob("[0-9]*.h5"):
            with h5py.File(path) as shard:
                episodes.update(shard["ep_idx"][:].tolist())
        return episodes

    def encode(self, out: Path | None = None) -> None:
        encode(EncodeConfig(data=self.rollouts, vae=self.unbroken.vae, out=out or self.latents, device="cpu"))

    def opens(self) -> None:
        for path in self.episodes:
            if (path / "index.jsonl").exists():
                dataset = open_dataset(path)
                self.readers.append((dataset, {entry.name: (path / entry.name).read_bytes() for entry in dataset.entries}))

    def require_busy(self) -> None:
        if (self.rollouts / ".lock").exists():
            with pytest.raises(DatasetBusy):
                DatasetWriter(self.rollouts, self.unbroken.rollouts.spec)

    def meanwhile(self, step: int, happens: Callable[[], object], work: Callable[[], object]) -> None:
        """Do some work, and something else behind its step of that number."""
        passing = iter(range(step))

        def listen(_: Step) -> None:
            if next(passing, None) is None:
                steps.listener = None
                happens()

        steps.listener = listen
        try:
            work()
        finally:
            steps.listener = None

    def killed_behind(self, step: int, work: Callable[[], object]) -> bool:
        """Do some work as far as its step of that number; whether it got there."""
        kept = self.folder / "kept"

        def kill() -> None:
            shutil.copytree(self.out, kept)
            raise Killed

        try:
            self.meanwhile(step, kill, work)
        except Killed:
            shutil.rmtree(self.out)
            kept.rename(self.out)
        else:
            return False
        return True

    # What must hold

    @invariant()
    def an_episode_exists_if_and_only_if_a_line_names_it(self) -> None:
        for path, known in self.episodes.items():
            found = {id_ for first, count, _ in lines(path) for id_ in range(first, first + count)}
            assert found >= known, "an episode was lost"
            assert sum(count for _, count, _ in lines(path)) == len(found), "an episode is there twice"
            if found:
                dataset = open_dataset(path)
                assert {id_ for entry in dataset.entries for id_ in range(entry.first_episode, entry.end_episode)} == found
            self.episodes[path] = found

    @invariant()
    def its_bytes_are_those_of_an_unbroken_run(self) -> None:
        for first, count, shard in lines(self.rollouts):
            assert shard == self.unbroken.shard(first, count)
        sources = {hashlib.sha256(shard).hexdigest() for _, _, shard in lines(self.rollouts)}
        if self.episodes[self.latents]:
            assert {entry.source_sha256 for entry in open_dataset(self.latents).entries} <= sources

    @invariant()
    def who_opened_it_before_sees_what_he_saw(self) -> None:
        for dataset, seen in self.readers:
            assert {name: (dataset.path / name).read_bytes() for name in seen} == seen
            if dataset.entries:
                last = dataset.entries[-1].end_episode - 1
                assert dataset.episode(last).episode_id == last

    @invariant()
    def nothing_else_is_there_but_what_the_next_run_clears_away(self) -> None:
        names = {"rollouts", "latents", *(f"export-{i}" for i in range(self.num_exports))}
        assert {item.name for item in self.out.iterdir() if not is_temporary(item)} <= names
        for path in self.episodes:
            if path.exists():
                assert {item.name for item in path.iterdir() if not is_temporary(item)} <= NAMES

    def require_complete(self, path: Path, episodes: set[int]) -> None:
        """A run that was let be has made all that was asked for, and has cleared away all else."""
        assert {id_ for first, count, _ in lines(path) for id_ in range(first, first + count)} == episodes
        shards = [f"{number:06d}.h5" for number in range(len(list(lines(path))))]
        assert sorted(item.name for item in (path / "shards").iterdir()) == shards
        assert {item.name for item in path.iterdir()} == NAMES
        assert (path / "index.jsonl").read_bytes().endswith(b"\n")

    def teardown(self) -> None:
        """Continued to the end, latents are those of one unbroken run."""
        try:
            if self.episodes[self.latents]:
                self.encode()
                self.encode(self.folder / "unbroken")
                assert dataset_content(self.latents) == dataset_content(self.folder / "unbroken")
        finally:
            shutil.rmtree(self.folder)


def lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """What an index says, read without the package: the first episode, how many there are, and the shard, which is whole."""
    index = path / "index.jsonl"
    for line in complete_lines(index.read_bytes()).splitlines() if index.exists() else []:
        said = json.loads(line)
        shard = (path / f"shards/{said['shard']:06d}.h5").read_bytes()
        assert (len(shard), hashlib.sha256(shard).hexdigest()) == (said["bytes"], said["sha256"])
        yield said["first_episode"], said["num_episodes"], shard


def everything(folder: Path) -> dict[Path, bytes]:
    """Every file's bytes, but for the locks, which say who looked last."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    return Unbroken(tmp_path_factory.mktemp("unbroken"))


def run_histories(unbroken: Unbroken, number: int, num_steps: int, *, same: bool) -> None:
    settings = hypothesis.settings(
        max_examples=number,
        stateful_step_count=num_steps,
        derandomize=same,
        phases=[hypothesis.Phase.generate],  # a history is short enough to read, and takes minutes to shrink
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(type("AHistory", (History,), {"unbroken": unbroken}), settings=settings)


def test_in_some_histories_no_episode_is_lost_changed_or_there_twice(unbroken: Unbroken) -> None:
    run_histories(unbroken, 6, 8, same=True)


@pytest.mark.slow
def test_in_many_histories_no_episode_is_lost_changed_or_there_twice(unbroken: Unbroken) -> None:
    run_histories(unbroken, 24, 16, same=False)
