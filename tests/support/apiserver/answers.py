"""What the API server answers when it does not do what it was asked: a code and a Status, in the real one's words."""

from typing import Any

Object = dict[str, Any]

NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
    f"with an alphanumeric character (e.g. 'example.com', regex used for validation is '{NAME.replace(chr(92) * 2, chr(92))}')"
)


class Refused(Exception):
    """An answer that is an error. `status` is its body; a plain text instead where the real server has no Status."""

    def __init__(
        self, code: int, reason: str, message: str, *, details: Object | None = None, retry_after_s: int | None = None
    ):
        super().__init__(message)
        self.code, self.reason, self.retry_after_s, self.plain = code, reason, retry_after_s, ""
        self.status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
        self.status |= ({"reason": reason} if reason else {}) | ({"details": details} if details else {}) | {"code": code}


def about(resource: str, name: str = "") -> Object:
    """The `details` of a Status about `resource` (plural.group)."""
    kind, _, group = resource.partition(".")
    return ({"name": name} if name else {}) | ({"group": group} if group else {}) | {"kind": kind}


def no_such_path() -> Refused:
    refused = Refused(404, "NotFound", "404 page not found")
    refused.plain = "404 page not found\n"
    return refused


def not_found(resource: str, name: str) -> Refused:
    return Refused(404, "NotFound", f'{resource} "{name}" not found', details=about(resource, name))


def already_exists(resource: str, name: str, *, ending: bool = False) -> Refused:
    prefix = "object is being deleted: " if ending else ""
    return Refused(409, "AlreadyExists", f'{prefix}{resource} "{name}" already exists', details=about(resource, name))


def conflict(resource: str, name: str, why: str) -> Refused:
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return Refused(409, "Conflict", message, details=about(resource, name))


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def invalid(kind: str, group: str, name: str, causes: list[tuple[str, str, str]]) -> Refused:
    """422. Args: causes: (field, reason, message)."""
    shown = kind + (f".{group}" if group else "")
    texts = [f"{field}: {message}" for field, _, message in causes]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = about(f"{kind}.{group}" if group else kind, name)
    details["causes"] = [{"reason": reason, "message": message, "field": field} for field, reason, message in causes]
    return Refused(422, "Invalid", f'{shown} "{name}" is invalid: {text}', details=details)


def forbidden_pod(name: str, why: str) -> Refused:
    return Refused(403, "Forbidden", f'pods "{name}" is forbidden: {why}', details=about("pods", name))


def denied(webhook: str, why: str, *, code: int = 403, reason: str = "Forbidden") -> Refused:
    return Refused(code, reason, f'admission webhook "{webhook}" denied the request: {why}')


def webhook_down(webhook: str, service: str, path: str) -> Refused:
    why = (
        f'failed calling webhook "{webhook}": failed to call webhook: Post '
        f'"https://{service}.kubeflow.svc:443/{path}?timeout=10s": no endpoints available for service "{service}"'
    )
    return Refused(500, "InternalError", f"Internal error occurred: {why}", details={"causes": [{"message": why}]})


def expired(message: str) -> Refused:
    return Refused(410, "Expired", message)
