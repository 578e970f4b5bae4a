"""Recordings of real operators (tests/data/recordings), and what a cluster of the tests does when it is asked the same."""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from tests.support.apiserver import Cluster, kinds, served
from tests.support.apiserver.store import Change

Object = dict[str, Any]
FOLDER = Path(__file__).parents[1] / "data" / "recordings"
ROUTINE = {"ContainerCreating", "PodInitializing"}
_UID = "[0-9a-f]{8}-[0-9a-f-]{27}"
_FOLLOWED = (kinds.PYTORCHJOB, kinds.POD, kinds.EXPERIMENT, kinds.TRIAL)


@dataclass
class Tale:
    """What one object (one uid) went through.

    `states`: of a pod its phases with the number of restarts, of others their conditions; 'gone' at the end. `reasons`: of a
    pod's containers and conditions, each once, in order.
    """

    states: list[Any] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def tell(self, kind: str, status: Object) -> None:
        state: Any
        if kind == "Pod":
            restarts = sum(one.get("restartCount", 0) for one in status.get("containerStatuses", []))
            state = (status.get("phase", "Pending"), restarts)
            found = (re.sub(_UID, "", one) for one in _reasons(status))
            self.reasons += [one for one in dict.fromkeys(found) if one not in self.reasons]
        else:
            state = tuple((one["type"], one["status"], one["reason"], one["message"]) for one in status.get("conditions", []))
        if not self.states or self.states[-1] != state:
            self.states.append(state)

    @property
    def told(self) -> list[Any]:
        """States; whether the node tells that a container ran which the kernel ended at once is chance."""
        killed = any(reason.startswith("OOMKilled") for reason in self.reasons)
        return [one for one in self.states if not (killed and one[0] == "Running")]


def _reasons(status: Object) -> Iterator[str]:
    for part in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(part, []):
            waiting, terminated = one["state"].get("waiting", {}), one["state"].get("terminated")
            if waiting and waiting["reason"] not in ROUTINE:
                yield f"{waiting['reason']}: {waiting.get('message', '')}"
            if terminated and (part == "containerStatuses" or terminated["exitCode"]):
                yield f"{terminated['reason']}:{terminated['exitCode']}"
    for one in status.get("conditions", []):
        if (one["type"], one["status"]) in (("PodScheduled", "False"), ("DisruptionTarget", "True")):
            yield f"{one['reason']}: {one.get('message', '')}" if one["type"] == "PodScheduled" else one["reason"]


Key = tuple[str, str, int]


@dataclass
class Tales:
    """Tales by kind, name and how many of that name came before."""

    by_object: dict[Key, Tale] = field(default_factory=dict)
    _uids: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _status: dict[Key, Object] = field(default_factory=dict)

    def take(self, kind: str, verb: str, name: str, uid: str | None, status: Object | None) -> None:
        """A change. Args: uid, status: None where they are as before."""
        uids = self._uids.setdefault((kind, name), [])
        if uid and uid not in uids:
            uids.append(uid)
        key = (kind, name, len(uids))
        tale = self.by_object.setdefault(key, Tale())
        self._status[key] = self._status.get(key, {}) if status is None else status
        if verb == "DELETED":
            tale.states.append("gone")
        elif "gone" not in tale.states:
            tale.tell(kind, self._status[key])


class Recording:
    """One scenario. Args: quicker: so much shorter are the sleeps of its commands."""

    def __init__(self, name: str, quicker: float) -> None:
        text = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
        text = re.sub(r"sleep (\d+)", lambda found: f"sleep {float(found[1]) / quicker:g}", text)
        self.lines: list[Object] = [json.loads(line) for line in text.splitlines()]
        self.manifest: Object = self.lines[0].get("manifest") or {}
        self.namespace: str = self.lines[0]["namespace"]

    def tales(self, before: float = float("inf")) -> Tales:
        """Of what came before a time; lines of one moment may stand in any order."""
        tales = Tales()
        for line in self.lines:
            if line["t"] > before - 0.25:
                break
            if line.get("kind") in {kind.kind for kind in _FOLLOWED} and "object" in line:
                item = line["object"]
                tales.take(line["kind"], line["verb"], line["name"], item["metadata"].get("uid"), item.get("status"))
        return tales

    def events(self, kind: str) -> set[tuple[str, str, str]]:
        """Those about objects of a kind: (type, reason, message without what differs)."""
        found = [line["object"] for line in self.lines if line.get("kind") == "Event"]
        return {_event(one) for one in found if one["involvedObject"]["kind"] == kind}


def _event(event: Object) -> tuple[str, str, str]:
    return event["type"], event["reason"], re.sub(_UID, "", event["message"])


class Observer:
    """What the objects of a cluster go through."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._tales, self._seen = cluster, Tales(), 0

    def tales(self) -> dict[Key, Tale]:
        """Until now."""
        with self._cluster.store.changed:
            changes: list[Change] = self._cluster.store.history[self._seen :]
        self._seen += len(changes)
        for change in changes:
            if change.kind in _FOLLOWED:
                item = change.item
                status = item.get("status") or {}
                self._tales.take(change.kind.kind, change.verb, item["metadata"]["name"], item["metadata"]["uid"], status)
        return self._tales.by_object


def played(name: str, speed: float, made: Callable[[float], Cluster], play: Callable[[Cluster, str], None]) -> None:
    """Play a recording on a cluster of its own.

    A busy machine needs as long for a start as there is between two events of the recording, so that another one may come
    first. What differs is played once more, at a quarter of the speed: what is between is four times as long.

    Args:
        made: a cluster of a speed.
        play: raises AssertionError where something differs.
    """
    for pace in (speed, speed / 4):
        try:
            with served(made(pace)) as cluster:
                return play(cluster, name)
        except AssertionError:
            if pace != speed:
                raise
    return None


def played_together(
    names: Sequence[str], speed: float, made: Callable[[float], Cluster], play: Callable[[Cluster, str], None]
) -> None:
    """Play recordings side by side on one cluster; what differs, by itself and slower."""
    with served(made(speed)) as cluster, ThreadPoolExecutor(len(names)) as pool:
        running = {name: pool.submit(play, cluster, name) for name in names}
        differing = [name for name, one in running.items() if isinstance(one.exception(), AssertionError)]
        for one in running.values():
            if not isinstance(one.exception(), AssertionError):
                one.result()
    for name in differing:
        played(name, speed / 4, made, play)


def events(cluster: Cluster, kind: str) -> set[tuple[str, str, str]]:
    """Events about objects of a kind."""
    found = cluster.store.all(kinds.EVENT)
    return {_event(one) for one in found if one["involvedObject"]["kind"] == kind}


class Player:
    """Sends the requests of a recording, each when what came before it in the recording has come here too.

    A line's `sent` are headers of its own.

    Args:
        is_loose: the recorded states of a job need only be among those here, in their order.
        skipped: notes of requests that are not sent.
    """

    def __init__(self, cluster: Cluster, recording: Recording, *, is_loose: bool = False, skipped: Sequence[str] = ()) -> None:
        self._cluster, self._recording, self._is_loose, self._skipped = cluster, recording, is_loose, skipped
        self._observer = Observer(cluster)
        self._pool = urllib3.PoolManager(retries=False)

    def play(self) -> None:
        """All requests, then wait for the end. Raises: AssertionError: what differs."""
        begun, at = time.monotonic(), 0.0
        for line in self._recording.lines:
            if line["verb"] == "CALL" and line.get("note") not in self._skipped:
                pause_s = (line["t"] - at) / self._cluster.speed
                self._wait(self._recording.tales(line["t"]), f"before {line['method']} {line['path']}")
                time.sleep(max(0.0, begun + pause_s - time.monotonic()))
                self.call(line)
                begun, at = time.monotonic(), line["t"]
        self._wait(self._recording.tales(), "at the end")

    def call(self, line: Object) -> None:
        """One request, until it is answered as recorded: code, and message or text."""
        end = time.monotonic() + 120
        while True:
            code, answer = self._send(line)
            recorded = line.get("answer")
            same = code == line["code"]
            if isinstance(recorded, dict) and "message" in recorded:
                same = same and _plain(answer) == _plain(recorded)
            elif isinstance(recorded, str):
                same = same and answer[:30] == recorded[:30]
            if same:
                return
            assert line["method"] == "GET" and time.monotonic() < end, f"{line}\nhere {code}: {answer}"
            time.sleep(0.02)

    def _send(self, line: Object) -> tuple[int, Any]:
        if line["path"].endswith("/deployments/training-operator/scale"):
            (
                self._cluster.down.clear
                if line["body"]["spec"]["replicas"]
                else lambda: self._cluster.down.add("training-operator")
            )()
            return 200, {}
        # A request that has no body in the recording is the manifest, sent again.
        body = line.get("body", self._recording.manifest if line["method"] in ("POST", "PUT") else None)
        type_ = "application/merge-patch+json" if line["method"] == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._cluster.admin_token}", "Content-Type": type_, **line.get("sent", {})}
        headers = {key: value for key, value in headers.items() if value}
        data = body if isinstance(body, str | None) else json.dumps(body)
        answer = self._pool.request(line["method"], self._cluster.url + line["path"], body=data, headers=headers)
        text = answer.data.decode()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def _wait(self, wanted: Tales, when: str, seconds: float = 300.0) -> None:
        """Until every tale has begun as the recording's has."""
        end = time.monotonic() + seconds
        while True:
            here = self._observer.tales()
            loose = {key for key in wanted.by_object if self._is_loose and key[0] == "PyTorchJob"}
            begins = {key: _among if key in loose else _begins for key in wanted.by_object}
            differing = [key for key, tale in wanted.by_object.items() if key not in here or not begins[key](here[key], tale)]
            if not differing:
                return
            strict = [key for key in differing if key in here and key not in loose]
            if time.monotonic() > end or any(_departs(here[key], wanted.by_object[key]) for key in strict):
                shown = [f"{key}\n  recorded {wanted.by_object[key]}\n  here     {here.get(key)}" for key in differing]
                raise AssertionError(when + "\n" + "\n".join(shown))
            time.sleep(0.05)


def _begins(tale: Tale, wanted: Tale) -> bool:
    return tale.told[: len(wanted.told)] == wanted.told and tale.reasons[: len(wanted.reasons)] == wanted.reasons


def _among(tale: Tale, wanted: Tale) -> bool:
    """The wanted states, each once, are among those of the tale, in their order."""
    rest = iter(dict.fromkeys(tale.told))
    return all(state in rest for state in dict.fromkeys(wanted.told))


def _departs(tale: Tale, wanted: Tale) -> bool:
    """It can never become the wanted one."""
    pairs = [(tale.told, wanted.told), (tale.reasons, wanted.reasons)]
    killed = any(reason.startswith("OOMKilled") for reason in wanted.reasons)
    return not killed and any(one[: len(other)] != other[: len(one)] for one, other in pairs)


def _plain(answer: Any) -> str:
    """A message without what differs from request to request."""
    message = answer.get("message", "") if isinstance(answer, dict) else str(answer)
    return re.sub(f"{_UID}|json parse error: .*|key is not valid: .*", "", message)
