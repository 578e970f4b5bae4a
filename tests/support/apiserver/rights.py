"""Who may do what: bearer tokens with the rules of Roles."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.apiserver import answers

Object = dict[str, Any]
EVERYTHING: list[Object] = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]


@dataclass(frozen=True)
class Account:
    """A service account. Args: rules: of Roles in `namespace`. cluster_rules: of ClusterRoles, everywhere."""

    user: str
    namespace: str = ""
    rules: Sequence[Object] = ()
    cluster_rules: Sequence[Object] = ()

    def may(self, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
        """Args: resource: with its subresource, `pods/log`. namespace: empty for what has none."""
        rules = [*self.cluster_rules, *(self.rules if namespace == self.namespace else ())]
        return any(_allows(rule, verb, group, resource, name) for rule in rules)


class Rights:
    """The tokens that are known."""

    def __init__(self) -> None:
        self.admin = Account("system:admin", cluster_rules=EVERYTHING)
        self.accounts = {secrets.token_hex(16): self.admin}

    def token(self, account: Account) -> str:
        token = secrets.token_hex(16)
        self.accounts[token] = account
        return token

    def of(self, header: str | None) -> Account:
        """The account of an Authorization header. Raises: Refused: 401."""
        if not header:
            return Account("system:anonymous")
        account = self.accounts.get(header.removeprefix("Bearer ").strip())
        if account is None:
            raise answers.Refused(401, "Unauthorized", "Unauthorized")
        return account


def require(account: Account, verb: str, group: str, resource: str, namespace: str, name: str) -> None:
    """Raises: Refused: 403, in the words of the real server."""
    if account.may(verb, group, resource, namespace, name):
        return
    plural = resource.partition("/")[0]
    shown = f"{plural}.{group}" if group else plural
    about = f'{shown} "{name}"' if name else shown
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    message = f'{about} is forbidden: User "{account.user}" cannot {verb} resource "{resource}" in API group "{group}"{where}'
    raise answers.Refused(403, "Forbidden", message, details=answers.about(shown, name))


def review(account: Account, item: Object) -> Object:
    """A SelfSubjectAccessReview with its status."""
    asked = item.get("spec", {}).get("resourceAttributes") or {}
    resource = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
    allowed = account.may(
        asked.get("verb", ""), asked.get("group", ""), resource, asked.get("namespace", ""), asked.get("name", "")
    )
    return item | {"status": {"allowed": allowed} | ({} if allowed else {"reason": ""})}


def _allows(rule: Object, verb: str, group: str, resource: str, name: str) -> bool:
    def has(field: str, *values: str) -> bool:
        return any(value in rule.get(field, []) for value in ("*", *values))

    plural, _, part = resource.partition("/")
    names = rule.get("resourceNames")
    return (
        has("verbs", verb)
        and has("apiGroups", group)
        and has("resources", resource, *([f"{plural}/*", f"*/{part}"] if part else []))
        and (not names or name in names)
    )
