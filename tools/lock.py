"""Write or check constraints.txt: one exact version for every package that tritower's extras reach.

    python tools/lock.py           write it from what is installed here
    python tools/lock.py --check   exit 1 where pyproject.toml, constraints.txt and the installed packages disagree

Either takes the place of another lock than constraints.txt as its last word.

Installing is left to pip (`pip install -c constraints.txt -e ".[dev]"`); this file only walks the metadata of what pip
resolved, so that a version can neither drift nor be missing from the lock.

One lock serves both builds of torch. PyPI's for Linux is the CUDA build, whose metadata asks for a further twenty packages
on Linux alone; other indexes serve a CPU build that asks for none of them. What only those requirements reach has a part of
its own in the lock: it must be installed beside a CUDA build, may be absent beside a CPU build, and `make lock` keeps it
where the torch installed is a CPU build. So it is with the extra `spark`, which a laptop need not install.
"""

import argparse
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "constraints.txt"
HEADER = "# Exact versions of everything tritower's extras reach. Written by `make lock`; checked by `make check`."
CUDA_HEADER = "# What torch {torch} needs in its CUDA build alone; absent beside a CPU build."
SPARK_HEADER = "# What the extra spark alone needs."
EXTRAS = ("dev", "serve")
OPTIONAL = ("spark",)
ELSEWHERE = {"platform_system": "Windows", "sys_platform": "win32", "os_name": "nt"}


@dataclass(frozen=True, kw_only=True)
class Lock:
    """Canonical name -> public version, in three parts that share no name."""

    common: dict[str, str]
    cuda: dict[str, str]
    """What torch needs in its CUDA build alone; of an environment with a CPU build: empty."""
    cuda_of: str = ""
    """The release of torch that `cuda` was taken from."""
    spark: dict[str, str]
    """What the extra `spark` alone needs; of an environment without it: empty."""

    @property
    def all(self) -> dict[str, str]:
        """Every part."""
        return self.common | self.cuda | self.spark

    def text(self) -> str:
        """What constraints.txt holds."""
        return "\n".join(
            f"{header}\n" + "".join(f"{name}=={part[name]}\n" for name in sorted(part))
            for header, part in (
                (HEADER, self.common),
                (CUDA_HEADER.format(torch=self.cuda_of), self.cuda),
                (SPARK_HEADER, self.spark),
            )
            if part
        )


def closure(
    extras: tuple[str, ...] = (*EXTRAS, *OPTIONAL), *, without: tuple[str, ...] = (), cuda: bool = True
) -> dict[str, str]:
    """Canonical name -> public version of each installed package reachable from tritower's extras.

    Args:
        extras: extras to start from; the core dependencies always count.
        without: packages left out, and with them what only they need.
        cuda: follow the requirements that only a CUDA build of torch has.
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
        followed: Callable[[Requirement], bool] = any_build if cuda or name != "torch" else either_build
        for requirement in map(Requirement, dist.requires or ()):
            if (requirement.marker and not requirement.marker.evaluate({"extra": extra})) or not followed(requirement):
                continue
            child = canonicalize_name(requirement.name)
            todo += [(child, nested, optional) for nested in ("", *requirement.extras)]
    if missing:
        sys.exit(f"not installed: {', '.join(sorted(set(missing)))}. Run `make setup`.")
    return found


def any_build(requirement: Requirement) -> bool:
    """Every requirement of torch that holds here."""
    return True


def either_build(requirement: Requirement) -> bool:
    """A requirement that torch has in its CPU build, too: CUDA's packages are asked for on Linux alone."""
    return not requirement.marker or requirement.marker.evaluate({"extra": "", **ELSEWHERE})


def _own(extra: str) -> list[tuple[str, str]]:
    # Read from pyproject.toml itself: the metadata of an editable install is as old as the install.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
    requirements = [Requirement(text) for text in texts]
    return [(canonicalize_name(r.name), nested) for r in requirements for nested in ("", *r.extras)]


def installed() -> Lock:
    """What is installed here."""
    common, either = closure(EXTRAS, cuda=False), closure(EXTRAS)
    cuda = {name: version for name, version in either.items() if name not in common}
    spark = {name: version for name, version in closure().items() if name not in either}
    return Lock(common=common, cuda=cuda, cuda_of=common["torch"] if cuda else "", spark=spark)


def locked(file: Path = LOCK) -> Lock:
    """What constraints.txt says."""
    before, after = CUDA_HEADER.split("{torch}")
    common: dict[str, str] = {}
    cuda: dict[str, str] = {}
    spark: dict[str, str] = {}
    part, cuda_of = common, ""
    for line in file.read_text().splitlines():
        if line.startswith(before) and line.endswith(after):
            part, cuda_of = cuda, line.removeprefix(before).removesuffix(after)
        elif line == SPARK_HEADER:
            part = spark
        elif text := line.split("#")[0].strip():
            name, version = text.split("==")
            part[canonicalize_name(name)] = version
    return Lock(common=common, cuda=cuda, cuda_of=cuda_of, spark=spark)


def merged(here: Lock, kept: Lock) -> Lock:
    """The lock to write: what is installed here, and as they were locked the parts that this environment does without."""
    cuda, cuda_of = (here.cuda, here.cuda_of) if here.cuda else (kept.cuda, kept.cuda_of)
    cuda = {name: version for name, version in cuda.items() if name not in here.common}
    spark = {name: version for name, version in (here.spark or kept.spark).items() if name not in here.common | cuda}
    return Lock(common=here.common, cuda=cuda, cuda_of=cuda_of, spark=spark)


def faults(here: Lock, kept: Lock) -> list[str]:
    """One line for each disagreement between what is installed and what is locked."""
    want, have = here.all, kept.all
    found = [f"{name} {version} is installed but not locked" for name, version in want.items() if name not in have]
    found += [
        f"{name}: locked {have[name]}, installed {version}"
        for name, version in want.items()
        if have.get(name, version) != version
    ]
    torch = kept.common.get("torch", "")
    if not kept.cuda:
        found.append("the packages of torch's CUDA build are not locked: run `make lock` where it is installed")
    elif kept.cuda_of != torch:
        there = f"run `make lock` where the CUDA build of {torch} is installed"
        found.append(f"torch {torch} is locked, but the packages of its CUDA build are those of {kept.cuda_of}: {there}")
    for part in ("cuda", "spark"):
        if ours := getattr(here, part):
            stale = getattr(kept, part).keys() - ours.keys()
            found += [f"{name} is locked under {part}, where nothing needs it" for name in stale]
            found += [f"{name} belongs under {part}: run `make lock`" for name in ours.keys() & kept.common.keys()]
    return sorted(found)


def main() -> int:
    """Write the lock, or report each disagreement and return 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("file", nargs="?", type=Path, default=LOCK)
    given = parser.parse_args()
    here, kept = installed(), locked(given.file)
    build = f"torch's CUDA build, with {len(here.cuda)} packages of its own" if here.cuda else "a CPU build of torch"
    if given.check:
        found = faults(here, kept)
        for fault in found:
            print(fault)
        print(f"lock: {len(here.all)} packages ({build}), {len(found)} faults")
        return 1 if found else 0
    result = merged(here, kept)
    given.file.write_text(result.text())
    parts = [part for part in ("cuda", "spark") if getattr(result, part) and not getattr(here, part)]
    said = f"; kept as they were: the packages under {', '.join(parts)}" if parts else ""
    print(f"{len(result.all)} packages locked in {given.file.name} from {build}{said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
