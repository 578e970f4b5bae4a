"""What a server's ConfigMap keeps: which sets have requests, their objects to the byte, and who did what, when and why.

It stands in no label or annotation of what it tells of: KServe would start the pods anew. Everything here is pure.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tritower.deploy.config import DeployConfig
from tritower.deploy.manifests import COMPONENT, SERVER, Set
from tritower.errors import ArtifactError

_STATE, _SETS, _HISTORY = "state.json", "set.", 50
"""Keys of the ConfigMap, and how many lines of history it keeps."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a server.

    Attributes:
        stable: name of the set that has requests; empty = none has been deployed.
        canary: name of the set that has a share of them.
        percent: that share.
        previous: name of the set that had them before.
        sets: name -> the set, of those three.
        history: what was done, the latest last.
        seen: the ConfigMap's resourceVersion; empty = there is none.
    """

    stable: str = ""
    canary: str = ""
    percent: int = 0
    previous: str = ""
    sets: Mapping[str, Set] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    seen: str = ""

    def told(self, **line: Any) -> "Record":
        """With one more line of history; empty values are left out."""
        known = {key: value for key, value in line.items() if value not in ("", None)}
        return replace(self, history=(*self.history, known)[-_HISTORY:])

    def promoted(self, one: Set) -> "Record":
        """With this set as the one that has all requests."""
        before = self.stable if self.stable != one.name else self.previous
        return self._with(one, stable=one.name, canary="", percent=0, previous=before)

    def shared(self, one: Set, percent: int) -> "Record":
        """With this set as the one that has a share of them."""
        return self._with(one, canary=one.name, percent=percent)

    def ended(self) -> "Record":
        """Without a canary."""
        return replace(self, canary="", percent=0)

    def _with(self, one: Set, **changes: Any) -> "Record":
        new = replace(self, **changes)
        known = {**self.sets, one.name: one}
        kept = {name: known[name] for name in (new.stable, new.canary, new.previous) if name in known}
        return replace(new, sets=kept)


def name_of(config: DeployConfig) -> str:
    """The ConfigMap's name."""
    return f"{config.name}-rollout"


def config_map(record: Record, config: DeployConfig) -> dict[str, Any]:
    """The ConfigMap of a record."""
    state = {key: getattr(record, key) for key in ("stable", "canary", "percent", "previous")}
    state |= {"format": 1, "history": list(record.history)}
    data = {_STATE: json.dumps(state, indent=1)}
    for name, one in record.sets.items():
        data[_SETS + name] = json.dumps(vars(one), indent=1)
    meta: dict[str, Any] = {"name": name_of(config), "namespace": config.namespace}
    meta |= {"labels": {**COMPONENT, SERVER: config.name}} | ({"resourceVersion": record.seen} if record.seen else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def of(found: Mapping[str, Any]) -> Record:
    """The record of a ConfigMap.

    Raises:
        ArtifactError: it is none of ours, or was damaged by hand.
    """
    data = found.get("data") or {}
    try:
        state = json.loads(data[_STATE])
        sets = {key.removeprefix(_SETS): _set(json.loads(text)) for key, text in data.items() if key.startswith(_SETS)}
        plain = {key: state[key] for key in ("stable", "canary", "percent", "previous")}
        return Record(**plain, sets=sets, history=tuple(state["history"]), seen=found["metadata"]["resourceVersion"])
    except (KeyError, TypeError, ValueError) as error:
        name = found["metadata"]["name"]
        remedy = f"Delete it (kubectl delete configmap {name}): the next deploy begins anew, and nothing can be rolled back to."
        raise ArtifactError(
            f"the record of the rollouts is damaged: {error!r}", where=f"ConfigMap {name}", remedy=remedy
        ) from None


def _set(facts: dict[str, Any]) -> Set:
    return Set(**{**facts, "objects": tuple(facts["objects"]), "questions": tuple(facts["questions"])})
