"""The API server: plain objects in and out, errors of ours, requests made again while it is gone or busy.

The official client finds the server and the credentials, and renews tokens. Its models are left aside, because they drop fields
that they do not know, and its calls, because they differ between the releases that are supported (30.1 to 37).
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tritower.errors import LaunchError

logger = logging.getLogger(__name__)
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = (5, 30)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
GONE = {"propagationPolicy": "Background"}
"""How an object is deleted: at once, and then what it owns."""
JSON, APPLY, MERGE = "application/json", "application/apply-patch+yaml", "application/merge-patch+json"
"""How a body is meant: an object, a server-side apply (JSON is YAML), a part to be merged."""
_BUSY = (410, 429, 502, 503, 504)
"""Codes that pass. 410: a list was so slow that its pages no longer go together; it begins anew."""


class Refused(LaunchError):
    """The API server's answer was an error.

    Args:
        status: of HTTP.
        answer: the Status object; empty where the answer is plain text.
        retry_after_s: seconds for which the server does not want to be asked again.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str = "",
        remedy: str = "",
        status: int = 0,
        answer: Mapping[str, Any] | None = None,
        retry_after_s: float = 0.0,
    ):
        super().__init__(problem, where=where, remedy=remedy)
        self.status, self.answer, self.retry_after_s = status, dict(answer or {}), retry_after_s

    @property
    def unknown(self) -> bool:
        """Whether the server does not know the kind of resource; a missing object is something else."""
        return self.status == 404 and not (self.answer.get("details") or {}).get("name")


class Api:
    """A connection for one thread.

    Args:
        patience_s: seconds for which the server may be gone or busy.
    """

    def __init__(self, patience_s: float = 300.0) -> None:
        self.patience_s = patience_s
        self._settings = _settings()
        self._pool = _pool(self._settings)
        self._known = False
        """Whether the server has taken this process's token before: it is then renewed within a minute of its end."""

    @property
    def host(self) -> str:
        """The server's address."""
        return str(self._settings.host).rstrip("/")

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """A GET; see `call`."""
        return self.call("GET", path, query=query)

    def delete(self, path: str, *, uid: str = "", patience_s: float | None = None) -> None:
        """A DELETE; what belongs to the object goes after it. With `uid` another one of its name is refused (409)."""
        condition = {"preconditions": {"uid": uid}} if uid else {}
        self.call("DELETE", path, body=GONE | condition, patience_s=patience_s)

    def apply(self, path: str, body: Mapping[str, Any], *, manager: str, force: bool = False) -> dict[str, Any]:
        """Server-side apply; the object as it then is. What somebody else set otherwise is refused (409) without `force`."""
        query = {"fieldManager": manager, "force": force, "fieldValidation": "Strict"}
        return self.call("PATCH", path, query=query, body=body, content_type=APPLY)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = JSON,
        patience_s: float | None = None,
    ) -> dict[str, Any]:
        """A request and its answer; made again while the server is gone, busy, or waits for a webhook, as late as it asks for.

        Raises:
            Refused: the answer is an error.
            LaunchError: there is no answer in `patience_s`.
        """
        limit = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        wait_s, told = _FIRST_WAIT_S, False
        while True:
            try:
                answer = _json(self.raw(method, path, query=query, body=body, content_type=content_type), f"{method} {path}")
                self._known = True
                return answer
            except LaunchError as error:
                pause_s = max(wait_s, error.retry_after_s) if isinstance(error, Refused) else wait_s
                if not _passes(error, method, known=self._known) or time.monotonic() + pause_s > limit:
                    raise
                if not told:
                    logger.warning("%s; asking again", error)
                told = True
            time.sleep(pause_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = JSON,
        more: Mapping[str, str] | None = None,
        timeout_s: tuple[float, float] = _TIMEOUT_S,
    ) -> Any:
        """One request; urllib3's response, whose body is read from it.

        Args:
            method: of HTTP.
            path: such as `/api/v1/namespaces/x/pods`.
            query: parameters; None and False are left out.
            body: goes as JSON.
            content_type: how it is meant.
            more: further headers.
            timeout_s: to connect, and between two bytes.
        """
        import urllib3

        # Asked for at each request: a pod's token is renewed within the hour.
        bearer = self._settings.auth_settings().get("BearerToken")
        headers = {"Accept": "application/json, */*", **(more or {})} | ({"Authorization": bearer["value"]} if bearer else {})
        if body is not None:
            headers["Content-Type"] = content_type
        given = {key: _text(value) for key, value in (query or {}).items() if value not in (None, False)}
        where, url = f"{method} {path}", self._settings.host.rstrip("/") + path + (f"?{urlencode(given)}" if given else "")
        try:
            answer = self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=timeout_s[0], read=timeout_s[1]),
                retries=False,
                preload_content=False,
            )
            if 200 <= answer.status < 300:
                return answer
            text = answer.data.decode(errors="replace")
        except urllib3.exceptions.HTTPError as error:
            problem, remedy = f"the API server does not answer: {_short(error)}", "Is it there, and may this pod reach it?"
            raise LaunchError(problem, where=where, remedy=remedy) from error
        raise _refused(int(answer.status), text, where, str(answer.headers.get("Retry-After", "")))


def custom(group: str, version: str, namespace: str, plural: str, name: str = "") -> str:
    """The path of custom resources, or of one of them."""
    return f"/apis/{group}/{version}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def core(namespace: str, plural: str, name: str = "") -> str:
    """The path of the core API's resources, or of one of them."""
    return f"/api/v1/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def own_namespace() -> str:
    """The namespace that this process runs in, or that the kubeconfig names; empty = unknown."""
    with contextlib.suppress(OSError):
        return (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    from kubernetes import config

    with contextlib.suppress(config.ConfigException):
        _, context = config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
        return str(context["context"].get("namespace", ""))
    return ""


def _pool(settings: Any) -> Any:
    from kubernetes.client import rest

    return rest.RESTClientObject(settings).pool_manager


def _settings() -> Any:
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and (_ACCOUNT / "token").exists():
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=settings)  # its default is read once
    except config.ConfigException as error:
        raise LaunchError(
            "there is no cluster to run jobs on",
            where=str(error),
            remedy="Run in a pod with a service account, or set KUBECONFIG.",
        ) from error
    return settings


def _passes(error: LaunchError, method: str, *, known: bool) -> bool:
    if not isinstance(error, Refused):
        return True
    if error.status == 500:  # a read may be made again whatever the reason
        return method == "GET" or "failed calling webhook" in error.problem or "etcdserver" in error.problem
    if error.status == 409:
        return "object is being deleted" in error.problem
    return error.status in _BUSY or (error.status == 401 and known)


def _refused(status: int, body: str, where: str, retry_after: str) -> Refused:
    try:
        answer = json.loads(body)
        message = str(answer["message"])
    except (ValueError, KeyError, TypeError):
        answer, message = {}, body.strip() or f"HTTP {status}"
    remedy = ""
    if status == 401:
        remedy = "The token has expired or is of another cluster."
    elif status == 403 and " cannot " in message and " resource " in message:  # and no webhook, quota or pod security
        remedy = "Apply the Role of manifests/base: kubectl apply -k manifests/base -n NAMESPACE"
    return Refused(
        f"the API server says {status}: {message}",
        where=where,
        remedy=remedy,
        status=status,
        answer=answer,
        retry_after_s=float(retry_after) if retry_after.isdigit() else 0.0,
    )


def _json(answer: Any, where: str) -> dict[str, Any]:
    import urllib3

    try:
        found: dict[str, Any] = json.loads(answer.data)
    except (urllib3.exceptions.HTTPError, ValueError) as error:  # a body that ends early
        raise LaunchError(f"the API server's answer breaks off: {_short(error)}", where=where) from error
    return found


def _text(value: Any) -> str:
    return "true" if value is True else str(value)


def _short(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or error)[:300]
