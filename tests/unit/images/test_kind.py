"""`make kind` names what is missing and stops before it changes anything."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def programs(folder: Path, *names: str) -> str:
    """A PATH with the shell's own tools and programs of these names, each of which leaves word that it was called."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{folder}/called"\n[ "$1" != info ]\n')
        (folder / name).chmod(0o755)
    for name in ("bash", "dirname", "env"):
        os.symlink(f"/usr/bin/{name}", folder / name)
    return str(folder)


@pytest.mark.parametrize("there", [(), ("docker", "git"), ("docker", "kind", "kubectl", "git")])
def test_what_is_missing_is_named_with_its_command(tmp_path: Path, there: tuple[str, ...]) -> None:
    path = programs(tmp_path / "bin", *there)
    done = subprocess.run([ROOT / "tools/kind.sh"], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[-1] == "Nothing was changed."
    named = {line.split(": ", 1)[1].partition(".")[0] for line in said[:-1]}
    wanted = {"docker", "kind", "kubectl", "git"} - set(there)
    assert named == wanted | ({"a Docker engine that answers"} if "docker" in there else set())
    assert all(len(line.split(". ", 1)[1]) > 10 for line in said[:-1])
    called = (tmp_path / "bin/called").read_text() if (tmp_path / "bin/called").exists() else ""
    assert set(called.splitlines()) <= {"docker info"}
