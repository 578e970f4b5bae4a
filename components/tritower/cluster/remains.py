"""What is kept of a job that failed: its pods and their logs go with it."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tritower import storage
from tritower.cluster import pod_log
from tritower.cluster.following import Following
from tritower.errors import LaunchError


def save(following: Following, place: str) -> str:
    """Status, events and logs of all pods, to a location; the sentence that says so."""
    try:
        with tempfile.TemporaryDirectory(prefix="failure-") as scratch:
            for file, content in _files(following):
                (Path(scratch) / file).write_bytes(content)
            storage.upload_tree(scratch, place)
    except (OSError, LaunchError) as error:  # the store, this machine's disk, the API server
        return f"Status and logs could not be saved: {error}"
    return f"Status, events and logs of its pods are in {place}."


def _files(following: Following) -> Iterator[tuple[str, bytes]]:
    following.look_again()
    seen = following.seen
    for file, thing in (("job", seen.job), ("pods", seen.pods), ("events", seen.events), ("parts", seen.parts)):
        if thing or file != "parts":
            yield f"{file}.json", json.dumps(thing, indent=2).encode()
    for pod in seen.pods:
        for previous in (False, True):
            text = pod_log.whole(following.server, following.config.namespace, pod, previous=previous)
            if text:
                yield f"{pod['metadata']['name']}{'.previous' * previous}.log", text
