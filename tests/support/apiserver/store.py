"""Objects and their history: versions, uids, what a watch is told, and what deleting does before the collector comes."""

import copy
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.apiserver import answers, kinds
from tests.support.apiserver.kinds import Kind

Object = dict[str, Any]
Key = tuple[str, str]
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


@dataclass
class Clock:
    """What the servers and nodes of this process take for the time."""

    ahead_s: float = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s


CLOCK = Clock()


def now() -> str:
    """The time as objects have it, in whole seconds of UTC."""
    return datetime.fromtimestamp(CLOCK.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Change:
    """One line of the history. Args: verb: ADDED, MODIFIED or DELETED. before: the object's last state, None with ADDED."""

    version: int
    kind: Kind
    verb: str
    item: Object
    before: Object | None


class Store:
    """All objects of all kinds under one lock; `changed` is notified of each change.

    What is written is copied. What is handed out is a state that stays as it is: not to be changed by whoever reads it.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 1000
        self.compacted = 0
        """Watches and lists from before this version are told 410."""
        self.history: list[Change] = []
        self.events: dict[tuple[str, str, str], str] = {}
        """Names of events by the uid of what they are about, reason and message."""
        self._kept: dict[Kind, dict[Key, Object]] = {}

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        with self.changed:
            return self._kept.get(kind, {}).get((namespace if kind.namespaced else "", name))

    def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Those of a namespace, or all, sorted as etcd does."""
        with self.changed:
            found = sorted(self._kept.get(kind, {}).items())
            return [item for (home, _), item in found if not namespace or home == namespace]

    def create(self, kind: Kind, namespace: str, item: Object, *, dry_run: bool = False) -> Object:
        """The object as made: uid, resourceVersion, creationTimestamp, generation. Raises: Refused: 409."""
        item = copy.deepcopy(item)
        meta = item.setdefault("metadata", {})
        if not meta.get("name"):
            meta["name"] = f"{meta.get('generateName', '')}{uuid.uuid4().hex[:5]}"
        key = (namespace if kind.namespaced else "", meta["name"])
        with self.changed:
            there = self._kept.get(kind, {}).get(key)
            if there:
                raise answers.already_exists(kind.resource, key[1], ending="deletionTimestamp" in there["metadata"])
            item["apiVersion"], item["kind"] = kind.api_version, kind.kind
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            meta |= {"namespace": namespace} if kind.namespaced else {}
            if not dry_run:
                self._write(kind, key, item, "ADDED", None)
            return item

    def update(self, kind: Kind, item: Object, *, dry_run: bool = False) -> Object:
        """The object written anew if it differs. The generation grows with the spec. Raises: Refused: 404, 409."""
        item = copy.deepcopy(item)
        meta = item["metadata"]
        key = (meta.get("namespace", "") if kind.namespaced else "", meta["name"])
        with self.changed:
            old = self._kept.get(kind, {}).get(key)
            if old is None:
                raise answers.not_found(kind.resource, key[1])
            if meta.get("resourceVersion", old["metadata"]["resourceVersion"]) != old["metadata"]["resourceVersion"]:
                why = "the object has been modified; please apply your changes to the latest version and try again"
                raise answers.conflict(kind.resource, key[1], why)
            for field in ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp"):
                if field in old["metadata"]:
                    meta[field] = old["metadata"][field]
            if item.get("spec") != old.get("spec"):
                meta["generation"] = old["metadata"].get("generation", 1) + 1
            if item == old or dry_run:
                return item
            self._write(kind, key, item, "MODIFIED", old)
            if "deletionTimestamp" in meta and not meta.get("finalizers") and kind is not kinds.POD:
                self._drop(kind, key)
            return item

    def edit(self, kind: Kind, item: Object, change: Callable[[Object], None]) -> Object | None:
        """`change` applied to the newest state of the object with this uid; None where it is gone."""
        with self.changed:
            newest = copy.deepcopy(self.get(kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]))
            if newest is None or newest["metadata"]["uid"] != item["metadata"]["uid"]:
                return None
            change(newest)
            return self.update(kind, newest)

    def delete(self, kind: Kind, namespace: str, name: str, options: Object, *, grace_s: int | None = None) -> Object:
        """Ask an object to end, and hand back what is answered.

        A pod with `grace_s` gets its deletionTimestamp and ends when its kubelet says so. Others end at once, or by the
        collector with propagationPolicy Foreground or Orphan, or when their finalizers are gone.

        Raises: Refused: 404; 409 for a precondition that does not hold.
        """
        with self.changed:
            item = copy.deepcopy(self.get(kind, namespace, name))
            if item is None:
                raise answers.not_found(kind.resource, name)
            meta = item["metadata"]
            wanted = (options.get("preconditions") or {}).get("uid", meta["uid"])
            if wanted != meta["uid"]:
                why = f"the UID in the precondition ({wanted}) does not match the UID in record ({meta['uid']})"
                why += ". The object might have been deleted and then recreated"
                raise answers.conflict(f"{kind.kind}.{kind.group}" if kind.group else kind.kind, name, why)
            policy = options.get("propagationPolicy", "Background")
            extra = {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(policy, []) if kind is not kinds.POD else []
            finalizers = meta.get("finalizers", []) + [one for one in extra if one not in meta.get("finalizers", [])]
            if finalizers:
                meta["finalizers"] = finalizers
            if kind is kinds.POD or finalizers:
                self._mark(kind, item, grace_s or 0)
            if (kind is kinds.POD and not grace_s) or (kind is not kinds.POD and not finalizers):
                self._drop(kind, (meta.get("namespace", ""), name))
            whole = kind is kinds.POD or bool(finalizers)
            return self.get(kind, namespace, name) or item if whole else self._success(kind, meta)

    def remove(self, kind: Kind, item: Object) -> None:
        """The object with this uid is gone, at once."""
        with self.changed:
            key = (item["metadata"].get("namespace", ""), item["metadata"]["name"])
            there = self._kept.get(kind, {}).get(key)
            if there and there["metadata"]["uid"] == item["metadata"]["uid"]:
                self._drop(kind, key)

    def since(self, kind: Kind, version: int) -> list[Change]:
        """The changes of a kind after a version. Raises: Refused: 410."""
        with self.changed:
            if version < self.compacted:
                raise answers.expired(f"too old resource version: {version} ({self.compacted})")
            later = []
            for change in reversed(self.history):
                if change.version <= version:
                    break
                if change.kind is kind:
                    later.append(change)
            return later[::-1]

    def compact(self) -> None:
        """Forget the history until now."""
        with self.changed:
            self.compacted = self.version
            self.version += 1
            self.changed.notify_all()

    def wait(self, version: int, timeout_s: float) -> bool:
        """Until something is newer than `version`; False when nothing was for `timeout_s`."""
        with self.changed:
            return self.changed.wait_for(lambda: self.version > version, timeout_s)

    def _mark(self, kind: Kind, item: Object, grace_s: int) -> None:
        meta = item["metadata"]
        old = self.get(kind, meta.get("namespace", ""), meta["name"])
        meta["deletionTimestamp"] = meta.get("deletionTimestamp", now())
        meta["deletionGracePeriodSeconds"] = grace_s
        if item != old:
            self._write(kind, (meta.get("namespace", ""), meta["name"]), item, "MODIFIED", old)

    def _write(self, kind: Kind, key: Key, item: Object, verb: str, before: Object | None) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self._kept.setdefault(kind, {})[key] = item
        self.history.append(Change(self.version, kind, verb, item, before))
        self.changed.notify_all()

    def _drop(self, kind: Kind, key: Key) -> None:
        item = copy.deepcopy(self._kept[kind].pop(key))
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.history.append(Change(self.version, kind, "DELETED", item, item))
        self.changed.notify_all()

    @staticmethod
    def _success(kind: Kind, meta: Object) -> Object:
        details = answers.about(kind.resource, meta["name"]) | {"uid": meta["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def record(store: Store, item: Object, reason: str, message: str, *, type_: str = "Normal", source: str) -> None:
    """An event about an object; the same again counts up."""
    meta = item["metadata"]
    home = meta.get("namespace", "default")
    about = {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "name": meta["name"],
        "namespace": home,
        "uid": meta["uid"],
    }
    with store.changed:
        name = store.events.get((meta["uid"], reason, message), "")
        if event := store.get(kinds.EVENT, home, name):
            store.update(kinds.EVENT, event | {"count": event["count"] + 1, "lastTimestamp": now()})
            return
        event = {"metadata": {"name": f"{meta['name']}.{time.time_ns():x}"}, "involvedObject": about, "type": type_}
        event |= {"reason": reason, "message": message, "count": 1, "firstTimestamp": now(), "lastTimestamp": now()}
        event |= {"source": {"component": source}, "reportingComponent": source}
        made = store.create(kinds.EVENT, home, event)
        store.events[meta["uid"], reason, message] = made["metadata"]["name"]
