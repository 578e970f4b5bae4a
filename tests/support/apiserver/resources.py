"""What a request does to the objects: create, read, list, update, patch, delete, and the subresources that are served."""

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import admission, answers, katib_rules, kinds, patches, rights, schema, selectors
from tests.support.apiserver.kinds import Kind

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
REVIEWS = "selfsubjectaccessreviews"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that has found its resource."""

    method: str
    kind: Kind
    namespace: str
    name: str
    part: str
    """The subresource, empty for the object itself."""
    query: dict[str, str]
    account: rights.Account
    body: bytes
    content_type: str

    @property
    def verb(self) -> str:
        if self.method == "GET":
            return "watch" if self.query.get("watch") in ("true", "1") else "get" if self.name else "list"
        if self.method == "DELETE":
            return "delete" if self.name else "deletecollection"
        return {"POST": "create", "PUT": "update", "PATCH": "patch"}[self.method]

    @property
    def is_dry(self) -> bool:
        return self.query.get("dryRun") == "All"

    def allowed(self) -> "Request":
        """Itself. Raises: Refused: 403."""
        resource = self.kind.plural + (f"/{self.part}" if self.part else "")
        where = self.name if self.kind is kinds.NAMESPACE else self.namespace  # a Role may give rights to its own Namespace
        rights.require(self.account, self.verb, self.kind.group, resource, where, self.name)
        return self

    def item(self, kind: Kind | None = None) -> Object:
        """The body as an object. Raises: Refused: 400."""
        try:
            item = json.loads(self.body or b"{}")
        except ValueError as error:
            wanted = (kind or self.kind).kind
            why = f"couldn't get version/kind; json parse error: {error}"
            message = f"the object provided is unrecognized (must be of type {wanted}): {why}"
            raise answers.bad_request(message) from None
        if not isinstance(item, dict):
            raise answers.bad_request("the object provided is no object")
        return item


def serve(cluster: "Cluster", request: Request) -> tuple[int, Object, list[str]]:
    """The answer to a request that is no stream: code, body, warnings. Raises: Refused."""
    if request.part == "eviction":
        return _evict(cluster, request)
    if request.verb == "list":
        return 200, _list(cluster, request), []
    if request.verb == "get":
        return 200, _there(cluster, request), []
    if request.verb == "create":
        return _create(cluster, request)
    if request.verb in ("update", "patch"):
        return _change(cluster, request)
    options = request.item() if request.body else {}
    for option in ("propagationPolicy", "gracePeriodSeconds"):
        if option in request.query:
            options[option] = request.query[option] if option == "propagationPolicy" else int(request.query[option])
    if request.verb == "delete":
        return 200, delete(cluster, request.kind, request.namespace, request.name, options), []
    fits = selectors.matcher(request.kind, request.query)
    for item in cluster.store.all(request.kind, request.namespace):
        if fits(item):
            delete(cluster, request.kind, item["metadata"].get("namespace", ""), item["metadata"]["name"], options)
    return 200, _list(cluster, request), []


def delete(cluster: "Cluster", kind: Kind, namespace: str, name: str, options: Object) -> Object:
    """Delete an object as the API does: a pod that a node holds gets the time to end that it or `options` ask for."""
    grace_s = None
    if kind is kinds.POD:
        pod = cluster.store.get(kind, namespace, name)
        ended = pod is not None and pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if pod and pod["spec"].get("nodeName") and not ended:
            grace_s = options.get("gracePeriodSeconds", pod["spec"].get("terminationGracePeriodSeconds", 30))
    return cluster.store.delete(kind, namespace, name, options, grace_s=grace_s)


def _there(cluster: "Cluster", request: Request) -> Object:
    found = cluster.store.get(request.kind, request.namespace, request.name)
    if found is None:
        raise answers.not_found(request.kind.resource, request.name)
    return found


def _list(cluster: "Cluster", request: Request) -> Object:
    fits = selectors.matcher(request.kind, request.query)
    with cluster.store.changed:
        version = cluster.store.version
        items = [one for one in cluster.store.all(request.kind, request.namespace) if fits(one)]
    start, limit = _start(request), int(request.query.get("limit") or 0) or len(items)
    if request.query.get("resourceVersionMatch") == "Exact" and int(request.query.get("resourceVersion") or 0) < version:
        raise answers.expired("The resourceVersion for the provided list is too old.")
    meta: Object = {"resourceVersion": str(version)}
    if start + limit < len(items):
        meta |= {"continue": str(start + limit), "remainingItemCount": len(items) - start - limit}
    head = {"apiVersion": request.kind.api_version, "kind": f"{request.kind.kind}List", "metadata": meta}
    return head | {"items": items[start : start + limit]}


def _start(request: Request) -> int:
    """Where a page begins. Raises: Refused: 400 for a token that is none, 410 for one that is another server's."""
    token = request.query.get("continue", "0")
    if token.isdigit():
        return int(token)
    try:
        json.loads(base64.b64decode(token + "==", validate=False))
    except ValueError as error:
        raise answers.bad_request(f"invalid continue token: continue key is not valid: {error}") from None
    raise answers.expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
        "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing "
        "with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the "
        "time the first chunk was returned and now may show up in the list."
    )


def _create(cluster: "Cluster", request: Request) -> tuple[int, Object, list[str]]:
    item = request.item()
    meta = item.setdefault("metadata", {})
    if meta.get("namespace", request.namespace) != request.namespace:
        raise answers.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if request.content_type == patches.APPLY:
        meta.setdefault("name", request.name)
        item = patches.applied(item, item, request.query.get("fieldManager", ""), force=True)
    if request.kind.namespaced and cluster.store.get(kinds.NAMESPACE, "", request.namespace) is None:
        raise answers.not_found("namespaces", request.namespace)
    item, warnings = _decoded(request, item)
    if request.kind is kinds.SECRET:
        item = admission.with_data(item)
    schema.check(request.kind, item)
    admission.check(cluster, request.kind, request.namespace, item)
    item.pop("status", None)
    made = cluster.store.create(
        request.kind,
        request.namespace,
        admission.with_defaults(cluster, request.kind, request.namespace, item),
        dry_run=request.is_dry,
    )
    return 201, made, warnings


def _change(cluster: "Cluster", request: Request) -> tuple[int, Object, list[str]]:
    if request.method == "PATCH":
        patches.check_type(request.content_type, is_custom=request.kind in kinds.CUSTOM)
    with cluster.store.changed:
        old = cluster.store.get(request.kind, request.namespace, request.name)
        if old is None and request.content_type == patches.APPLY and not request.part:
            rights.require(request.account, "create", request.kind.group, request.kind.plural, request.namespace, request.name)
            return _create(cluster, request)
        old = _there(cluster, request)
        if request.method == "PATCH":
            body = json.loads(request.body)
            manager = request.query.get("fieldManager", "")
            if request.content_type == patches.APPLY:
                new = patches.applied(old, body, manager, force=request.query.get("force") == "true")
            else:
                new = patches.patched(old, body, request.content_type)
                new = patches.noted(old, new, manager) if manager else new
            if (
                isinstance(body, dict)
                and (body.get("metadata") or {}).get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]
            ):
                cause = ("metadata.uid", "FieldValueInvalid", f'Invalid value: "{body["metadata"]["uid"]}": field is immutable')
                raise answers.invalid(request.kind.kind, request.kind.group, request.name, [cause])
        else:
            new = request.item()
        if request.part == "status":
            new = old | {"status": new.get("status", {}), "metadata": old["metadata"] | _version(new)}
        elif request.kind in kinds.CUSTOM and "status" in old:
            new = new | {"status": old["status"]}
        new, warnings = _decoded(request, new)
        schema.check(request.kind, new)
        if not request.part:
            admission.check(cluster, request.kind, request.namespace, new, old)
            if request.kind is kinds.INFERENCE:
                new = admission.with_defaults(cluster, request.kind, request.namespace, new)
        return 200, cluster.store.update(request.kind, new, dry_run=request.is_dry), warnings


def _version(item: Object) -> Object:
    version = item.get("metadata", {}).get("resourceVersion")
    return {"resourceVersion": version} if version else {}


def _decoded(request: Request, item: Object) -> tuple[Object, list[str]]:
    """The object as it is kept, and warnings: unknown fields are dropped, or refused with fieldValidation=Strict."""
    if request.kind is kinds.EXPERIMENT:
        katib_rules.check_text(item)
    unknown, pruned = schema.unknown_fields(request.kind, item)
    mode = request.query.get("fieldValidation", "Warn")
    if unknown and mode == "Strict":
        found = ", ".join(f'unknown field "{path}"' for path in unknown)
        kind = request.kind
        message = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: strict decoding error: {found}'
        raise answers.bad_request(message)
    # Katib's CRD has no schema: what Katib does not know is kept, not dropped.
    kept = item if request.kind.schema == schema.KATIB else pruned
    return kept, [] if mode == "Ignore" else [f'unknown field "{path}"' for path in unknown]


def _evict(cluster: "Cluster", request: Request) -> tuple[int, Object, list[str]]:
    pod = _there(cluster, request)
    options = request.item().get("deleteOptions") or {}

    def mark(item: Object) -> None:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        item.setdefault("status", {}).setdefault("conditions", []).append(condition | {"message": "Eviction API: evicting"})

    cluster.store.edit(kinds.POD, pod, mark)
    delete(cluster, kinds.POD, request.namespace, request.name, options)
    return 201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, []
