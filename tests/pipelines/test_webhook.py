"""The outcome of a run at an address of the user's: a real HTTP server that takes it, refuses it, or is slow."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tritower.errors import ConfigError

from pipelines import webhook
from tests.support.kfp_api import Api

ROOT = Path(__file__).parents[2]
SECRET = "T0/B0/verysecret"


class Hook(ThreadingHTTPServer):
    """Answers with the next of `statuses`, after `seconds`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.statuses: list[int] = []
        self.seconds = 0.0
        self.taken: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/{SECRET}"


class Taker(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json" and self.path.endswith(SECRET)
        time.sleep(self.server.seconds)
        self.server.taken.append(json.loads(data))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        raise AssertionError("a redirect was followed")

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setattr(webhook, "_PAUSE_S", 0.01)
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("statuses", "tries", "problem"),
    [
        ([], 1, ""),
        ([503, 429], 3, ""),
        ([500, 500, 500], 3, "it answered 500"),
        ([404], 1, "it answered 404"),
        ([302], 1, "it answered 302"),
    ],
)
def test_it_is_tried_again_where_that_may_help(hook: Hook, statuses: list[int], tries: int, problem: str) -> None:
    hook.statuses[:] = statuses
    said = webhook.post(hook.url, {"text": "a run: SUCCEEDED"})
    assert said == (f"The webhook at 127.0.0.1 did not take the outcome: {problem}." if problem else "")
    assert hook.taken == [{"text": "a run: SUCCEEDED"}] * tries


def test_a_slow_one_and_none_at_all(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_TIMEOUT_S", 0.05)
    hook.seconds = 0.3
    assert webhook.post(hook.url, {}) == "The webhook at 127.0.0.1 did not take the outcome: no answer in time."
    said = webhook.post(f"http://127.0.0.1:9/{SECRET}", {})
    assert said == "The webhook at 127.0.0.1 did not take the outcome: Connection refused."


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "https://", "hooks.example/x", "https://a/b c", "https://a/\n"]
)
def test_its_address_is_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no http or https address \(in --webhook\)"):
        webhook.address(url)
    monkeypatch.setenv(webhook.VARIABLE, url)
    with pytest.raises(ConfigError, match=r"\(in TRITOWER_WEBHOOK\)") as caught:
        webhook.address()
    assert url.removeprefix("https://") not in str(caught.value) or url == "https://"
    assert webhook.address("https://hooks.example/x") == "https://hooks.example/x"


PLACES = ["--jobs", "s3://b/jobs", "--impressions", "s3://b/clicks", "--data-version", "1"]


def test_submit_and_status_post_the_outcome_and_keep_the_address_to_themselves(api: Api, hook: Hook) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines", *arguments, "--endpoint", api.url]
        variables = {**os.environ, webhook.VARIABLE: hook.url}
        return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)

    hook.statuses[:] = [404]
    done = call("submit", "--wait", *PLACES)
    run_id = done.stdout.split()[0]
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "The webhook at 127.0.0.1 did not take the outcome: it answered 404."
    assert hook.taken[0]["run_id"] == run_id and hook.taken[0]["state"] == "SUCCEEDED"
    assert hook.taken[0]["text"] == f"{hook.taken[0]['name']}: SUCCEEDED"

    api.states[:] = ["FAILED"]
    done = call("status", run_id)
    assert done.returncode == 1 and hook.taken[1]["state"] == "FAILED"
    assert "the backend marks no step as failed" in hook.taken[1]["error"] and SECRET not in done.stderr + done.stdout
