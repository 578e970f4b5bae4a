"""Submitting and scheduling, against an HTTP server that keeps experiments and runs as the backend's API does."""

import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tritower.errors import ConfigError, JobFailed, LaunchError

from pipelines import remote
from tests.pipelines import toy

KINDS = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}


class Api(ThreadingHTTPServer):
    """Keeps what is posted; `calls` are the writes in order; `states` are handed out to whoever asks for a run."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kept: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.calls: list[str] = []
        self.states = ["SUCCEEDED"]
        self.tokens: set[str | None] = set()
        self.refuses = ""


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        kind, item, query = self._parts()
        if kind == "healthz":
            self._answer({"multi_user": False})
        elif item:
            found = self.server.kept[kind][item]
            states = self.server.states
            self._answer(found | {"state": states.pop(0) if len(states) > 1 else states[0]})
        else:
            name = json.loads(query["filter"])["predicates"][0]["stringValue"]
            of = query.get("experiment_id")
            found = [
                one
                for one in self.server.kept[kind].values()
                if one["display_name"] == name and of in (None, one.get("experiment_id"))
            ]
            key = "recurringRuns" if kind == "recurringruns" else kind
            start = int(query.get("page_token") or 0)
            more = {"next_page_token": str(start + 1)} if start + 1 < len(found) else {}
            self._answer({key: found[start : start + 1], "total_size": len(found)} | more)  # pages of one

    def do_POST(self) -> None:
        kind, _, _ = self._parts()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if kind == self.server.refuses:
            self._answer({"message": "not allowed"}, 403)
            return
        new = f"{kind}-{len(self.server.calls)}"
        self.server.calls.append(f"POST {new}")
        self.server.kept[kind][new] = body | {KINDS[kind]: new}
        self._answer(self.server.kept[kind][new])

    def do_DELETE(self) -> None:
        kind, item, _ = self._parts()
        self.server.calls.append(f"DELETE {item}")
        del self.server.kept[kind][item]
        self._answer({})

    def _parts(self) -> tuple[str, str, dict[str, str]]:
        url = urllib.parse.urlparse(self.path)
        self.server.tokens.add(self.headers.get("authorization"))
        _, _, _, kind, *item = url.path.split("/")
        return kind, item[0] if item else "", dict(urllib.parse.parse_qsl(url.query))

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def backend(api: Api) -> remote.Backend:
    return remote.Backend(f"http://127.0.0.1:{api.server_port}", token="secret")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.compiled(tmp_path_factory.mktemp("toy"))


def test_submit_and_wait(api: Api, backend: remote.Backend, pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = backend.submit(pipeline, {"text": "ab", "limit": 3}, experiment="daily", name="first", service_account="robot")
    run = api.kept["runs"][run_id]
    assert run["display_name"] == "first" and run["service_account"] == "robot"
    assert run["runtime_config"]["parameters"] == {"text": "ab", "limit": 3}
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "toy"
    assert [one["display_name"] for one in api.kept["experiments"].values()] == ["daily"]
    assert api.tokens == {"Bearer secret"}

    api.states[:] = ["PENDING", "RUNNING", "SUCCEEDED"]
    assert backend.wait(run_id, poll_s=0.01) == "SUCCEEDED"
    for state in ("FAILED", "CANCELED"):
        api.states[:] = ["RUNNING", state]
        with pytest.raises(JobFailed, match=state):
            backend.wait(run_id, poll_s=0.01)
    assert capsys.readouterr().out == ""


def test_schedule_makes_the_new_one_before_it_deletes_the_old(api: Api, backend: remote.Backend, pipeline: Path) -> None:
    def schedule(name: str, cron: str) -> tuple[str, list[str]]:
        return backend.schedule(pipeline, {"text": "ab"}, experiment="daily", name=name, cron=cron)

    first, none = schedule("nightly", "0 0 3 * * *")
    other, _ = schedule("weekly", "0 0 4 * * 1")
    assert none == [] and api.kept["recurringruns"][first]["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    tasks = api.kept["recurringruns"][first]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks.values())

    # A second one left over by a deletion that failed goes as well, also from a later page.
    api.kept["recurringruns"]["left-over"] = dict(api.kept["recurringruns"][first], recurring_run_id="left-over")
    second, replaced = schedule("nightly", "0 30 3 * * *")
    assert set(replaced) == {first, "left-over"}
    assert api.calls[-3:] == [f"POST {second}", f"DELETE {first}", "DELETE left-over"]
    assert api.kept["recurringruns"].keys() == {second, other}


def test_a_refused_schedule_leaves_the_old_one(api: Api, backend: remote.Backend, pipeline: Path) -> None:
    kept, _ = backend.schedule(pipeline, {"text": "ab"}, experiment="daily", name="nightly", cron="0 0 3 * * *")
    api.refuses = "recurringruns"
    with pytest.raises(LaunchError, match=r"refused \(403\).*not allowed"):
        backend.schedule(pipeline, {"text": "ab"}, experiment="daily", name="nightly", cron="0 0 4 * * *")
    assert api.kept["recurringruns"].keys() == {kept}


@pytest.mark.parametrize("cron", ["0 3 * * *", "", "0 0 3 * * * *", "0 0 3 * * ; rm"])
def test_cron_has_six_fields(cron: str) -> None:
    with pytest.raises(ConfigError, match="six fields"):
        remote.check_cron(cron)


def test_a_backend_that_is_not_there(pipeline: Path) -> None:
    with pytest.raises(LaunchError, match="cannot be reached"):
        remote.Backend("http://127.0.0.1:9").submit(pipeline, {}, experiment="x", name="y")
