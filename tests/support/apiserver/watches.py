"""Watches: the changes of a kind as lines of JSON, with bookmarks, from a version on or from now."""

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import answers, selectors

if TYPE_CHECKING:
    from tests.support.apiserver.resources import Request
    from tests.support.apiserver.server import Server

Object = dict[str, Any]
_LONGEST_S = 1800.0
_LOOK_S = 0.2


def lines(server: "Server", request: "Request") -> Iterator[bytes]:
    """Lines until timeoutSeconds; empty ones while nothing happens. An error is a line as well, and the last one.

    Raises:
        Refused: for a selector or a version that is none, before the first line.
    """
    fits = selectors.matcher(request.kind, request.query)
    given = request.query.get("resourceVersion", "")
    if given and not given.isdigit():
        message = f'resourceVersion: Invalid value: "{given}": strconv.ParseUint: parsing "{given}": invalid syntax'
        raise answers.Refused(500, "", message)
    return _lines(server, request, fits, int(given or 0))


def _lines(server: "Server", request: "Request", fits: selectors.Test, version: int) -> Iterator[bytes]:
    store, kind = server.cluster.store, request.kind
    end = time.monotonic() + float(request.query.get("timeoutSeconds") or _LONGEST_S)
    marks = request.query.get("allowWatchBookmarks") == "true"
    next_mark = time.monotonic() + server.cluster.bookmark_s
    if version == 0:
        with store.changed:
            version = store.version
            now = [item for item in store.all(kind, request.namespace) if fits(item)]
        yield from (_line("ADDED", item) for item in now)
    while time.monotonic() < end:
        try:
            with store.changed:
                current, changes = store.version, store.since(kind, version)
        except answers.Refused as refused:
            yield _line("ERROR", refused.status)
            return
        version = max(version, current)
        for change in changes:
            if change.item["metadata"].get("namespace", "") != request.namespace and request.namespace:
                continue
            before = change.before is not None and fits(change.before)
            after = change.verb != "DELETED" and fits(change.item)
            if before or after:
                verb = "DELETED" if before and not after else "MODIFIED" if before else "ADDED"
                yield _line(verb, change.item)
        if marks and time.monotonic() >= next_mark:
            next_mark = time.monotonic() + server.cluster.bookmark_s
            meta = {"resourceVersion": str(version)}
            yield _line("BOOKMARK", {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta})
        yield b""
        store.wait(current, min(_LOOK_S, max(0.0, end - time.monotonic())))


def _line(verb: str, item: Object) -> bytes:
    return json.dumps({"type": verb, "object": item}).encode() + b"\n"
