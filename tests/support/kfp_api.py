"""An HTTP server that keeps experiments, runs and schedules as a Kubeflow Pipelines backend's API does, for tests.

Also what the real one does when things go wrong (KFP 2.17): it is away for a while (no connection, 503, no answer), gives a
log's error with status 200, and deletes a schedule's run with the schedule.
"""

import contextlib
import functools
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KINDS = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}
NO_LOG = {"error_message": "Failed to read logs: pods not found", "error_details": "..."}


class Api(ThreadingHTTPServer):
    """Keeps what is posted.

    `calls` are the writes in order; `states` are handed out to whoever asks for a run, and `details` are its tasks; `logs` are
    texts by pod; `answers` are statuses (with a body) given to the next requests for a run, before anything else; a status of 0
    is no answer at all.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.kept: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.calls: list[str] = []
        self.states = ["SUCCEEDED"]
        self.details: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuses = ""
        self.logs: dict[str, str] = {}
        self.answers: list[tuple[int, str]] = []
        self.is_healthy = True
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        kind, item, query = self._parts()
        if kind == "healthz":
            self._answer({"multi_user": False}, 200 if self.server.is_healthy else 503)
        elif "/nodes/" in self.path:
            pod = self.path.split("/")[-2]
            found = self.server.logs.get(urllib.parse.unquote(pod))
            self._send(json.dumps(NO_LOG) if found is None else found, "text/plain")
        elif item and kind == "runs" and self.server.answers:
            status, text = self.server.answers.pop(0)
            if not status:
                self.server.release.wait(10)
                return
            self._send(text, "text/html" if text.startswith("<") else "application/json", status)
        elif item:
            found_item = self.server.kept[kind].get(item)
            if found_item is None:
                self._answer({"code": 5, "message": f"Run {item} not found"}, 404)
                return
            states = self.server.states
            own = {} if "state" in found_item else {"state": states.pop(0) if len(states) > 1 else states[0]}
            tasks = {"run_details": {"task_details": self.server.details}} if self.server.details else {}
            self._answer(found_item | own | tasks)
        else:
            self._list(kind, query)

    def _list(self, kind: str, query: dict[str, str]) -> None:
        (predicate,) = json.loads(query["filter"])["predicates"]
        of = query.get("experiment_id")
        found = [
            one
            for one in self.server.kept[kind].values()
            if one.get(predicate["key"]) == predicate["stringValue"] and of in (None, one.get("experiment_id"))
        ]
        key = "recurringRuns" if kind == "recurringruns" else kind
        start = int(query.get("page_token") or 0)
        more = {"next_page_token": str(start + 1)} if start + 1 < len(found) else {}
        self._answer({key: found[start : start + 1], "total_size": len(found)} | more)  # pages of one

    def do_POST(self) -> None:
        kind, item, _ = self._parts()
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if item.endswith(":disable"):
            self.server.calls.append(f"DISABLE {item.removesuffix(':disable')}")
            self.server.kept[kind][item.removesuffix(":disable")]["status"] = "DISABLED"
            self._answer({})
            return
        if kind == self.server.refuses:
            self._answer({"message": "not allowed"}, 403)
            return
        new = f"{kind}-{len(self.server.calls)}"
        self.server.calls.append(f"POST {new}")
        self.server.kept[kind][new] = json.loads(data) | {KINDS[kind]: new}
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
def away(api: Api, seconds: float) -> Iterator[None]:
    """From now on for some seconds nothing listens on the server's port; then another server with all that it kept does."""
    again: list[Api] = []

    def come_back() -> None:
        time.sleep(seconds)
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


def node_hash(name: str) -> int:
    """FNV-1a, 32 bits."""
    return functools.reduce(lambda value, byte: ((value ^ byte) * 16777619) % 2**32, name.encode(), 2166136261)


def tasks(workflow: str, nodes: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Tasks as the API lists an Argo workflow's nodes.

    Args:
        workflow: its name.
        nodes: full name and state of every node, without the workflow's own name: `root(0).embed(0).executor(0)`.
    """
    names = {f"{workflow}(0).{name}": state for name, state in nodes}
    above = {f"{workflow}": "", f"{workflow}(0)": workflow}
    for name in names:
        is_attempt = name.endswith(")") and name.rpartition("(")[0] in names
        above[name] = name.rpartition("(")[0] if is_attempt else name.rpartition(".")[0]
    found = []
    for name in above:
        children = [f"{workflow}-{node_hash(child)}" for child, parent in above.items() if parent == name]
        state = names.get(name, "FAILED")
        task = {"display_name": name.rpartition(".")[2], "state": state, "child_tasks": [{"pod_name": one} for one in children]}
        found.append({key: value for key, value in task.items() if value})
    return found
