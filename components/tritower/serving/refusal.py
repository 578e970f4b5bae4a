"""A request that is refused, and how every door says so: JSON with what, where and remedy."""

import json
from collections.abc import Mapping

from tritower.errors import ArtifactError, ConfigError, DataError, TritowerError, one_line

LONGEST_ID = 64


class Refusal(DataError):
    """A request that the server does not answer.

    Args:
        status: of HTTP, 400 to 503; 307 where another server answers.
        problem, where, remedy: see `TritowerError`.
        headers: more headers of the answer.
    """

    def __init__(
        self, status: int, problem: str, *, where: str = "", remedy: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(problem, where=where, remedy=remedy)
        self.status, self.headers = status, dict(headers or {})


def refusal(error: TritowerError) -> Refusal:
    """What an error of ours is to the caller: 422 where the request is at fault, else 503."""
    if isinstance(error, Refusal):
        return error
    status = 422 if isinstance(error, (ConfigError, DataError, ArtifactError)) else 503
    return Refusal(status, error.problem, where=error.where, remedy=error.remedy)


def body(error: TritowerError, request_id: str) -> bytes:
    """The answer's JSON. `error` holds all in one line, as clients of the protocols V1 and V2 expect."""
    told = {"error": str(error), "what": error.problem, "where": error.where, "remedy": error.remedy}
    return json.dumps(told | {"request_id": request_id}, ensure_ascii=False).encode("utf-8", "backslashreplace")


def unexpected() -> Refusal:
    """For a fault of ours; the log has the rest."""
    remedy = "This is a fault of the server's: report it with the request id, under which the log has the traceback."
    return Refusal(500, "the server failed", remedy=remedy)


def quoted(value: object, longest: int = 80) -> str:
    """A value as messages show it, cut where it is long."""
    text = one_line(repr(value))
    return text if len(text) <= longest else f"{text[:longest]}…"
