"""Pipelines as jobs of a Ray cluster: submit them, show their state and log, and stop them, from a machine outside the cluster.

A job is `wm-pipeline run` on the cluster's head node, started by Ray's own job server (`ray.job_submission`), so it outlives
the terminal that submitted it. This module keeps no state: the cluster records its jobs, the output directory records what is
done, and submitting the same command again continues it.

A submission sends the pipeline file, or a whole working directory. Ray unpacks it on every node for the duration of the job
and puts it on Python's path there, so workers can import a user's own environment or policy. Ray deletes the copy with the
job, so an output path must be absolute (`refuse_temporary_output`).
"""

import asyncio
import contextlib
import datetime
import importlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from worldmodel_v.errors import ClusterNotUsable, ConfigError, JobFailed, PackageMissing, WorldModelError, one_line
from worldmodel_v.execution.connection import CONNECT_SECONDS, leave_the_terminal_as_it_is
from worldmodel_v.progress import LogFormat
from worldmodel_v.surface import option

JOB_ENVIRONMENT_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the command of a job, and for nothing else."""

ANSWER_CHARACTERS = 300
"""How much of an answer an error quotes: a proxy's answer is a whole page."""

NO_AGENT = "No available agent"
NO_AGENT_REMEDY = (
    "the head's agent, which runs jobs, has not started: wait a minute; if it stays so, another Ray on that machine has its "
    "port: `ray start --head --dashboard-agent-listen-port PORT …` names another one"
)

SUCCEEDED, ENDED = "SUCCEEDED", ("SUCCEEDED", "FAILED", "STOPPED")
OUT = "worldmodel_v_out"
"""The key of the output directory in a job's metadata."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the cluster knows about a job."""

    job: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""

    message: str
    out: str
    """Where it writes, on the cluster's head node."""

    started: str | None
    ended: str | None


class JobLog:
    """What a job has printed: iterate over its pieces, or take all of it with `str`."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __str__(self) -> str:
        return "".join(self._pieces)


class Jobs:
    """The job server of a cluster, at the address of its dashboard."""

    def __init__(self, address: str) -> None:
        """Raises ClusterNotUsable if no job server answers at `address`, PackageMissing without Ray's job client."""
        self.address = address
        self._client = _connect(address)

    def submit(
        self,
        file: Path,
        out: Path,
        working_dir: Path | None = None,
        log_format: LogFormat = "text",
        changes: Sequence[str] = (),
    ) -> Job:
        """Run a pipeline file on the cluster, writing to `out` on its head node, and its events in `log_format` to its log.
        `changes` are words of the command line that change the file's fields.

        Raises ConfigError if `out` is relative, or `file` is not in `working_dir`.
        """
        if not out.is_absolute():
            raise ConfigError(
                "a job runs on the cluster's head node, in a copy of its files that Ray deletes afterwards",
                field="out",
                got=out,
                remedy="give an absolute path on the head node, such as /data/run",
            )
        with _travelling(file, working_dir) as (folder, name), self._talking():
            job = self._client.submit_job(
                entrypoint=shlex.join(["wm-pipeline", "run", name, "--out", str(out), "--log-format", log_format, *changes]),
                runtime_env={"working_dir": str(folder)},
                metadata={OUT: str(out)},
            )
        return self.status(job)

    def status(self, job: str) -> Job:
        """The state of a job; raises ClusterNotUsable."""
        with self._talking(job):
            return _job(self._client.get_job_info(job))

    def all(self) -> list[Job]:
        """Every pipeline that was submitted to the cluster, the latest first."""
        with self._talking():
            found = [details for details in self._client.list_jobs() if OUT in (details.metadata or {})]
        return [_job(details) for details in sorted(found, key=lambda details: -(details.start_time or 0))]

    def log(self, job: str, follow: bool = False) -> JobLog:
        """What a job has printed; with `follow` also what it prints until it ends, and JobFailed if it ends badly.

        Raises ClusterNotUsable.
        """
        self.status(job)
        return JobLog(self._follow(job) if follow else self._printed(job))

    def stop(self, job: str) -> Job:
        """Stop a job; raises ClusterNotUsable, also if it has ended already."""
        state = self.status(job)
        if state.status in ENDED:
            raise ClusterNotUsable(f"has ended already ({state.status}); nothing was stopped", where=job)
        with self._talking(job):
            self._client.stop_job(job)
        return self.status(job)

    def _printed(self, job: str) -> Iterator[str]:
        with self._talking(job):
            yield self._client.get_job_logs(job)

    def _follow(self, job: str) -> Iterator[str]:
        pieces = self._client.tail_job_logs(job)

        async def next_piece() -> str | None:
            return await anext(pieces, None)

        with self._talking(job), asyncio.Runner() as runner:
            while (piece := runner.run(next_piece())) is not None:
                yield piece
        state = self.status(job)
        if state.status != SUCCEEDED:
            raise JobFailed(
                f"{state.status}: {state.message}", where=job, remedy="submitting the same command again continues it"
            )

    @contextlib.contextmanager
    def _talking(self, job: str = "") -> Iterator[None]:
        """Turn what Ray's client raises into our errors."""
        try:
            yield
        except WorldModelError:
            raise
        except Exception as error:
            through = _through_a_proxy(self.address)
            if job and "status code 404" in str(error):
                raise ClusterNotUsable(
                    f"no such job at {self.address}{through}",
                    where=job,
                    remedy=f"`wm-pipeline status --address {self.address}` lists them",
                ) from error
            answer = f"the job server answered {one_line(error):.{ANSWER_CHARACTERS}}"
            remedy = NO_AGENT_REMEDY if NO_AGENT in str(error) else "look into its log"
            raise ClusterNotUsable(answer, where=f"{self.address}{through}", remedy=remedy) from error


def refuse_temporary_output(out: Path) -> None:
    """Raise ConfigError if this process is the command of a Ray job and `out` is relative: its files would be lost."""
    if JOB_ENVIRONMENT_VARIABLE in os.environ and not out.is_absolute():
        raise ConfigError(
            f"inside a Ray job this would lie in {Path.cwd()}, which Ray deletes when the job is over",
            field="out",
            got=out,
            remedy="give an absolute path, such as /data/run",
        )


def _connect(address: str) -> Any:
    if not address.startswith(("http://", "https://")):
        raise ClusterNotUsable(
            "jobs are submitted to the cluster's dashboard",
            field="address",
            got=address,
            expected="http://HOST:8265 (which `ray start --head` prints)",
        )
    try:
        importlib.import_module("aiohttp")
        import requests
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise PackageMissing(f"jobs need Ray's job client ({error})", remedy="pip install 'worldmodel_v[cluster]'") from error
    leave_the_terminal_as_it_is()
    try:
        requests.get(address, timeout=CONNECT_SECONDS)  # any answer will do; Ray's client would wait for one forever
        with _without_ray_addresses():
            return JobSubmissionClient(address)
    except Exception as error:
        reason = getattr(next(iter(error.args), None), "reason", None)  # without urllib3's count of its retries
        answer = f"{one_line(reason if isinstance(reason, Exception) else error):.{ANSWER_CHARACTERS}}"
        raise ClusterNotUsable(
            f"no Ray job server at {address}{_through_a_proxy(address)}: {answer}",
            remedy="on the head node: pip install 'worldmodel_v[cluster]', then `ray start --head --dashboard-host 0.0.0.0`",
        ) from error


def _through_a_proxy(address: str) -> str:
    """A remark on an answer that may be a proxy's; empty if the environment names no proxy for this address."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(address, get_environ_proxies(address))
    if not proxy:
        return ""
    name, host = proxy.rpartition("@")[2], urlsplit(address).hostname  # a password may stand before the @
    return f" through the proxy {name} (which may have answered itself: then set no_proxy={host})"


@contextlib.contextmanager
def _without_ray_addresses() -> Iterator[None]:
    """Hide the environment's addresses: Ray's client prefers them to the address that it is given."""
    taken = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


@contextlib.contextmanager
def _travelling(file: Path, working_dir: Path | None) -> Iterator[tuple[Path, str]]:
    """The folder to send, and the pipeline file's path in it."""
    if working_dir is None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(file, Path(folder) / file.name)
            yield Path(folder), file.name
        return
    if not working_dir.is_dir():
        raise ConfigError(
            "is no directory", field="working_dir", got=working_dir, remedy="give the one whose files the job needs"
        )
    if Path(tempfile.gettempdir()).resolve().is_relative_to(working_dir.resolve()):
        raise ConfigError(
            f"holds the temporary folder {tempfile.gettempdir()}",
            field="working_dir",
            got=working_dir,
            remedy="give the job's own directory",
        )
    if not file.resolve().is_relative_to(working_dir.resolve()):
        raise ConfigError(
            f"is not in {option('working_dir', working_dir)}, so it would not travel", where=file, remedy="put it there"
        )
    yield working_dir, str(file.resolve().relative_to(working_dir.resolve()))


def _job(details: Any) -> Job:
    return Job(
        job=details.submission_id or details.job_id,
        status=str(getattr(details.status, "value", details.status)),
        message=" ".join((details.message or "").split()),
        out=(details.metadata or {}).get(OUT, ""),
        started=_moment(details.start_time),
        ended=_moment(details.end_time),
    )


def _moment(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(timespec="seconds")
