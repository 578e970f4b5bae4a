"""A run's tasks as a backend's API lists them: the nodes of its Argo workflow."""

import functools
from collections.abc import Sequence
from typing import Any


def node_hash(name: str) -> int:
    """FNV-1a, 32 bits."""
    return functools.reduce(lambda value, byte: ((value ^ byte) * 16777619) % 2**32, name.encode(), 2166136261)


def tasks(workflow: str, nodes: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Tasks as the API lists an Argo workflow's nodes.

    Args:
        workflow: its name.
        nodes: full name and state of every node, without the workflow's own name: `root(0).embed(0).executor(0)`.
    """
    names = {f"{workflow}(0).{name}": state for name, state in nodes}
    above = {f"{workflow}": "", f"{workflow}(0)": workflow}
    for name in names:
        is_attempt = name.endswith(")") and name.rpartition("(")[0] in names
        above[name] = name.rpartition("(")[0] if is_attempt else name.rpartition(".")[0]
    found = []
    for name in above:
        children = [f"{workflow}-{node_hash(child)}" for child, parent in above.items() if parent == name]
        state = names.get(name, "FAILED")
        task = {"display_name": name.rpartition(".")[2], "state": state, "child_tasks": [{"pod_name": one} for one in children]}
        found.append({key: value for key, value in task.items() if value})
    return found
