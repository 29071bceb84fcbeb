"""`wm-pipeline`: all stages from one file, here (`run`) or as a job of a Ray cluster (`submit`, `status`, `logs`, `stop`)."""

import importlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldmodel_v.cli.main import run
from worldmodel_v.cli.tables import print_facts, print_pipeline
from worldmodel_v.cli.terminal import print_lines
from worldmodel_v.execution import Apart
from worldmodel_v.jobs import JobLog, Jobs
from worldmodel_v.progress import LogFormat, Progress


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run collect, train, eval, encode and verify in order from one file, skipping what is complete.

    Run again after an interruption, it continues where it stopped.
    """

    file: tyro.conf.Positional[Path]
    """A pipeline file such as pipelines/quickstart.yaml."""

    out: Path
    """Where rollouts/, vae/, eval/, latents/ and the picture rollouts.png go."""

    def beside(self) -> AbstractContextManager[Any]:
        """The process apart, which has imported what the stages need."""
        importlib.import_module("worldmodel_v.pipeline")
        return Apart()

    def work(self, progress: Progress, apart: Apart | None) -> Any:
        """Run the stages."""
        from worldmodel_v.pipeline import run_pipeline

        return run_pipeline(self.file, self.out, progress, apart=apart)


@dataclass(frozen=True, kw_only=True)
class _AtCluster:
    address: str
    """The cluster's dashboard: http://HOST:8265."""

    def beside(self) -> AbstractContextManager[Any]:
        """Nothing: what is asked runs elsewhere."""
        return nullcontext()


@dataclass(frozen=True, kw_only=True)
class SubmitConfig(_AtCluster):
    """Have a Ray cluster run a pipeline file on its head node, and return at once.

    The same command again continues what an interrupted, stopped or failed job has left.
    """

    file: tyro.conf.Positional[Path]
    """A pipeline file; it is checked here and travels with the job."""

    out: Path
    """Where rollouts/, vae/, eval/, latents/ and the picture rollouts.png go: an absolute path on the head node. Workers
    never see it."""

    working_dir: Path | None = None
    """A directory whose files (but what .gitignore names) travel to every node and are importable there: for an
    environment or policy of your own. The pipeline file must be in it. Default: the pipeline file travels alone."""

    job_log_format: LogFormat = "text"
    """The form of events in the job's log (`logs`): text, or one JSON object a line."""

    def work(self, progress: Progress, apart: None) -> Any:
        """Submit the job."""
        from worldmodel_v.pipeline import load_pipeline

        load_pipeline(self.file, self.out)
        job = Jobs(self.address).submit(self.file, self.out, self.working_dir, self.job_log_format)
        commands = {"logs": "logs --follow", "status": "status", "stop": "stop"}
        return asdict(job) | {
            what: f"wm-pipeline {command} {job.job} --address {self.address}" for what, command in commands.items()
        }


@dataclass(frozen=True, kw_only=True)
class StatusConfig(_AtCluster):
    """Show the state of a job, or of every pipeline that was submitted to the cluster."""

    job: tyro.conf.Positional[str | None] = None
    """The job's id, as submit printed it; without it, all jobs."""

    def work(self, progress: Progress, apart: None) -> Any:
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

    def work(self, progress: Progress, apart: None) -> Any:
        """Ask the cluster."""
        return Jobs(self.address).log(self.job, self.follow)


@dataclass(frozen=True, kw_only=True)
class StopConfig(_AtCluster):
    """Stop a job; what it has committed is kept, and submitting the same command again continues."""

    job: tyro.conf.Positional[str]
    """The job's id, as submit printed it."""

    def work(self, progress: Progress, apart: None) -> Any:
        """Stop the job."""
        return Jobs(self.address).stop(self.job)


COMMANDS = {"run": RunConfig, "submit": SubmitConfig, "status": StatusConfig, "logs": LogsConfig, "stop": StopConfig}

PipelineConfig = (
    Annotated[RunConfig, tyro.conf.subcommand("run")]
    | Annotated[SubmitConfig, tyro.conf.subcommand("submit")]
    | Annotated[StatusConfig, tyro.conf.subcommand("status")]
    | Annotated[LogsConfig, tyro.conf.subcommand("logs")]
    | Annotated[StopConfig, tyro.conf.subcommand("stop")]
)


def main() -> None:
    """Entry point of `wm-pipeline`."""
    run("wm-pipeline", PipelineConfig, _work, show=_show, beside=lambda config: config.beside())  # type: ignore[arg-type]


def _work(config: Any, progress: Progress, apart: Apart | None) -> Any:
    return config.work(progress, apart)


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
