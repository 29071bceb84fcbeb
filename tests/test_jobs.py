"""Jobs without a cluster: what travels, and every way of asking wrongly."""

import http.server
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import worldmodel_v.jobs
from tests.builders import files_in
from tests.cli.test_bad_input import Refusal
from worldmodel_v.errors import (
    ClusterNotUsable,
    ConfigError,
    JobFailed,
    PackageMissing,
    UsageError,
    WorldModelError,
)
from worldmodel_v.jobs import JOB_ENVIRONMENT_VARIABLE, Jobs

HEAD = "http://head:8265"
PIPELINE = "collect: {}\ntrain: {}\nencode: {}\n"


class FakeClient:
    """A job server that takes everything, remembers what travelled, and knows one job."""

    def __init__(self) -> None:
        self.submitted: dict = {}
        self.travelled: dict[str, bytes] = {}
        self.state = "RUNNING"

    def submit_job(self, **job: object) -> str:
        self.submitted = job
        self.travelled = files_in(Path(job["runtime_env"]["working_dir"]))  # type: ignore[index]
        return "job-1"

    def get_job_info(self, job: str) -> SimpleNamespace:
        if job != "job-1":
            raise RuntimeError(f"Request failed with status code 404: Job {job} does not exist.")
        metadata = self.submitted.get("metadata", {})
        return SimpleNamespace(
            submission_id=job, status=self.state, message="as\nsaid", metadata=metadata, start_time=1_000, end_time=None
        )

    async def tail_job_logs(self, job: str):
        yield "one\n"
        self.state = "FAILED"
        yield "two\n"


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(monkeypatch, capsys)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr(worldmodel_v.jobs, "_connect", lambda address: fake)
    return fake


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "work" / "pipelines").mkdir(parents=True)
    (tmp_path / "work" / "my_env.py").write_text("import gymnasium\n")
    file = tmp_path / "work" / "pipelines" / "my pipeline.yaml"
    file.write_text(PIPELINE)
    return file


def test_a_head_whose_agent_has_not_started_is_named_with_the_remedy(client: FakeClient, file: Path) -> None:
    def refuse_it(**job: object) -> str:
        raise RuntimeError("Request failed with status code 500: No available agent to submit job, please try again later..")

    client.submit_job = refuse_it  # type: ignore[method-assign]
    with pytest.raises(ClusterNotUsable, match=r"has not started: .* another Ray .* --dashboard-agent-listen-port PORT"):
        Jobs(HEAD).submit(file, Path("/data/run"))


def test_the_pipeline_file_travels_alone(client: FakeClient, file: Path) -> None:
    job = Jobs(HEAD).submit(file, Path("/data/my run"))
    assert client.submitted["entrypoint"] == "wm-pipeline run 'my pipeline.yaml' --out '/data/my run' --log-format text"
    assert client.travelled == {"my pipeline.yaml": PIPELINE.encode()}
    assert (job.job, job.status, job.message, job.out) == ("job-1", "RUNNING", "as said", "/data/my run")
    assert (job.started, job.ended) == ("1970-01-01T00:00:01+00:00", None)


def test_with_a_working_directory_all_of_it_travels(client: FakeClient, file: Path) -> None:
    Jobs(HEAD).submit(file, Path("/data/run"), file.parents[1], "json")
    assert client.submitted["entrypoint"] == "wm-pipeline run 'pipelines/my pipeline.yaml' --out /data/run --log-format json"
    assert client.travelled.keys() == {"my_env.py", "pipelines/my pipeline.yaml"}


@pytest.mark.parametrize(
    ("out", "folder", "expected"),
    [
        ("run", None, "out='run': a job runs on the cluster's head node, in a copy of its files that Ray deletes afterwards; "),
        ("/data/run", "pipelines", "is not in working_dir="),
        ("/data/run", "/", "working_dir='/': holds the temporary folder"),
        ("/data/run", "absent", "is no directory; give the one whose files the job needs"),
    ],
)
def test_what_cannot_be_submitted(client: FakeClient, file: Path, out: str, folder: str | None, expected: str) -> None:
    elsewhere = file.parents[1] / "pipeline.yaml"
    elsewhere.write_text(PIPELINE)
    with pytest.raises(ConfigError, match=expected.replace("(", r"\(")):
        Jobs(HEAD).submit(elsewhere, Path(out), folder and file.parents[1] / folder)
    assert client.submitted == {}


def test_following_a_job_that_fails_gives_all_that_it_printed_and_then_the_failure(client: FakeClient) -> None:
    pieces = iter(Jobs(HEAD).log("job-1", follow=True))
    assert [next(pieces), next(pieces)] == ["one\n", "two\n"]
    with pytest.raises(JobFailed, match="job-1: FAILED: as said; submitting the same command again continues it"):
        next(pieces)


def test_a_job_that_has_ended_is_not_stopped(client: FakeClient) -> None:
    client.state = "SUCCEEDED"
    with pytest.raises(ClusterNotUsable, match=r"job-1: has ended already \(SUCCEEDED\); nothing was stopped"):
        Jobs(HEAD).stop("job-1")


@pytest.mark.parametrize("ask", [Jobs.status, Jobs.stop, Jobs.log])
def test_an_unknown_job(client: FakeClient, ask: Callable[[Jobs, str], object]) -> None:
    with pytest.raises(
        ClusterNotUsable, match=f"job-2: no such job at {HEAD}; `wm-pipeline status --address {HEAD}` lists them"
    ):
        ask(Jobs(HEAD), "job-2")


def test_exit_codes() -> None:
    assert issubclass(ClusterNotUsable, UsageError)
    assert issubclass(ClusterNotUsable, UsageError)
    assert JobFailed.exit_code == WorldModelError.exit_code == 1


# Addresses


class _Another(http.server.BaseHTTPRequestHandler):
    """A server that is no cluster's."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def another_server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Another) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1", r"NewConnectionError: .*Connection refused"),
        ("http://no.such.host.invalid:8265", r"NameResolutionError: .*Failed to resolve 'no.such.host.invalid' \(.*\)"),
    ],
)
def test_an_address_where_nothing_answers(address: str, reason: str) -> None:
    with pytest.raises(ClusterNotUsable, match=f"no Ray job server at {address}: {reason}; on the head node: pip install"):
        Jobs(address)


def test_an_address_where_something_else_answers(another_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # Ray's client would ask there, whatever it is told
    with pytest.raises(
        ClusterNotUsable, match=f"no Ray job server at {another_server}: RuntimeError: Version check returned 404"
    ):
        Jobs(another_server)
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


class _Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that lets nothing through."""

    def do_GET(self) -> None:
        self.send_response(int(self.headers.get("Host", "").split(".")[0].removeprefix("says")))
        self.end_headers()
        self.wfile.write(b"<html>" + b"not allowed " * 1000)

    do_CONNECT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """HOST:PORT of a proxy that the environment names, with a password."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://me:secret@127.0.0.1:{server.server_port}")
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("scheme", "code"), [*(("http", code) for code in (200, 403, 404, 407, 502)), ("https", 403), ("https", 407)]
)
def test_a_proxys_answer_is_told_as_one(proxy: str, scheme: str, code: int) -> None:
    host = f"says{code}.invalid"
    told = rf"through the proxy {proxy} \(which may have answered itself: then set no_proxy={host}\): "
    with pytest.raises(ClusterNotUsable, match=rf"^no Ray job server at {scheme}://{host}:8265 {told}") as refused:
        Jobs(f"{scheme}://{host}:8265")
    assert "secret" not in str(refused.value)
    assert len(str(refused.value)) < 800


def test_an_address_that_goes_past_the_proxy(proxy: str, another_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ClusterNotUsable, match=f"^no Ray job server at {another_server}: RuntimeError: Version check returned"):
        Jobs(another_server)


@pytest.mark.parametrize("address", ["auto", "head:6379", "ray://head:10001"])
def test_the_address_of_a_cluster_instead_of_its_dashboards(refuse: Refusal, address: str) -> None:
    line = refuse("wm-pipeline", "status", "--address", address)
    assert f"--address {address}: jobs are submitted to the cluster's dashboard; expected http://HOST:8265" in line


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(
        PackageMissing, match=r"jobs need Ray's job client \(.*aiohttp.*\); pip install 'worldmodel_v\[cluster\]'"
    ):
        Jobs(HEAD)


# Inside a job


@pytest.mark.parametrize(
    "command",
    [
        ("wm-pipeline", "run", "pipeline.yaml"),
        ("wm-collect",),
        ("wm-train", "--data", "rollouts"),
        ("wm-encode", "--data", "rollouts", "--vae", "vae"),
        ("wm-eval", "--data", "rollouts", "--vae", "vae"),
    ],
)
def test_a_relative_output_inside_a_job(
    refuse: Refusal, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(JOB_ENVIRONMENT_VARIABLE, "{}")
    monkeypatch.chdir(tmp_path)
    line = refuse(*command, "--out", "runs/x")
    assert f"--out runs/x: inside a Ray job this would lie in {tmp_path}, which Ray deletes when the job is over" in line
    assert not any(tmp_path.iterdir())
