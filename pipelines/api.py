"""The API of a Kubeflow Pipelines backend: one place for its address, credentials, time limits, pages and errors.

Endpoint and token come from the caller or from KF_PIPELINES_ENDPOINT and KF_PIPELINES_TOKEN; inside a cluster kfp's client
finds the service by itself. The client is asked for address, certificates and credentials alone: its calls have no time limit,
and fail where the API has a word that they do not know. What is sent and what comes back are dicts as the published OpenAPI
(kfp-server-api) has them.

    LaunchError
    ├── Unanswered    nobody answered, or not for itself (429, 5xx): it may do so in a while
    └── Refused       the backend said no; `status` is that of HTTP
"""

import contextlib
import io
import json
import logging
import os
import urllib.parse
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tritower.errors import LaunchError

_PAGE = 100
_AWAY = (429, 500, 502, 503, 504)
_CONNECT_S, _READ_S = 10.0, 60.0
_V2 = "/apis/v2beta1"


class Unanswered(LaunchError):
    """The backend did not answer, or not for itself; it may do so in a while."""


class Refused(LaunchError):
    """The backend answered, and it did not do it.

    `status` is the HTTP status: 400 a wrong request, 401 and 403 no right, 404 not there, 409 there already.
    """

    status = 0


class Api:
    """A connection to a backend.

    Args:
        endpoint: address of the API, such as `http://localhost:8888`; empty to let the client find it.
        namespace: the user's namespace where the backend serves several; empty where it does not.
        token: bearer token, if the endpoint asks for one.

    Raises:
        LaunchError: the backend cannot be reached or refuses.
    """

    def __init__(self, endpoint: str = "", *, namespace: str = "", token: str = "") -> None:
        import kfp

        self.namespace = namespace
        self.pods_in = namespace or "kubeflow"
        self.where = endpoint or os.environ.get("KF_PIPELINES_ENDPOINT", "the cluster's own service")
        with warnings.catch_warnings(), self._errors(), _without_log():
            warnings.simplefilter("ignore", FutureWarning)
            self._client = kfp.Client(
                host=endpoint or None,
                namespace=namespace or "kubeflow",
                existing_token=token or os.environ.get("KF_PIPELINES_TOKEN") or None,
            )

    def get(self, *path: str, **query: str) -> dict[str, Any]:
        """What is at a path below /apis/v2beta1, as JSON."""
        return self._asked("GET", path, query)

    def post(self, *path: str, body: Mapping[str, Any] | None = None, verb: str = "") -> dict[str, Any]:
        """Create something with a body, or with a verb such as `terminate` do something to what is at the path."""
        data = None if body is None else json.dumps(body).encode()
        return self._asked("POST", path, {}, verb=verb, body=data, headers={"Content-Type": "application/json"})

    def delete(self, *path: str, **query: str) -> None:
        """Delete what is at a path."""
        self._asked("DELETE", path, query)

    def upload(self, *path: str, file: Path, **query: str) -> dict[str, Any]:
        """Send a pipeline's YAML as the multipart form that the upload endpoints take."""
        from urllib3.filepost import encode_multipart_formdata

        form, kind = encode_multipart_formdata({"uploadfile": (file.name, file.read_bytes(), "application/x-yaml")})
        return self._asked("POST", path, query, body=form, headers={"Content-Type": kind})

    def listed(self, *path: str, key: str, equal: Mapping[str, str] | None = None, **query: str) -> Iterator[dict[str, Any]]:
        """What the API lists at a path, page by page.

        Args:
            key: the name of the list in an answer.
            equal: field -> value: what is not so is left out by the backend.
        """
        predicates = [{"operation": "EQUALS", "key": name, "stringValue": value} for name, value in (equal or {}).items()]
        query |= {"filter": json.dumps({"predicates": predicates})} if predicates else {}
        query = {"page_size": str(_PAGE)} | query
        while True:
            page = self.get(*path, **query)
            yield from page.get(key) or []
            query["page_token"] = page.get("next_page_token") or ""
            if not query["page_token"]:
                return

    @contextlib.contextmanager
    def opened(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **how: Any) -> Iterator[Any]:
        """The answer to a request, its body not read yet.

        Raises:
            Unanswered: nobody answered, or the answer is that the backend is away.
            Refused: any other answer that is no success.
        """
        import urllib3

        api = self._client._run_api.api_client
        given = {"Accept": "*/*", **api.default_headers} | ({"Cookie": api.cookie} if api.cookie else {}) | dict(headers or {})
        with self._errors():
            api.update_params_for_auth(given, [], ["Bearer"])
            response = api.rest_client.pool_manager.request(
                method,
                api.configuration.host + path,
                headers=given,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
                preload_content=False,
                redirect=False,
                **how,
            )
            try:
                if response.status >= 300:
                    leads = response.headers.get("Location", "").partition("?")[0]
                    text = f"it leads to {leads}" if leads else response.read().decode("utf-8", errors="replace")
                    raise self._refusal(response.status, text)
                yield response
            finally:
                response.release_conn()

    def _asked(
        self, method: str, parts: tuple[str, ...], query: Mapping[str, str], *, verb: str = "", **how: Any
    ) -> dict[str, Any]:
        path = "/".join([_V2, *(urllib.parse.quote(part, safe="") for part in parts)]) + (f":{verb}" if verb else "")
        asked = {name: value for name, value in query.items() if value}
        with self.opened(method, path + (f"?{urllib.parse.urlencode(asked)}" if asked else ""), **how) as response:
            data = response.read()
        try:
            return dict(json.loads(data or b"{}"))
        except ValueError:
            kind = response.headers.get("Content-Type", "no type")
            remedy = "Check that the endpoint is the API's, and the token: a login page may have answered."
            raise LaunchError(f"the answer is no JSON ({kind})", where=self.where, remedy=remedy) from None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the client's errors into ours, and keep what it prints to itself."""
        import kfp_server_api
        import urllib3

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except kfp_server_api.ApiException as error:
            raise self._refusal(error.status or 0, str(error.body or error.reason)) from error
        except (urllib3.exceptions.HTTPError, TimeoutError) as error:  # the latter: the client's own, after five tries
            reason = str(getattr(error, "reason", None) or error)
            remedy = "Check the endpoint and the port-forward."
            raise Unanswered(f"the backend cannot be reached: {reason}", where=self.where, remedy=remedy) from error

    def _refusal(self, status: int, text: str) -> LaunchError:
        """An HTTP status that is no success, as an error of ours."""
        text = _message(text)
        if status in _AWAY:
            return Unanswered(f"the backend is not there ({status}): {text}", where=self.where, remedy="Try again in a while.")
        remedy = "Check what was given." if status in (400, 409) else "Check endpoint, namespace and token."
        refused = Refused(f"the backend refused ({status}): {text}", where=self.where, remedy=remedy)
        refused.status = status
        return refused


def _message(text: str) -> str:
    """What an error's body says: the API's own message, else the text on one line, cut."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            text = str(found.get("message") or found.get("error_message") or text)
    return " ".join(text.split())[:500]


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Within the block nothing is logged: the client logs a traceback for each of its tries to reach the backend."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
