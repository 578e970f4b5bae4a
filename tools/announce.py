"""Say what `make setup` is about to download: which build of torch, how much, and how to have the other one.

    TORCH_INDEX=URL python tools/announce.py

Runs in a new environment, which has pip and the standard library alone. pip is asked for torch's metadata, not for torch;
a build that requires a package of the lock's CUDA part is a CUDA build. TORCH_INDEX is where torch is to come from, if not
from pip's own index. Where torch is installed already, there is nothing to say.
"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parent.parent / "constraints.txt"
# Everything that is downloaded and what .venv takes, on Linux x86-64: as measured, and without what the CUDA build needs alone.
SIZES = {"CUDA": ("3.8 GB", "7.7 GB"), "CPU": ("1.3 GB", "3.3 GB")}


def cuda_packages(lock: str) -> set[str]:
    """Names in the CUDA part of constraints.txt."""
    part = re.search(r"^# What torch .*\n((?:[a-z].*\n)*)", lock, flags=re.MULTILINE)
    return {line.split("==")[0] for line in part[1].splitlines()} if part else set()


def build_of(requirements: list[str], cuda: set[str]) -> str:
    """`CUDA` or `CPU`, from what a wheel of torch requires."""
    names = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", text.strip())[0]).lower() for text in requirements}
    return "CUDA" if names & cuda else "CPU"


def ask_pip(release: str, index: str) -> dict[str, Any] | None:
    """The metadata of the wheel of torch that pip would take; None where pip does not say."""
    options = ["--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", *options]
    settings = {"PIP_INDEX_URL": index} if index else {}
    done = subprocess.run([*command, f"torch=={release}"], env=os.environ | settings, stdout=subprocess.PIPE, check=False)
    return None if done.returncode else json.loads(done.stdout)["install"][0]["metadata"]


def is_installed(release: str) -> bool:
    """Whether this environment has the release of torch, in whichever build."""
    try:
        return version("torch").split("+")[0] == release
    except PackageNotFoundError:
        return False


def main() -> int:
    """Print it; exit status 1 where pip finds no torch."""
    index = os.environ.get("TORCH_INDEX", "")
    lock = LOCK.read_text()
    (release,) = re.findall(r"^torch==(\S+)$", lock, flags=re.MULTILINE)
    if is_installed(release):
        return 0
    found = ask_pip(release, index)
    if found is None:
        where = "the index that TORCH_INDEX names" if index else "pip's index"
        print(f"pip finds no torch {release} in {where}: check the address and the network.", file=sys.stderr)
        return 1
    build = build_of(list(found.get("requires_dist", [])), cuda_packages(lock))
    down, disk = SIZES[build]
    print(f"About to download about {down} into .venv ({disk} on disk): torch {found['version']} is the {build} build.")
    if build == "CUDA":
        down, disk = SIZES["CPU"]
        print(f"It runs without a GPU, too. The CPU build takes {down} ({disk} on disk), where an index has it:")
        print("stop this now and run `make setup TORCH_INDEX=<URL of an index of CPU builds>`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
