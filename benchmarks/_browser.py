"""A page in headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--remote-debugging-port=0"),
)
PATIENCE = 60.0


class Browser:
    """A window with one page, at one of its parts, as a context manager; `profile` is an empty folder."""

    def __init__(
        self, page: Path, profile: Path, *, part: str = "", width: int = 1400, height: int = 1000, dark: bool = False
    ) -> None:
        self.complaints: list[str] = []
        """Exceptions, and what the browser refused, as by the content security policy."""
        asked = (f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={width},{height}")
        command = [str(CHROMIUM), *FLAGS, *asked, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._numbers, self._open = itertools.count(1), ExitStack()
        try:
            self._socket = self._open.enter_context(connect(_page_socket(profile), max_size=None))
            for domain in ("Runtime", "Log", "Page"):
                self.call(f"{domain}.enable")
            self.call("Page.navigate", url=f"{page.absolute().as_uri()}#{part}")
            self.wait_for("document.readyState === 'complete' && 'worldView' in globalThis")
            self.value("worldView.ready")
        except BaseException:
            self._end()
            raise

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method of the protocol answers; raises RuntimeError if it answers with an error."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def value(self, expression: str) -> Any:
        """The value of JavaScript, of a promise when it is kept; raises RuntimeError if it throws."""
        asked = {"expression": f"(async () => {expression})()", "awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", **asked)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def key(self, name: str, *, down: bool) -> None:
        """Press a key, or let it go."""
        self.call("Input.dispatchKeyEvent", type="keyDown" if down else "keyUp", key=name, code=name)

    def wait_for(self, condition: str) -> None:
        """Wait until JavaScript is true; raises TimeoutError."""
        end = time.monotonic() + PATIENCE
        while not self.call("Runtime.evaluate", expression=condition, returnByValue=True)["result"].get("value"):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition}: {self.complaints}")
            time.sleep(0.05)

    def _note(self, message: dict[str, Any]) -> None:
        if message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(message["params"])[:1000])
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] in ("warning", "error"):
            self.complaints.append(message["params"]["entry"]["text"])

    def _end(self) -> None:
        self._open.close()
        self._process.terminate()
        self._process.wait(PATIENCE)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()


def _page_socket(profile: Path) -> str:
    """The address of the page's own connection, once the browser has started."""
    told, end = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while not told.exists() or "\n" not in told.read_text():
        if time.monotonic() > end:
            raise TimeoutError("the browser does not start")
        time.sleep(0.05)
    port = told.read_text().splitlines()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        targets = json.load(answer)
    return next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
