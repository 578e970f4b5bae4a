"""What a container finds when it starts: its environment, its command, its volumes; and what is missing for it."""

import base64
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritower import processes

from pipelines import kernels
from tests.support.apiserver import kinds

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
_ADDRESSES = ("MASTER_ADDR", "PET_MASTER_ADDR")
_PORTS = ("MASTER_PORT", "PET_MASTER_PORT")


class Missing(Exception):
    """A Secret, a ConfigMap or a key of one is not there."""


class Network:
    """The names and ports of Services on a machine where every pod has the loopback."""

    def __init__(self) -> None:
        self._ports: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()  # pods of one job start at the same time, and must be told the same port

    def port(self, service: str, port: str) -> int:
        """A free port of this machine that stands for a port of a Service (by its uid)."""
        with self._lock:
            if (service, port) not in self._ports:
                self._ports[service, port] = processes.free_port()
            return self._ports[service, port]


def started(cluster: "Cluster", pod: Object, container: Object, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a container; its volumes are made under `folder`.

    A folder cannot be mounted elsewhere without rights: where a volume's path stands in the command or a value, its place under
    `folder` is put in.

    Raises:
        Missing: with the kubelet's words.
    """
    newest = cluster.store.get(kinds.POD, pod["metadata"]["namespace"], pod["metadata"]["name"])
    values = _values(cluster, newest or pod, container)
    values |= _reachable(cluster, pod, values)
    base = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(folder),
        "HOSTNAME": pod["metadata"]["name"],
        "LANG": "C.UTF-8",
        # All pods are on this machine, which may have no other address.
        "PET_LOCAL_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    } | {name: os.environ[name] for name in kernels.NUMBA if name in os.environ}  # the images name them
    places = _volumes(cluster, pod, container, folder) | termination_message(container, folder)
    words = [*container.get("command", []), *container.get("args", [])]
    if container["image"] in cluster.programs:
        words = [*cluster.programs[container["image"]], *words[3:]]
    whole = base | cluster.environment | values
    # Every pod has an address of its own on the loopback: what listens everywhere listens there.
    address = (newest or pod).get("status", {}).get("podIP", "0.0.0.0")
    words = [address if word == "0.0.0.0" else word for word in words]
    whole = {key: address if value == "0.0.0.0" else value for key, value in whole.items()}
    words = [re.sub(r"\$\((\w+)\)", lambda found: whole.get(found[1], found[0]), word) for word in words]
    return [_placed(word, places) for word in words], {key: _placed(value, places) for key, value in whole.items()}


def termination_message(container: Object, folder: Path) -> dict[str, str]:
    """The file for a container's termination message, and where it is on this machine."""
    path = container.get("terminationMessagePath", "/dev/termination-log")
    return {path: str(folder / f"{container['name']}-termination-message")}


def _values(cluster: "Cluster", pod: Object, container: Object) -> dict[str, str]:
    home = pod["metadata"]["namespace"]
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        kind, ref = (kinds.SECRET, source["secretRef"]) if "secretRef" in source else (kinds.CONFIG_MAP, source["configMapRef"])
        found = _keys(cluster, kind, home, ref)
        values |= {source.get("prefix", "") + key: value for key, value in found.items()}
    for one in container.get("env", []):
        source = one.get("valueFrom") or {}
        if "fieldRef" in source:
            values[one["name"]] = _field(pod, source["fieldRef"]["fieldPath"])
        elif "secretKeyRef" in source or "configMapKeyRef" in source:
            word = "secretKeyRef" if "secretKeyRef" in source else "configMapKeyRef"
            kind, ref = kinds.SECRET if word == "secretKeyRef" else kinds.CONFIG_MAP, source[word]
            found = _keys(cluster, kind, home, ref)
            if ref["key"] in found:
                values[one["name"]] = found[ref["key"]]
            elif not ref.get("optional"):
                raise Missing(f"couldn't find key {ref['key']} in {kind.kind} {home}/{ref['name']}")
        else:
            text = one.get("value", "")
            values[one["name"]] = re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], found[0]), text)
    return values


def _keys(cluster: "Cluster", kind: kinds.Kind, home: str, ref: Object) -> dict[str, str]:
    item = cluster.store.get(kind, home, ref["name"])
    if item is None:
        if ref.get("optional"):
            return {}
        raise Missing(f'{kind.kind.lower()} "{ref["name"]}" not found')
    data = item.get("data") or {}
    return {key: base64.b64decode(value).decode() if kind is kinds.SECRET else value for key, value in data.items()}


def _field(pod: Object, path: str) -> str:
    if found := re.match(r"metadata\.(labels|annotations)\['(.*)'\]", path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)


def _reachable(cluster: "Cluster", pod: Object, values: dict[str, str]) -> dict[str, str]:
    """Values by which this process reaches a Service that its environment names."""
    home = pod["metadata"]["namespace"]
    found = next(
        (cluster.store.get(kinds.SERVICE, home, values[key].partition(".")[0]) for key in _ADDRESSES if values.get(key)), None
    )
    if found is None:
        named = next((values[key] for key in _ADDRESSES if "." in values.get(key, "")), "")
        found = cluster.store.get(kinds.SERVICE, home, named.partition(".")[2].partition(".")[0]) if named else None
    if found is None:
        return {}
    uid = found["metadata"]["uid"]
    return {key: "127.0.0.1" for key in _ADDRESSES if key in values} | {
        key: str(cluster.network.port(uid, values[key])) for key in _PORTS if key in values
    }


def _volumes(cluster: "Cluster", pod: Object, container: Object, folder: Path) -> dict[str, str]:
    """Mount paths and where they are on this machine."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    places = {}
    for mount in container.get("volumeMounts", []):
        volume, place = volumes[mount["name"]], folder / "volumes" / mount["name"]
        path = mount["mountPath"]
        if "emptyDir" in volume and path != "/dev/shm":
            place.mkdir(parents=True, exist_ok=True)
        elif "secret" in volume or "configMap" in volume:
            kind, ref = (kinds.SECRET, volume["secret"]) if "secret" in volume else (kinds.CONFIG_MAP, volume["configMap"])
            data = _keys(cluster, kind, pod["metadata"]["namespace"], {"name": ref.get("secretName") or ref.get("name")} | ref)
            place.mkdir(parents=True, exist_ok=True)
            for key, value in data.items():
                (place / key).write_text(value, encoding="utf-8")
        else:
            continue
        places[path.rstrip("/")] = str(place)
    return places


def _placed(text: str, places: dict[str, str]) -> str:
    for path, place in sorted(places.items(), key=lambda one: -len(one[0])):
        text = re.sub(rf"(?<![\w./-]){re.escape(path)}(?=$|[^\w.-])", place, text)
    return text
