"""The log of a container: whole, its end, since a time, or followed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.support.apiserver import answers, kinds
from tests.support.apiserver.store import CLOCK

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster
    from tests.support.apiserver.containers import Attempt
    from tests.support.apiserver.resources import Request

_LOOK_S = 0.05


def read(cluster: "Cluster", request: "Request") -> tuple[int, Iterator[bytes]]:
    """The code and the lines; 204 without any for a pod that has no node yet.

    Raises:
        Refused: 404 without the pod; 400 for a container that is not there, waits, or has no earlier attempt.
    """
    pod = cluster.store.get(kinds.POD, request.namespace, request.name)
    runner = cluster.kubelet.runner(pod["metadata"]["uid"]) if pod else None
    if pod is None:
        raise answers.not_found("pods", request.name)
    names = [one["name"] for one in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]]
    name = request.query.get("container") or pod["spec"]["containers"][0]["name"]
    if name not in names:
        raise answers.bad_request(f"container {name} is not valid for pod {request.name}")
    if runner is None or "nodeName" not in pod["spec"]:
        return 204, iter(())
    container = runner.container(name)
    if waiting := container.waiting_reason():
        why = "image can't be pulled" if waiting in ("ErrImagePull", "ImagePullBackOff") else waiting
        raise answers.bad_request(f'container "{name}" in pod "{request.name}" is waiting to start: {why}')
    attempts = container.attempts
    gone = iter([f"unable to retrieve container logs for containerd://{container.id}".encode()])
    if request.query.get("previous") == "true":
        if len(attempts) < 2:
            raise answers.bad_request(f'previous terminated container "{name}" in pod "{request.name}" not found')
        # A node keeps few dead containers: those before a dead one are removed.
        is_kept = attempts[-1].exit_code is None or len(attempts) == 2
        return (200, _lines(request, attempts[-2])) if is_kept else (200, gone)
    if "deletionTimestamp" in pod["metadata"] and attempts and attempts[-1].exit_code is not None:
        return 200, gone
    return (200, _lines(request, attempts[-1])) if attempts else (200, iter(()))


def _lines(request: "Request", attempt: "Attempt") -> Iterator[bytes]:
    query = request.query
    since = 0.0
    if "sinceTime" in query:
        # The node is asked with whole seconds.
        since = int(datetime.fromisoformat(query["sinceTime"].replace("Z", "+00:00")).timestamp())
    if "sinceSeconds" in query:
        since = CLOCK.time() - float(query["sinceSeconds"])
    limit = int(query.get("limitBytes") or 2**40)
    follow = query.get("follow") == "true"
    first = 0
    if "tailLines" in query:
        first = max(0, len(attempt.lines) - int(query["tailLines"]))
    at = first
    while True:
        is_over = attempt.is_read.is_set()
        while at < len(attempt.lines):
            when, line = attempt.lines[at]
            at += 1
            if when < since:
                continue
            text = (f"{_stamp(when)} ".encode() if query.get("timestamps") == "true" else b"") + line
            yield text[:limit]
            limit -= len(text)
            if limit <= 0:
                return
        if is_over or not follow:
            return
        yield b""
        attempt.is_read.wait(_LOOK_S)


def _stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
