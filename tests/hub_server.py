"""A stand-in for the Hugging Face Hub: as much of its HTTP interface as an upload and reading back need."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_standin"

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class FakeHub:
    """Repositories in memory: `files["datasets/me/data"]["README.md"]` is a file's content."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits: list[list[str]] = []
        """The paths that each commit writes, and those that it deletes behind a minus."""

        self.refused: dict[str, int] = {}
        """A part of a request's path -> the status that answers it."""

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        asked = urlsplit(target)
        path = unquote(asked.path)
        for part, status in self.refused.items():
            if part in path:
                return status, {}, b'{"error": "refused"}'
        if headers.get("Authorization") != f"Bearer {TOKEN}" and (method == "POST" or path == "/api/whoami-v2"):
            return 401, {}, b'{"error": "Invalid username or password."}'
        for pattern, respond in self._routes.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return respond(self, found, body, headers, asked.query)
        return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"

    def _whoami(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        return _json({"type": "user", "name": "me", "auth": {"accessToken": {"role": "write"}}, "orgs": []})

    def _create(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        asked = json.loads(body)
        kind = f"{asked.get('type', 'model')}s"
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        self.files.setdefault(f"{kind}/{name}", {".gitattributes": b"*.h5 filter=lfs\n"})
        self.private.setdefault(f"{kind}/{name}", asked.get("private") is True or asked.get("visibility") == "private")
        return _json({"url": f"{self.url}/{kind}/{name}" if kind != "models" else f"{self.url}/{name}"})

    def _valid(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        return _json({"errors": [], "warnings": []})

    def _preupload(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in json.loads(body)["files"]]
        return _json({"files": files, "commitOid": "0" * 40})

    def _commit(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        repository, done = self.files[found[1]], []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository[value["path"]] = base64.b64decode(value["content"])
                done.append(value["path"])
            elif line["key"] == "deletedFile":
                del repository[value["path"]]
                done.append(f"-{value['path']}")
        self.commits.append(done)
        return _json({"success": True, "commitOid": "1" * 40, "commitUrl": f"{self.url}/{found[1]}/commit/{'1' * 40}"})

    def _info(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        if found[1] not in self.files:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        siblings = [{"rfilename": name} for name in self.files[found[1]]]
        return _json({"id": found[1].partition("/")[2], "sha": "1" * 40, "siblings": siblings, "private": False, "tags": []})

    def _tree(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        inside = f"{found[2]}/" if found[2] else ""
        below = [entry for entry in self._entries(found[1]) if entry["path"].startswith(inside)]
        if not below:
            return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        direct = [entry for entry in below if "/" not in entry["path"].removeprefix(inside)]
        return _json(below if "recursive=true" in query.lower() else direct)

    def _paths(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        wanted = set(json.loads(body)["paths"]) if body.startswith(b"{") else {unquote(body.decode()).rpartition("paths=")[2]}
        return _json([entry for entry in self._entries(found[1]) if entry["path"] in wanted])

    def _entries(self, repository: str) -> list[dict[str, Any]]:
        files = self.files[repository]
        folders = {name.rpartition("/")[0] for name in files if "/" in name}
        return [
            *({"type": "directory", "path": name, "oid": "2" * 40, "size": 0} for name in folders),
            *({"type": "file", "path": name, "oid": _oid(content), "size": len(content)} for name, content in files.items()),
        ]

    def _resolve(self, found: re.Match, body: bytes, headers: Any, query: str) -> Answer:
        content = self.files.get(found[1], {}).get(found[2])
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        facts = {"X-Repo-Commit": "1" * 40, "ETag": f'"{_oid(content)}"'}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            return 206, facts | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}, content[first : last + 1]
        return 200, facts, content

    _REPOSITORY = r"((?:datasets|models)/[\w.-]+/[\w.-]+)"
    _routes = {
        r"GET /api/whoami-v2": _whoami,
        r"POST /api/repos/create": _create,
        r"POST /api/validate-yaml": _valid,
        rf"POST /api/{_REPOSITORY}/preupload/\w+": _preupload,
        rf"POST /api/{_REPOSITORY}/commit/\w+": _commit,
        rf"GET /api/{_REPOSITORY}(?:/revision/\w+)?": _info,
        rf"GET /api/{_REPOSITORY}/tree/\w+(?:/(.+))?": _tree,
        rf"POST /api/{_REPOSITORY}/paths-info/\w+": _paths,
        rf"(?:GET|HEAD) /{_REPOSITORY}/resolve/\w+/(.+)": _resolve,
    }


def _json(content: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """The stand-in, on this machine, for the time of a block."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = hub.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="hub")
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
