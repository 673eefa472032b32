"""A real browser: Debian's Chromium without a window, driven by the DevTools protocol.

    with browsing(tmp_path) as page:
        page.open(daemon.url)
        page.wait("document.querySelector('#answer').textContent.includes('Hello')")
        assert (page.errors, page.foreign_requests("127.0.0.1")) == ([], [])

All calls block. In a trio test, run them by `trio.to_thread.run_sync`. The test is skipped without Chromium.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0
"""Seconds until the browser has started, loaded a page or answered a command."""
FLAGS = (
    "--headless",
    "--no-sandbox",  # which root, as whom CI runs, cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
NAMED_KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "ArrowUp": (38, ""), "ArrowDown": (40, "")}
"""Key -> its code in Windows and its text."""
_TOO_WIDE = """
[...document.querySelectorAll("body, body *")].filter(element => {
    if (!element.checkVisibility() || element.getBoundingClientRect().right <= WIDTH + 1) return false
    for (let parent = element.parentElement; parent; parent = parent.parentElement)
        if (/auto|scroll|hidden/.test(getComputedStyle(parent).overflowX)) return false
    return true
}).map(element => element.outerHTML.slice(0, 80))
"""


class BrowserPage:
    """One open page. `requests` and `errors` grow while a method of it runs."""

    def __init__(self, socket: Connection) -> None:
        self.requests: list[str] = []
        """URLs of all requests."""
        self.errors: list[str] = []
        """Errors and warnings of the console, and exceptions that no script has caught."""
        self._socket = socket
        self._count = 0
        self._loaded = False
        self._width = 0
        self.resize(1400)
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Load a page, and wait until it and its resources are there."""
        self._loaded = False
        if failure := self.call("Page.navigate", url=url).get("errorText"):
            raise AssertionError(f"{url}: {failure}")
        deadline = time.monotonic() + PATIENCE
        while not self._loaded:
            self._receive(deadline)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of the promise that it returns, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if failure := answer.get("exceptionDetails"):
            raise AssertionError(f"{expression}: {failure}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = PATIENCE) -> Any:
        """Evaluate the expression until it is true, and return its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"not true after {seconds} s: {expression}"
            time.sleep(0.05)
        return value

    def resize(self, width: int, height: int = 900) -> None:
        """Set the size of the page. Below 600 pixels it is a phone, which obeys the viewport of the page."""
        self._width, phone = width, width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def theme(self, name: str) -> None:
        """Prefer a color scheme: `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def on_paper(self, width: int) -> None:
        """Show the page as it is printed."""
        self.resize(width)
        self.call("Emulation.setEmulatedMedia", media="print")

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release one of `NAMED_KEYS` or a letter."""
        code, text = NAMED_KEYS.get(key, (ord(key.upper()[0]), key))
        fields = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def type(self, text: str) -> None:
        """Enter text into the focused element."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Save a PNG of the whole page, also of the part that is out of sight."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def too_wide(self) -> list[str]:
        """Return the beginnings of visible elements that extend over the right border of the last size. The content of
        an element that scrolls by itself may do so."""
        found: list[str] = self.evaluate(_TOO_WIDE.replace("WIDTH", str(self._width)))
        return found

    def foreign_requests(self, host: str = "") -> list[str]:
        """Return the URLs of requests to other hosts. A page from a file has the host ''."""
        return [
            url for url in self.requests if urlsplit(url).scheme != "data" and (urlsplit(url).hostname or "") != host
        ]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command of the DevTools protocol."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        deadline = time.monotonic() + PATIENCE
        while (message := self._receive(deadline)).get("id") != self._count:
            pass
        if "error" in message:
            raise AssertionError(f"{method}: {message['error']}")
        result: dict[str, Any] = message["result"]
        return result

    def _receive(self, deadline: float) -> dict[str, Any]:
        """Return the next message; note what it says about the page."""
        message: dict[str, Any] = json.loads(self._socket.recv(max(0.0, deadline - time.monotonic())))
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.errors.append(json.dumps(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.errors.append(json.dumps(parameters["entry"]))
        return message


@contextmanager
def browsing(folder: Path) -> Iterator[BrowserPage]:
    """Start a browser with an empty profile in the folder, and yield its page. Skip the test without Chromium."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    profile = folder / "browser"
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with connect(_page_address(profile / "DevToolsActivePort"), max_size=None) as socket:
                yield BrowserPage(socket)
        finally:
            process.terminate()


def _page_address(port_file: Path) -> str:
    """Return the WebSocket address of the browser's page, once it listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError, IndexError, http.client.HTTPException):
            connection = http.client.HTTPConnection(
                "127.0.0.1", int(port_file.read_text().split()[0]), timeout=PATIENCE
            )
            connection.request("GET", "/json/list")
            pages = [target for target in json.loads(connection.getresponse().read()) if target["type"] == "page"]
            connection.close()
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError(f"chromium has no page after {PATIENCE} s")
