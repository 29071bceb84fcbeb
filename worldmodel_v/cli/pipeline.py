"""`wm-pipeline`: all stages from one file, here (`run`) or as a job of a Ray cluster (`submit`, `status`, `logs`, `stop`)."""

import functools
import importlib
import importlib.metadata
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

import worldmodel_v
from worldmodel_v.cli.formats import any_of
from worldmodel_v.cli.hashing import hash_alike
from worldmodel_v.cli.main import Output, options_in, run
from worldmodel_v.cli.tables import print_facts, print_pipeline
from worldmodel_v.cli.terminal import print_lines
from worldmodel_v.errors import ConfigError
from worldmodel_v.execution import Apart
from worldmodel_v.jobs import JobLog, Jobs
from worldmodel_v.own_modules import look_in
from worldmodel_v.progress import LogFormat, Progress
from worldmodel_v.storage.publish import publish_new, require_folder_of
from worldmodel_v.surface import option

if TYPE_CHECKING:  # importing it loads the stages
    from worldmodel_v.pipeline import Change

CHANGE = re.compile(r"--(\w[\w-]*)\.([\w-]+)(?:=(.*))?", re.DOTALL)
"""`--train.steps` or `--train.steps=500`."""


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Write a pipeline file that is ready to run, to begin from.

    No file is overwritten.
    """

    file: tyro.conf.Positional[Path | None] = None
    """Where to write it. By default here, with the template's name: quickstart.yaml."""

    template: Literal["quickstart", "paper", "cluster"] = "quickstart"
    """quickstart: CarRacing in minutes on two cores; paper: Ha & Schmidhuber's scale, one GPU; cluster: the same on Ray."""

    def work(self, progress: Progress, apart: None, changes: "Sequence[Change]") -> Any:
        """Write the file."""
        file = self.file or Path(f"{self.template}.yaml")
        require_folder_of(file, where=file)
        with _shipped(self.template).open("rb") as template:
            text = template.read().replace(f"pipelines/{self.template}.yaml".encode(), shlex.quote(str(file)).encode())
        try:
            publish_new(file, text)
        except FileExistsError:
            raise ConfigError("is there already", where=file, remedy="give another name, or remove it first") from None
        return {"file": file}


def _shipped(template: str) -> Path:
    """A pipeline file of this package: in a clone beside it, else where its wheel has put it."""
    in_a_clone = Path(worldmodel_v.__file__).parents[1] / "pipelines" / f"{template}.yaml"
    installed = importlib.metadata.files("worldmodel_v") or []
    of_a_wheel = (file for file in installed if file.match(f"share/worldmodel_v/pipelines/{template}.yaml"))
    return in_a_clone if in_a_clone.is_file() else Path(str(next(of_a_wheel).locate()))


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run collect, train, eval, encode and verify from one file; skip what is done.

    Run it again after an interruption: it continues where it stopped.

    Change a field of the file with --STAGE.FIELD VALUE, such as --train.steps 500.
    """

    file: tyro.conf.Positional[Path]
    """A pipeline file, as init writes one."""

    out: Path
    """Where rollouts/, vae/, eval/, latents/ and the picture rollouts.png go."""

    def work(self, progress: Progress, apart: Apart | None, changes: "Sequence[Change]") -> Any:
        """Run the stages."""
        from worldmodel_v.pipeline import run_pipeline

        return run_pipeline(self.file, self.out, progress, changes=changes, apart=apart)


@dataclass(frozen=True, kw_only=True)
class _AtCluster:
    address: str
    """The cluster's dashboard: http://HOST:8265."""


@dataclass(frozen=True, kw_only=True)
class SubmitConfig(_AtCluster):
    """Have a Ray cluster run a pipeline file on its head node, and return at once.

    The same command again continues what a stopped or failed job has left.

    Change a field of the file with --STAGE.FIELD VALUE, such as --train.steps 500.
    """

    file: tyro.conf.Positional[Path]
    """A pipeline file; it is checked here and travels with the job."""

    out: Path
    """Where rollouts/, vae/, eval/, latents/ and rollouts.png go: an absolute path on the head node."""

    working_dir: Path | None = None
    """A directory with the file and modules of your own, which travels to every node; else the file travels alone."""

    job_log_format: LogFormat = "text"
    """The form of events in the job's log (`logs`): text, or one JSON object a line."""

    def work(self, progress: Progress, apart: None, changes: "Sequence[Change]") -> Any:
        """Submit the job."""
        from worldmodel_v.pipeline import load_pipeline

        look_in(str(self.working_dir or Path.cwd()))
        load_pipeline(self.file, self.out, changes)
        words = [word for each in changes for word in (f"--{each.stage}.{each.field}", *each.words)]
        job = Jobs(self.address).submit(self.file, self.out, self.working_dir, self.job_log_format, words)
        commands = {"logs": "logs --follow", "status": "status", "stop": "stop"}
        return asdict(job) | {
            what: f"wm-pipeline {command} {job.job} --address {self.address}" for what, command in commands.items()
        }


@dataclass(frozen=True, kw_only=True)
class StatusConfig(_AtCluster):
    """Show the state of a job, or of every pipeline submitted to the cluster."""

    job: tyro.conf.Positional[str | None] = None
    """The job's id, as submit printed it; without it, all jobs."""

    def work(self, progress: Progress, apart: None, changes: "Sequence[Change]") -> Any:
        """Ask the cluster."""
        jobs = Jobs(self.address)
        return jobs.status(self.job) if self.job else {"jobs": [asdict(job) for job in jobs.all()]}


@dataclass(frozen=True, kw_only=True)
class LogsConfig(_AtCluster):
    """Print what a job has printed."""

    job: tyro.conf.Positional[str]
    """The job's id, as submit printed it."""

    follow: bool = False
    """Continue until the job ends; exits with 1 if the job did not succeed. Ctrl-C leaves the job running."""

    def work(self, progress: Progress, apart: None, changes: "Sequence[Change]") -> Any:
        """Ask the cluster."""
        return Jobs(self.address).log(self.job, self.follow)


@dataclass(frozen=True, kw_only=True)
class StopConfig(_AtCluster):
    """Stop a job. What it has committed is kept; the same submit continues it."""

    job: tyro.conf.Positional[str]
    """The job's id, as submit printed it."""

    def work(self, progress: Progress, apart: None, changes: "Sequence[Change]") -> Any:
        """Stop the job."""
        return Jobs(self.address).stop(self.job)


COMMANDS = {
    "init": InitConfig,
    "run": RunConfig,
    "submit": SubmitConfig,
    "status": StatusConfig,
    "logs": LogsConfig,
    "stop": StopConfig,
}


def main() -> None:
    """Entry point of `wm-pipeline`."""
    if sys.argv[1:2] == ["run"]:
        hash_alike()
    words, changes = _without_changes(sys.argv[1:])
    run(
        "wm-pipeline",
        _commands,
        functools.partial(_work, changes),
        show=_show,
        beside=_beside,
        args=words,
        following=_following,
    )


def _commands(words: Sequence[str]) -> Any:
    """The commands; raises ConfigError for the field of a stage that is given without the stage."""
    own = {each.name for config in (*COMMANDS.values(), Output) for each in fields(config)} | {"help"}
    for name, field in options_in(words):
        if field in own:
            continue
        from worldmodel_v.pipeline import stages_with

        if stages := stages_with(field):
            given = " or ".join(f"--{stage}.{field.replace('_', '-')}" for stage in stages)
            raise ConfigError(f"{name}: a stage's field is given with the stage's name", remedy=f"say {given}")
    return any_of(COMMANDS)


def _beside(config: Any) -> AbstractContextManager[Apart | None]:
    """The process apart, which has imported what the stages need; nothing where no stage runs here."""
    if not isinstance(config, RunConfig):
        return nullcontext()
    importlib.import_module("worldmodel_v.pipeline")
    return Apart()


def _without_changes(words: list[str]) -> tuple[list[str], "list[Change]"]:
    """A command line without the words that change a field of the file, and those changes."""
    kept: list[str] = []
    changes: list[Any] = []
    while words:
        word, *words = words
        if (found := CHANGE.fullmatch(word)) is None:
            kept.append(word)
            continue
        from worldmodel_v.pipeline import Change, takes

        stage, field, value = found[1], found[2].replace("-", "_"), found[3]
        kind, given = takes(stage, field), [] if value is None else [value]
        while value is None and words and not words[0].startswith("--") and (kind == "list" or not given):
            if kind == "flag" and words[0] not in ("true", "false"):
                break
            given.append(words.pop(0))
        changes.append(Change(stage, field, tuple(given or (["true"] if kind == "flag" else []))))
    return kept, changes


def _work(changes: "Sequence[Change]", config: Any, progress: Progress, apart: Apart | None) -> Any:
    if changes and not isinstance(config, RunConfig | SubmitConfig):
        name = f"{changes[0].stage}.{changes[0].field}"
        raise ConfigError(f"{option(name)} is for a pipeline that is run or submitted", remedy="leave it out")
    return config.work(progress, apart, changes)


def _following(config: Any, result: Any) -> Iterator[list[object]]:
    """What to do with a file that was written, and with what a pipeline has made."""
    if isinstance(config, InitConfig):
        yield ["wm-pipeline", "run", result["file"], "--out", Path("runs") / result["file"].stem]
    elif isinstance(config, RunConfig):
        yield ["wm-inspect", result.encode.out]


def _show(result: Any) -> None:
    if isinstance(result, JobLog):
        for piece in result:
            print_lines(piece)
    elif isinstance(result, dict):
        print_facts(result)
    elif hasattr(result, "preview"):
        print_pipeline(result)
    else:
        print_facts(asdict(result))
