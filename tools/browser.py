"""Chromium without a window, driven over a pipe: what a page measures at a width, and how it looks there.

The protocol is Chrome DevTools' (https://chromedevtools.github.io/devtools-protocol), one JSON text and a zero byte a message,
over the file descriptors 3 and 4 (`--remote-debugging-pipe`), so nothing but the standard library is needed.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_HERE = "var page = document, view = window;"
_FRAMED = "var frame = document.querySelector('iframe'), page = frame.contentDocument, view = frame.contentWindow;"


def found() -> str:
    """The browser's path; empty where none is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), "")


def _high(end: int) -> int:
    """The same end of a pipe under a number that is neither 3 nor 4."""
    higher = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return higher


class Browser:
    """One browser with one page; a context manager.

    Raises:
        FileNotFoundError: no browser is installed.
        RuntimeError: the browser ended, or a script in the page failed.
    """

    def __init__(self) -> None:
        if not found():
            raise FileNotFoundError(f"none of {', '.join(NAMES)} is installed: apt-get install chromium")
        self._home = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._number, self._session, self._is_framed = 0, "", False

    def __enter__(self) -> "Browser":
        to_read, self._to = (_high(end) for end in os.pipe())
        self._from, to_write = (_high(end) for end in os.pipe())
        # The browser reads from its descriptor 3 and writes to 4; a shell gives them these numbers (dash knows none above 9).
        command = [
            *("bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash", found(), "--headless", "--no-sandbox"),
            *("--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars=false", "--remote-debugging-pipe"),
            *(f"--user-data-dir={self._home.name}", "about:blank"),
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._input = os.fdopen(self._from, "rb", buffering=0)
        self._rest = b""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        self._input.close()
        self._home.cleanup()

    def show(self, html: str, *, width: int, height: int = 598, framed: bool = False) -> None:
        """Open a page of this text.

        Args:
            framed: within an `<iframe srcdoc>` of that size, as Kubeflow's pages show a report; scripts may not run in it.
        """
        self._is_framed = framed
        style = f"border:0;width:{width}px;height:{height}px"
        frame = '<!doctype html><body style="margin:0"><iframe sandbox="allow-same-origin"></iframe>'
        path = Path(self._home.name) / "page.html"
        path.write_text(frame if framed else html, encoding="utf-8", errors="replace")
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._call("Page.navigate", url=path.as_uri())
        self._call("Runtime.enable")
        waiting = "new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', () => done(1)))"
        self._evaluate(waiting)
        if framed:
            self._evaluate(
                f"new Promise(done => {{ let frame = document.querySelector('iframe'); frame.style = '{style}';"
                f"frame.onload = () => done(1); frame.srcdoc = {json.dumps(html)} }})"
            )

    def visit(self, url: str, *, width: int, height: int, scale: float = 1) -> None:
        """Open a page by its address; it may go on drawing itself after that.

        Args:
            scale: of a picture, in pixels for each of the page's.
        """
        self._is_framed = False
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)
        self._call("Page.navigate", url=url)
        self._call("Runtime.enable")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in which `page` is the report's document and `view` its window."""
        return self._evaluate(f"(() => {{ {_FRAMED if self._is_framed else _HERE} return {expression} }})()")

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        return base64.b64decode(data)

    def _evaluate(self, expression: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        left = memoryview(json.dumps(message).encode() + b"\0")
        while left:
            left = left[os.write(self._to, left) :]
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._input.read(1 << 20)
            if not more:
                raise RuntimeError("the browser ended")
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message
