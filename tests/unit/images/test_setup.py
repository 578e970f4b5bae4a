"""`make setup`: what it says before it downloads, and from where it takes torch."""

import os
import subprocess
import sys
from pathlib import Path

import pip
import pytest

from tests.support.wheels import torch_release, wheel

ROOT = Path(__file__).parents[3]
# A Python whose virtual environments write down how they are called.
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
else
    echo "$PIP_INDEX_URL|$*" >>calls
fi
"""


def settings() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "TORCH_", "MAKE", "MFLAGS"))}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """The Python of a new virtual environment: pip and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True)
    (site,) = (tmp_path / "empty").glob("lib/python*/site-packages")
    (site / "pip").symlink_to(Path(pip.__file__).parent)
    return tmp_path / "empty/bin/python"


def announced(python: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "tools/announce.py"]
    return subprocess.run(command, cwd=ROOT, env=settings() | environment, capture_output=True, text=True, check=False)


def test_it_says_which_build_pip_would_take_and_how_to_have_the_other(
    empty: Path, indexes: dict[str, str], tmp_path: Path
) -> None:
    # The lock's own first CUDA package, as PyPI's build requires it.
    wheel(tmp_path / "indexes/pypi", "torch", torch_release(), 'cuda-bindings<14; platform_system == "Linux"')
    done = announced(empty, PIP_INDEX_URL=indexes["pypi"])
    assert done.returncode == 0, done.stderr
    assert f"torch {torch_release()} is the CUDA build" in done.stdout
    assert "make setup TORCH_INDEX=<URL" in done.stdout
    done = announced(empty, PIP_INDEX_URL=indexes["pypi"], TORCH_INDEX=indexes["cpu"])
    assert f"torch {torch_release()}+cpu is the CPU build" in done.stdout
    assert "TORCH_INDEX" not in done.stdout


def test_an_index_without_torch_stops_it(empty: Path, indexes: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = announced(empty, PIP_INDEX_URL=indexes["pypi"], TORCH_INDEX=(tmp_path / "none").as_uri())
    assert done.returncode == 1
    last = f"pip finds no torch {torch_release()} in the index that TORCH_INDEX names: check the address and the network."
    assert done.stderr.strip().splitlines()[-1] == last


def test_it_is_silent_where_torch_is_installed() -> None:
    done = announced(Path(sys.executable), PIP_INDEX_URL="http://127.0.0.1:1/")
    assert (done.returncode, done.stdout) == (0, "")


def make(checkout: Path, python: Path, *words: str) -> list[str]:
    """The calls of Python that `make setup` makes, each as `index|arguments`."""
    (checkout / "calls").write_text("")
    command = ["make", "--no-print-directory", "setup", f"PYTHON={python}", *words]
    done = subprocess.run(command, cwd=checkout, env=settings(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pa55word" not in done.stdout
    return (checkout / "calls").read_text().splitlines()


def test_torch_alone_comes_from_the_index_that_is_named(checkout: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    plain = make(checkout, python)
    assert plain[0] == "|tools/announce.py"  # before any download
    assert [call for call in plain if call.startswith("|-m pip install") and call.endswith("-e .[dev]")] == plain[-1:]
    assert make(checkout, python) == []
    # Another index: .venv is made anew, and torch comes from there before everything else comes from pip's own index.
    (checkout / ".venv/old").touch()
    named = make(checkout, python, "TORCH_INDEX=https://me:pa55word@cpu.example/simple")
    assert not (checkout / ".venv/old").exists()
    (torch,) = [number for number, call in enumerate(named) if call.startswith("https://me:pa55word@cpu.example/simple|")]
    assert named[torch].endswith("-c constraints.txt --no-deps torch")
    assert named[0] == plain[0] and named[torch + 1 :] == plain[-1:]
    assert (checkout / ".venv/.torch-index").stat().st_mode & 0o077 == 0
    # It is remembered.
    assert make(checkout, python) == []
    assert make(checkout, python, "TORCH_INDEX=") == plain
