"""An HTTP server that keeps pipelines, experiments, runs and schedules as a Kubeflow Pipelines backend's API does, for tests.

Requests and answers are checked against the published OpenAPI (`kfp_contract`): what is not as it says goes to `faults`, and
the fixture that hands the server out fails the test. It behaves as KFP 2.17 was seen to: what it stores of a pipeline is
written anew, a run of a version only names it, `error` is empty in every run, a run that was terminated is FAILED, a schedule's
run goes with the schedule and stays RUNNING, ending such a run answers 500. It can be away for a while (no connection, 503, no
answer), and it gives a log's error with status 200.
"""

import contextlib
import json
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.support.kfp_contract import faults, now, operation

KINDS = {
    "pipelines": "pipeline_id",
    "versions": "pipeline_version_id",
    "experiments": "experiment_id",
    "runs": "run_id",
    "recurringruns": "recurring_run_id",
}
LISTS = {"versions": "pipeline_versions", "recurringruns": "recurringRuns"}
NO_LOG = {"error_message": "Failed to read logs: pods not found", "error_details": "..."}
OPEN = ("PENDING", "RUNNING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED")
INVALID, NOT_FOUND, EXISTS, INTERNAL, FORBIDDEN = (3, 400), (5, 404), (6, 409), (13, 500), (7, 403)


class Refusal(Exception):
    """An answer that is no success: the code of gRPC and the status of HTTP, and a text."""

    def __init__(self, kind: tuple[int, int], text: str) -> None:
        super().__init__(text)
        (self.code, self.status), self.text = kind, text


class Api(ThreadingHTTPServer):
    """Keeps what is posted.

    `calls` are the writes in order; `states` are handed out to whoever asks for a run, and `details` are its tasks, unless
    `engine` says how a run stands; `orphans` are runs whose workflow is gone; `logs` are texts by pod; `answers` are statuses
    (with a body) given to the next requests for a run, before anything else; a status of 0 is no answer at all; `refuses` is
    the kind of thing that nobody may create; `busy` is how many of the next writes end with an error of the database.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.kept: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.calls: list[str] = []
        self.states = ["SUCCEEDED"]
        self.details: list[dict[str, Any]] = []
        self.engine: Callable[[Api, dict[str, Any]], None] | None = None
        self.orphans: set[str] = set()
        self.tokens: set[str | None] = set()
        self.refuses = ""
        self.logs: dict[str, str] = {}
        self.answers: list[tuple[int, str]] = []
        self.faults: list[str] = []
        self.busy = 0
        self.is_healthy = True
        self.release = threading.Event()
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def tick(self, schedule_id: str) -> str:
        """The clock strikes: a run of a schedule begins, made by the controller; its id."""
        one = self.kept["recurringruns"][schedule_id]
        number = sum(run.get("recurring_run_id") == schedule_id for run in self.kept["runs"].values())
        copied = ("experiment_id", "pipeline_version_reference", "runtime_config")
        body = {name: one[name] for name in copied} | {"recurring_run_id": schedule_id}
        name = re.sub("[^a-z0-9]", "", one["display_name"].lower())
        return str(self.add("runs", body | {"display_name": f"{name}-{number + 1}"})["run_id"])

    def add(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """Keep a new thing with what the backend adds to it."""
        with self.lock:
            new = str(uuid.uuid4())
            self.calls.append(f"POST {new}")
            more: dict[str, Any] = {KINDS[kind]: new, "created_at": now()}
            if kind in ("runs", "experiments"):
                more["storage_state"] = "AVAILABLE"
            if kind == "runs":
                more |= {"state_history": [{"update_time": now(), "state": "PENDING"}]}
                more |= {"scheduled_at": now(), "finished_at": "1970-01-01T00:00:00Z"}
            if kind == "recurringruns":
                mode = body.get("mode", "ENABLE")
                more |= {"status": f"{mode}D", "updated_at": now()}
            self.kept[kind][new] = body | more
            return self.kept[kind][new]


def enter(run: dict[str, Any], state: str) -> None:
    """A run comes into a state; a terminated one ends FAILED."""
    if run.get("state") != state:
        run["state"] = state
        run.setdefault("state_history", []).append({"update_time": now(), "state": state})
        if state in ("FAILED", "SUCCEEDED"):
            run["finished_at"] = now()


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tokens.add(self.headers.get("authorization"))
        if "/nodes/" in url.path:
            found = self.server.logs.get(urllib.parse.unquote(url.path.split("/")[-2]))
            self._send(json.dumps(NO_LOG) if found is None else found, "text/plain")
            return
        path = url.path.removeprefix("/apis/v2beta1/")
        if path == "healthz" and not self.server.is_healthy:
            self._answer({"code": 14, "message": "not well"}, 503)
            return
        if method == "GET" and path.startswith("runs/") and self.server.answers:
            status, text = self.server.answers.pop(0)
            if not status:
                self.server.release.wait(600)
            else:
                self._send(text, "text/html" if text.startswith("<") else "application/json", status)
            return
        self._operate(method, path, query, data)

    def _operate(self, method: str, path: str, query: dict[str, str], data: bytes) -> None:
        found = operation(method, path)
        if not found:
            self._answer({"code": 5, "message": f"Not Found: {method} {path}"}, 404)
            return
        if method == "POST" and self.server.busy:
            self.server.busy -= 1
            self._answer({"code": 13, "message": "Error 1213 (40001): Deadlock found when trying to get lock"}, 500)
            return
        what, ids = found
        ids = tuple(urllib.parse.unquote(one) for one in ids)
        problems = [f"query: {name}" for name in query.keys() - what.query()]
        is_upload = what.call.startswith("upload")
        body = json.loads(data or b"{}") if data and not is_upload else {}
        problems += list(faults(body, what.body)) if what.body else []
        if problems:
            self.server.faults += [f"{method} {path}: {problem}" for problem in problems]
            self._answer({"code": 3, "message": f"unknown or wrong: {problems}"}, 400)
            return
        try:
            with self.server.lock:
                do = getattr(self, f"_{method.lower()}")
                answer = self._upload(query, data) if is_upload else do(path, ids, query, body)
        except Refusal as refusal:
            if is_upload:  # this endpoint has errors of its own kind
                error = {"error_message": refusal.text, "error_details": f"{refusal.text}: ..."}
            else:
                error = {"code": refusal.code, "message": refusal.text}
            self._answer(error, refusal.status)
            return
        self.server.faults += [f"answer to {method} {path}: {problem}" for problem in faults(answer, what.answer)]
        self._answer(answer)

    def _get(self, path: str, ids: tuple[str, ...], query: dict[str, str], _: dict[str, Any]) -> dict[str, Any]:
        kind = _kind(path)
        if path == "healthz":
            return {"multi_user": False}
        if path.startswith("pipelines/names/"):
            wanted = (ids[0], query.get("namespace", ""))
            named = [one for one in self.server.kept["pipelines"].values() if (one["name"], one.get("namespace", "")) == wanted]
            if not named:
                raise Refusal(NOT_FOUND, f"Failed to get a pipeline with name {ids[0]}: Namespace/Pipeline not found")
            return named[0]
        if not ids or path.endswith("/versions"):
            return self._list(kind, query, ids)
        return self._shown(kind, self._one(kind, ids[-1]))

    def _shown(self, kind: str, one: dict[str, Any]) -> dict[str, Any]:
        if kind != "runs":
            return one
        if self.server.engine:
            self.server.engine(self.server, one)
            return one
        states = self.server.states
        own = {} if "state" in one else {"state": states.pop(0) if len(states) > 1 else states[0]}
        tasks = {"run_details": {"task_details": self.server.details}} if self.server.details else {}
        return one | own | tasks

    def _list(self, kind: str, query: dict[str, str], ids: tuple[str, ...]) -> dict[str, Any]:
        predicates = json.loads(query["filter"])["predicates"] if "filter" in query else []
        found = list(self.server.kept[kind].values())
        for predicate in predicates:
            assert predicate["operation"] == "EQUALS", predicate
            if predicate["key"] not in ("name", "display_name", "recurring_run_id", "storage_state"):
                raise Refusal(INVALID, f"Invalid filter key {predicate['key']}")
            found = [one for one in found if one.get(predicate["key"]) == predicate["stringValue"]]
        if ids:
            found = [one for one in found if one["pipeline_id"] == ids[0]]
        if "experiment_id" in query:
            found = [one for one in found if one.get("experiment_id") == query["experiment_id"]]
        if query.get("sort_by") == "created_at desc":
            found.reverse()
        start = int(query.get("page_token") or 0)
        more = {"next_page_token": str(start + 1)} if start + 1 < len(found) else {}
        page = [self._shown(kind, one) for one in found[start : start + 1]]  # pages of one
        return ({LISTS.get(kind, kind): page, "total_size": len(found)} if found else {}) | more

    def _post(self, path: str, ids: tuple[str, ...], _: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        kind, verb = _kind(path), path.partition(":")[2]
        if verb:
            self.server.calls.append(f"{verb.upper()} {ids[0]}")
            return getattr(self, f"_{verb}")(self._one(kind, ids[0]))  # type: ignore[no-any-return]
        if kind == self.server.refuses:
            raise Refusal(FORBIDDEN, "not allowed")
        name = body.get("name") or body.get("display_name")
        if not name:
            raise Refusal(INTERNAL, "name cannot be empty")
        if len(name) > 255 or (kind in ("runs", "recurringruns") and len(body.get("description", "")) > 255):
            raise Refusal(INTERNAL, "Error 1406: Data too long for column")
        key = {"pipelines": "name", "experiments": "display_name"}.get(kind)
        same = [one for one in self.server.kept[kind].values() if one.get("namespace") == body.get("namespace")]
        if key and any(one[key] == name for one in same):
            raise Refusal(EXISTS, f"Failed to create a new one. The name {name} already exist")
        if kind in ("runs", "recurringruns"):
            self._check_job(kind, body)
        return self._shown(kind, self.server.add(kind, {"display_name": name} | body))

    def _check_job(self, kind: str, body: dict[str, Any]) -> None:
        if body.get("experiment_id") not in self.server.kept["experiments"]:
            raise Refusal(NOT_FOUND, f"Experiment {body.get('experiment_id')} not found")
        reference = body.get("pipeline_version_reference")
        if reference:
            version = self._one("versions", reference["pipeline_version_id"])
            if version["pipeline_id"] != reference["pipeline_id"]:
                raise Refusal(INVALID, "Pipeline version belongs to another pipeline")
            spec = version["pipeline_spec"]
        else:
            spec = body["pipeline_spec"]
        declared = spec.get("pipeline_spec", spec)["root"].get("inputDefinitions", {}).get("parameters", {})
        given = body.get("runtime_config", {}).get("parameters", {})
        missing = [name for name, one in declared.items() if name not in given and not one.get("isOptional")]
        if missing or given.keys() - declared.keys():
            raise Refusal(INVALID, f"parameters: missing {missing}, unknown {given.keys() - declared.keys()}")
        if kind == "recurringruns" and not (
            1 <= int(body.get("max_concurrency", 0)) <= 10 and len(body["trigger"]["cron_schedule"]["cron"].split()) == 6
        ):
            raise Refusal(INVALID, "Max concurrency or cron")

    def _upload(self, query: dict[str, str], data: bytes) -> dict[str, Any]:
        self._one("pipelines", query["pipelineid"])
        form = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\n\n" + data)
        assert isinstance(form, EmailMessage)
        (part,) = form.iter_parts()
        assert part.get_param("name", header="content-disposition") == "uploadfile", part.items()
        content = part.get_payload(decode=True)
        name, about = query.get("name") or str(part.get_filename()), query.get("description", "")
        versions = self.server.kept["versions"].values()
        if any((one["pipeline_id"], one["name"]) == (query["pipelineid"], name) for one in versions):
            raise Refusal(EXISTS, "Failed to create a pipeline version")
        assert isinstance(content, bytes)
        body = {"pipeline_id": query["pipelineid"], "name": name, "display_name": query.get("display_name") or name}
        return self.server.add("versions", body | {"description": about, "pipeline_spec": stored(content.decode())})

    def _terminate(self, run: dict[str, Any]) -> dict[str, Any]:
        self._shown("runs", run)
        if run.get("state", "RUNNING") not in OPEN:
            raise Refusal(INVALID, f"Failed to terminate a run {run['run_id']}. Row not found")
        enter(run, "CANCELING")
        if run["run_id"] in self.server.orphans:
            raise Refusal(INTERNAL, f"Failed to terminate run {run['run_id']} due to error terminating its workflow")
        return {}

    def _archive(self, run: dict[str, Any]) -> dict[str, Any]:
        run["storage_state"] = "ARCHIVED"
        return {}

    def _enable(self, one: dict[str, Any]) -> dict[str, Any]:
        one |= {"status": "ENABLED", "mode": "ENABLE"}
        return {}

    def _disable(self, one: dict[str, Any]) -> dict[str, Any]:
        one |= {"status": "DISABLED", "mode": "DISABLE"}
        return {}

    def _delete(self, path: str, ids: tuple[str, ...], query: dict[str, str], _: dict[str, Any]) -> dict[str, Any]:
        kind = _kind(path)
        self._one(kind, ids[-1])
        self.server.calls.append(f"DELETE {ids[-1]}")
        del self.server.kept[kind][ids[-1]]
        if kind == "recurringruns" and query.get("propagation_policy") != "ORPHAN":
            runs = self.server.kept["runs"].items()
            self.server.orphans |= {run_id for run_id, run in runs if run.get("recurring_run_id") == ids[-1]}
        return {}

    def _one(self, kind: str, item: str) -> dict[str, Any]:
        found = self.server.kept[kind].get(item)
        if found is None:
            raise Refusal(NOT_FOUND, f"{kind} {item} not found")
        return found

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(body), "application/json", status)

    def _send(self, text: str, kind: str, status: int = 200) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silent."""


def _kind(path: str) -> str:
    parts = path.partition(":")[0].split("/")
    return "versions" if parts[2:3] == ["versions"] else parts[0]


def stored(text: str) -> dict[str, Any]:
    """A compiled pipeline's YAML as the backend hands it back: read as messages, written anew, two documents as one mapping."""
    first, *others = [document for document in yaml.safe_load_all(text) if document]
    spec: dict[str, Any] = json_format.MessageToDict(json_format.ParseDict(first, pipeline_spec_pb2.PipelineSpec()))
    if not others:
        return spec
    platform = json_format.MessageToDict(json_format.ParseDict(others[0], pipeline_spec_pb2.PlatformSpec()))
    return {"pipeline_spec": spec, "platform_spec": platform}


@contextlib.contextmanager
def served(api: Api) -> Iterator[Api]:
    """While the block runs, the server answers."""
    thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.release.set()
        api.shutdown()
        api.server_close()
        thread.join()


@contextlib.contextmanager
def away(api: Api, until: Callable[[], object]) -> Iterator[None]:
    """From now on nothing listens on the server's port; once a condition holds, another server with all that it kept does."""
    again: list[Api] = []

    def come_back() -> None:
        while not until():
            time.sleep(0.01)
        new = Api(api.server_port)
        new.kept, new.logs, new.states = api.kept, api.logs, api.states
        again.append(new)
        new.serve_forever(poll_interval=0.02)

    api.shutdown()
    api.server_close()
    thread = threading.Thread(target=come_back, daemon=True)
    thread.start()
    try:
        yield
    finally:
        while not again:
            time.sleep(0.02)
        again[0].shutdown()
        again[0].server_close()
        thread.join()
