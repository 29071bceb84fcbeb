"""An HTTP server of a folder that knows range requests, counts what it sends, and can be told to fail."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Served:
    """A folder behind a URL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.requests: list[tuple[str, str, int]] = []
        """Method, path and bytes of the body, of each answer."""

        self.status: int | None = None
        """What everything is answered with, where it is set."""

        self.failures_left = 0
        """How many answers more are 503."""

        self.knows_ranges = True
        self.breaks_after: int | None = None
        """How many bytes of each body are sent before the connection is cut."""

    def bytes_sent(self, ending: str = "") -> int:
        """Bytes of the bodies of all files whose name ends so."""
        return sum(size for _, path, size in self.requests if path.endswith(ending))

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a GET or HEAD."""
        file = self.folder / handler.path.lstrip("/")
        if self.failures_left:
            self.failures_left -= 1
            return self._send(handler, 503, b"")
        if self.status is not None or not file.is_file():
            return self._send(handler, self.status or 404, b"")
        content, status, extent = file.read_bytes(), 200, None
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        if found and self.knows_ranges:
            first, last = int(found[1]), min(int(found[2]), len(content) - 1)
            if first >= len(content):
                return self._send(handler, 416, b"")
            extent, status = f"bytes {first}-{last}/{len(content)}", 206
            content = content[first : last + 1]
        return self._send(handler, status, content, extent)

    def _send(self, handler: BaseHTTPRequestHandler, status: int, content: bytes, extent: str | None = None) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        if extent:
            handler.send_header("Content-Range", extent)
        handler.end_headers()
        body = content if handler.command == "GET" else b""
        self.requests.append((handler.command, handler.path, len(body)))
        if self.breaks_after is not None and len(body) > self.breaks_after:
            body = body[: self.breaks_after]
            handler.close_connection = True
        handler.wfile.write(body)


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve a folder on this machine for the time of a block."""
    files = Served(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            files.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="http")
    thread.start()
    files.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
