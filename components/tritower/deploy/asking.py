"""A version is asked: what it calls itself, and its golden questions."""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tritower.cluster.api import Api, Refused, core
from tritower.errors import LaunchError

MODEL = "tritower"
_PAUSE_S = 0.5
_CONNECT_S = 5.0
"""A connection begun before the node knows a new Service is lost, with all that is sent on it: it is made anew."""


class Endpoint(Protocol):
    """Where a Service is asked."""

    where: str
    """In words."""

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer to a GET, or to a POST of `body`.

        Raises:
            LaunchError: there is none, or it is an error.
        """


class Direct:
    """A Service by its address, from a pod of the cluster.

    Args:
        address: such as `http://tritower.team.svc`.
        token: that it asks for; empty for none.
        timeout_s: for an answer.
    """

    def __init__(self, address: str, *, token: str = "", timeout_s: float = 30.0) -> None:
        import urllib3

        self.where, self._pool, self._timeout_s = address, urllib3.PoolManager(), timeout_s
        # A kept connection stays with a pod that leaves the Service; every question is to see who answers now.
        self._headers = {"Connection": "close"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """See `Endpoint`."""
        import urllib3

        method, url = ("GET", self.where + path) if body is None else ("POST", self.where + path)
        try:
            more = {"Content-Type": "application/json"} if body is not None else {}
            content = json.dumps(body) if body is not None else None
            limits = urllib3.Timeout(connect=min(_CONNECT_S, self._timeout_s), read=self._timeout_s)
            answer = self._pool.request(method, url, headers=self._headers | more, body=content, timeout=limits, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise LaunchError(f"there is no answer: {error}", where=url) from None
        return _read(answer.status, answer.data, url)


class Proxied:
    """A Service through the API server, which takes the header Authorization for itself; the token has another one.

    Args:
        server: the API server.
        namespace: of the Service.
        service: its name.
        token: that it asks for; empty for none.
    """

    def __init__(self, server: Api, namespace: str, service: str, *, token: str = "") -> None:
        self.where, self._headers = f"Service {service}", {"X-Tritower-Token": token} if token else {}
        self._server, self._path = server, core(namespace, "services", f"{service}:80") + "/proxy"

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """See `Endpoint`."""
        try:
            method = "GET" if body is None else "POST"
            answer = self._server.raw(method, self._path + path, body=body, more=self._headers)
        except Refused as error:
            if error.status == 401:
                return _read(401, b"", self.where)
            raise LaunchError(error.problem, where=self.where) from None
        return _read(answer.status, answer.data, self.where)


def _read(status: int, data: bytes, where: str) -> Any:
    if status == 401:
        remedy = "Set TRITOWER_SERVING_TOKEN, or let this account read the Secret with the token."
        raise LaunchError("the server asks for a token", where=where, remedy=remedy)
    if status != 200:
        raise LaunchError(f"the server says {status}: {data.decode(errors='replace')[:500]}", where=where)
    try:
        return json.loads(data)
    except ValueError:
        raise LaunchError(f"the answer is no JSON: {data[:200]!r}", where=where) from None


def own_token() -> str:
    """The token of this process's environment; empty for none."""
    return os.environ.get("TRITOWER_SERVING_TOKEN", "").strip()


def version(endpoint: Endpoint) -> str:
    """The bundle's hash, as the one who answers calls itself.

    Raises:
        LaunchError: no answer, or none that has one.
    """
    answer = endpoint.ask(f"/v2/models/{MODEL}")
    try:
        return str(answer["versions"][0])
    except (KeyError, TypeError, IndexError):
        raise LaunchError(f"the server does not say which version it is: {answer!r}", where=endpoint.where) from None


def answers_as(endpoint: Endpoint, wanted: str, within_s: float, times: int = 3) -> None:
    """Wait until so many answers in a row come from a version.

    Raises:
        LaunchError: they do not, in this time.
    """
    limit, row, last = time.monotonic() + within_s, 0, ""
    while row < times:
        try:
            last = version(endpoint)
        except LaunchError as error:
            last = str(error)
        row = row + 1 if last == wanted else 0
        if row < times and time.monotonic() > limit:
            problem = f"version {wanted[:16]} does not answer within {within_s:g} s"
            raise LaunchError(f"{problem}: {last if ' ' in last else f'version {last[:16]} does'}", where=endpoint.where)
        if not row:
            time.sleep(_PAUSE_S)


def golden(endpoint: Endpoint, wanted: str, questions: Sequence[Mapping[str, Any]]) -> None:
    """Ask the golden questions.

    Raises:
        LaunchError: an answer is none, of another version, without a job, or has a score that is no probability.
    """
    for number, question in enumerate(questions, 1):
        answer = endpoint.ask("/rank", question)
        wrong = fault(answer, wanted)
        if wrong:
            shown = json.dumps(question, ensure_ascii=False)[:200]
            raise LaunchError(f"question {number} of {len(questions)} {wrong}", where=f"{endpoint.where}, {shown}")


def fault(answer: Any, wanted: str) -> str:
    """What is wrong with an answer of POST /rank; empty when it is good."""
    try:
        found, jobs = str(answer["versions"]["bundle"]), list(answer["jobs"])
        scores, ranks = [float(job["score"]) for job in jobs], [job["rank"] for job in jobs]
    except (KeyError, TypeError, ValueError) as error:
        return f"has an answer that is none: {error!r}"
    if found != wanted:
        return f"was answered by version {found[:16]}, not by {wanted[:16]}"
    if not jobs:
        return "found no job"
    if not all(math.isfinite(score) and 0 <= score <= 1 for score in scores):
        return f"has scores that are no probabilities: {scores}"
    if ranks != list(range(1, len(jobs) + 1)):
        return f"has ranks out of order: {ranks}"
    return ""
