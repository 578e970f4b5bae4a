"""Published pipelines: a compiled pipeline under a version's name on a backend, uploaded once and never changed.

What a backend (KFP 2.17) keeps is not the file: it reads both YAML documents, writes them anew and hands them back as one
mapping. So contents are compared as the messages that they are, the SDK's version apart, which changes nothing in a run.
"""

import itertools
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tritower
import yaml
from tritower.errors import ConfigError, LaunchError

from pipelines import experiments, graph
from pipelines.api import Api, Refused, Unanswered

_MOST_DESCRIBED = 2000
"""Characters of a version's description, which goes into the address of the request."""
_MOST_NAMED = 127
_PATIENCE_S = 10.0
_TAG = re.compile(r":(\w[\w.-]*)$")


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a pipeline on a backend; `spec` is its compiled pipeline as the API gives it."""

    pipeline: str
    name: str
    pipeline_id: str
    version_id: str
    spec: Mapping[str, Any]
    is_new: bool = False

    @property
    def reference(self) -> dict[str, str]:
        """How a run or a schedule names it."""
        return {"pipeline_id": self.pipeline_id, "pipeline_version_id": self.version_id}


def publish(api: Api, file: Path, *, pipeline: str, name: str = "") -> Version:
    """Make a compiled pipeline a version on a backend, unless the same content is there under that name.

    Several may do so at a time: the backend takes one, the others find it.

    Args:
        file: the compiled YAML.
        pipeline: name of the pipeline there; made if there is none, with the YAML's description.
        name: of the version; empty for the tag of the images that the YAML names.

    Raises:
        ConfigError: the name is no name for a version.
        LaunchError: another content is there under that name, or the backend refuses.
    """
    name = name or tag(file)
    if not re.fullmatch(rf"[\w][\w.+-]{{0,{_MOST_NAMED - 1}}}", name):
        remedy = f"Give up to {_MOST_NAMED} letters, digits, '.', '_', '-' and '+'."
        raise ConfigError(f"{name!r} is no name for a version", where="--version", remedy=remedy)
    documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    about = str(documents[0].get("pipelineInfo", {}).get("description") or "")
    pipeline_id = _pipeline_id(api, pipeline, api.namespace) or _made(api, pipeline, about)
    found, is_new = _found(api, pipeline_id, name), False
    if found is None:
        query = {"pipelineid": pipeline_id, "name": name, "description": experiments.cut(about, _MOST_DESCRIBED)}
        is_new = _created(lambda: api.upload("pipelines", "upload_version", file=file, **query))
        found = _awaited(api, pipeline_id, name)
    kept = found.get("pipeline_spec") or {}
    if differs := difference(kept, together(documents)):
        raise LaunchError(
            f"the version {name} of the pipeline {pipeline} has another content there; it differs in {differs}",
            where=api.where,
            remedy="A version never changes. Publish yours under another name (--version, or TRITOWER_IMAGE_TAG and `make"
            f" compile`), or run the one that is there with --version {name}.",
        )
    return _version(pipeline, found, is_new=is_new)


def find(api: Api, *, pipeline: str, name: str) -> Version:
    """The version of that name, of the namespace's own pipeline, else of the one that all share.

    Raises:
        LaunchError: there is none; says which there are.
    """
    there: list[str] = []
    for namespace in dict.fromkeys((api.namespace, "")):
        pipeline_id = _pipeline_id(api, pipeline, namespace)
        if not pipeline_id:
            continue
        if found := _found(api, pipeline_id, name):
            return _version(pipeline, found)
        newest = api.listed("pipelines", pipeline_id, "versions", key="pipeline_versions", sort_by="created_at desc")
        there += [str(one.get("name")) for one in itertools.islice(newest, 5)]
    problem = f"there is no version {name} of the pipeline {pipeline}"
    told = f"There are {', '.join(there)}. " if there else ""
    raise LaunchError(problem, where=api.where, remedy=f"{told}`python -m pipelines publish` makes one.")


def specification(api: Api, reference: Mapping[str, str]) -> dict[str, Any]:
    """The compiled pipeline behind a reference; empty where the version was deleted."""
    pipeline_id, version_id = reference.get("pipeline_id", ""), reference.get("pipeline_version_id", "")
    if not (pipeline_id and version_id):
        return {}
    try:
        return dict(api.get("pipelines", pipeline_id, "versions", version_id).get("pipeline_spec") or {})
    except Refused:
        return {}


def tag(file: Path) -> str:
    """The tag of the images that a compiled pipeline names; tritower's version where they have none, or several."""
    executors = graph.document(file)["deploymentSpec"]["executors"]
    images = [executor["container"]["image"] for executor in executors.values() if "container" in executor]
    tags = {found[1] for image in images if (found := _TAG.search(image.partition("@")[0]))}
    return tags.pop() if len(tags) == 1 else tritower.__version__


def together(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """A compiled pipeline's YAML documents as the API has them: the first alone, or both by name."""
    return documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Where two compiled pipelines, as the API has them, differ: the first such place; empty where they say the same.

    Both are read as protocol messages: the order of keys, numbers' spelling and fields at their default make no difference.
    """
    return _apart(_message(one), _message(other))


def _message(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A compiled pipeline in the one way to spell its two messages as JSON; as it is where it is none."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    kinds = {"pipeline_spec": pipeline_spec_pb2.PipelineSpec, "platform_spec": pipeline_spec_pb2.PlatformSpec}
    parts = spec if "pipeline_spec" in spec else {"pipeline_spec": spec}
    found = {}
    for name, part in parts.items():
        try:
            found[name] = json_format.MessageToDict(json_format.ParseDict(part, kinds[name]()))
        except (json_format.ParseError, KeyError):
            found[name] = part
        found[name].pop("sdkVersion", None)
    return {name: part for name, part in found.items() if part}


def _apart(one: Any, other: Any, path: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        places = (_apart(one.get(key), other.get(key), f"{path}.{key}") for key in sorted(one.keys() | other.keys()))
        return next((place for place in places if place), "")
    return "" if one == other else path.lstrip(".")


def _pipeline_id(api: Api, pipeline: str, namespace: str) -> str:
    """Empty where there is none of that name."""
    try:
        return str(api.get("pipelines", "names", pipeline, namespace=namespace)["pipeline_id"])
    except Refused as error:
        if error.status == 404:
            return ""
        raise


def _made(api: Api, pipeline: str, about: str) -> str:
    body = {"name": pipeline, "display_name": pipeline, "description": about, "namespace": api.namespace}
    _created(lambda: api.post("pipelines", body={key: value for key, value in body.items() if value}))
    end = time.monotonic() + _PATIENCE_S
    while not (found := _pipeline_id(api, pipeline, api.namespace)) and time.monotonic() < end:
        time.sleep(0.1)  # somebody else's is shown once it is ready
    if not found:
        remedy = "Publish again; if it stays so, somebody deletes it."
        raise LaunchError(f"the pipeline {pipeline} was made and is not there", where=api.where, remedy=remedy)
    return found


def _created(create: Callable[[], Any]) -> bool:
    """Whether the backend made it now; False where it was there already.

    A backend that two ask at once may answer one of them with an error of its database. So it is asked up to three times.
    """
    for pause_s in (0.2, 1.0, 0.0):
        try:
            create()
            return True
        except Refused as error:
            if error.status != 409:
                raise
            return False
        except Unanswered:
            if not pause_s:
                raise
            time.sleep(pause_s)
    return False


def _found(api: Api, pipeline_id: str, name: str) -> dict[str, Any] | None:
    versions = api.listed("pipelines", pipeline_id, "versions", key="pipeline_versions", equal={"name": name})
    return next((one for one in versions if one.get("name") == name), None)


def _awaited(api: Api, pipeline_id: str, name: str) -> dict[str, Any]:
    """The version that was made, by us or by somebody else: the backend lists it once it is ready."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        if found := _found(api, pipeline_id, name):
            return found
        time.sleep(0.1)
    remedy = "Publish again; if it stays so, somebody deletes the version, or another pipeline has its name."
    raise LaunchError(f"the version {name} was made and is not listed", where=api.where, remedy=remedy)


def _version(pipeline: str, found: Mapping[str, Any], *, is_new: bool = False) -> Version:
    ids = {"pipeline_id": str(found["pipeline_id"]), "version_id": str(found["pipeline_version_id"])}
    return Version(pipeline=pipeline, name=str(found["name"]), **ids, spec=found.get("pipeline_spec") or {}, is_new=is_new)
