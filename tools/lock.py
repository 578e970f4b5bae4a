"""Write or check constraints.txt: one exact version for every package that tritower's extras reach.

    python tools/lock.py           write it from what is installed here
    python tools/lock.py --check   exit 1 where pyproject.toml, constraints.txt and the installed packages disagree

Installing is left to pip (`pip install -c constraints.txt -e ".[dev]"`); this file only walks the metadata of what pip
resolved, so that a version can neither drift nor be missing from the lock.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "constraints.txt"
HEADER = """# Exact versions of everything tritower's extras reach. Written by `make lock`; checked by `make check`.
# torch is pinned to one release on purpose: a range may pull gigabytes of CUDA libraries.
"""
# An extra that is optional on a laptop is locked when it is installed and skipped when it is not.
EXTRAS = ("dev", "serve")
OPTIONAL = ("spark",)


def closure(extras: tuple[str, ...] = (*EXTRAS, *OPTIONAL), *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Canonical name -> public version of each installed package reachable from tritower's extras.

    Args:
        extras: extras to start from; the core dependencies always count.
        without: packages left out, and with them what only they need.
    """
    found: dict[str, str] = {}
    missing: list[str] = []
    seen: set[tuple[str, str]] = set()
    todo = [("tritower", extra, extra in OPTIONAL) for extra in ("", *extras)]
    while todo:
        name, extra, optional = todo.pop()
        if (name, extra) in seen or name in without:
            continue
        seen.add((name, extra))
        if name == "tritower":
            todo += [(child, nested, optional) for child, nested in _own(extra)]
            continue
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            if not optional:
                missing.append(name)
            continue
        found[name] = Version(dist.version).public
        for text in dist.requires or ():
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            child = canonicalize_name(requirement.name)
            todo += [(child, nested, optional) for nested in ("", *requirement.extras)]
    if missing:
        sys.exit(f"not installed: {', '.join(sorted(set(missing)))}. Run `make setup`.")
    return found


def _own(extra: str) -> list[tuple[str, str]]:
    # Read from pyproject.toml itself: the metadata of an editable install is as old as the install.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
    requirements = [Requirement(text) for text in texts]
    return [(canonicalize_name(r.name), nested) for r in requirements for nested in ("", *r.extras)]


def locked() -> dict[str, str]:
    """Canonical name -> version as constraints.txt has it."""
    lines = (line.split("#")[0].strip() for line in LOCK.read_text().splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in pairs}


def main(check: bool) -> int:
    """Write the lock, or report each disagreement and return 1."""
    want = closure()
    if not check:
        LOCK.write_text(HEADER + "".join(f"{name}=={want[name]}\n" for name in sorted(want)))
        print(f"{len(want)} packages locked in {LOCK.name}")
        return 0
    have = locked()
    faults = [f"{name} {version} is installed but not locked" for name, version in want.items() if name not in have]
    faults += [
        f"{name}: locked {have[name]}, installed {version}"
        for name, version in want.items()
        if have.get(name, version) != version
    ]
    for fault in sorted(faults):
        print(fault)
    print(f"lock: {len(want)} packages, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
