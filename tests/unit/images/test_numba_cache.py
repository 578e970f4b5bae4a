"""Compiled kernels: found again where all that went into them is the same, also where numba may not write."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tritower
from tritower import numba_cache

OUTER = """
from tritower.numba_cache import njit
from tritower.inner import FACTOR, grown

@njit(cache=True)
def outer(x):
    return FACTOR * grown(x)

print("gives", outer(20))
"""
INNER = """
from tritower.numba_cache import njit
from tritower.constants import STEP

FACTOR = 2

@njit(cache=True)
def grown(x):
    return x + STEP
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package tritower with two kernels of its own, one of which inlines the other."""
    package = tmp_path / "site/tritower"
    package.mkdir(parents=True)
    for name in ("__init__.py", "numba_cache.py"):
        shutil.copy(Path(tritower.__file__).parent / name, package)
    for name, text in (("outer", OUTER), ("inner", INNER), ("constants", "STEP = 1\n"), ("other", "A = 1\n")):
        (package / f"{name}.py").write_text(text)
    return package


def run(package: Path, prefix: Path = Path("/none"), **settings: str) -> str:
    """What numba says about its cache while `outer` runs in a process whose `sys.prefix` is `prefix`."""
    code = f"import sys, runpy; sys.prefix = {str(prefix)!r}; runpy.run_module('tritower.outer')"
    given = {"PYTHONPATH": str(package.parent), "NUMBA_DEBUG_CACHE": "1", "PYTHONDONTWRITEBYTECODE": "1"} | settings
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    return subprocess.run([sys.executable, "-c", code], env=kept | given, check=True, capture_output=True, text=True).stdout


def test_what_a_kernel_inlines_is_part_of_it_and_nothing_else(package: Path) -> None:
    """numba's own cache gives 42 after each of these changes but the first, which changes nothing that the kernel imports."""
    assert "gives 42\n" in run(package)
    (package / "other.py").write_text("A = 2\n")
    again = run(package)
    assert "gives 42\n" in again and "saved to" not in again
    changes = [("inner", "x + STEP", "x - STEP", 38), ("inner", "FACTOR = 2", "FACTOR = 3", 57), ("constants", "1", "5", 45)]
    for file, old, new, result in changes:
        place = package / f"{file}.py"
        place.write_text(place.read_text().replace(old, new))
        assert f"gives {result}\n" in run(package)


def test_what_the_image_holds_is_not_compiled_again(package: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    assert "data saved to" in run(package, NUMBA_CACHE_DIR=str(image / "numba"))
    for path in (image, *image.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    said = run(package, prefix=image, NUMBA_CACHE_DIR=str(tmp_path / "tmp"))
    assert "gives 42" in said
    assert f"data loaded from '{tmp_path}/tmp" in said
    assert "saved to" not in said
    # What the image does not hold is compiled into the copy, which can be written.
    (package / "constants.py").write_text("STEP = 5\n")
    said = run(package, prefix=image, NUMBA_CACHE_DIR=str(tmp_path / "tmp"))
    assert "gives 50" in said
    assert f"data saved to '{tmp_path}/tmp" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "site", "tmp"]


def test_a_cache_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "image" / "a").write_text("1")
    numba_cache.fill(tmp_path / "image", tmp_path / "tmp")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_sources_of_a_kernel_are_its_file_and_all_that_it_imports() -> None:
    rooms = Path(tritower.__file__).parent
    found = {str(path.relative_to(rooms)) for path in numba_cache.sources(rooms / "features/history.py")}
    assert {"features/history.py", "features/rings.py", "half.py", "features/timeline.py"} <= found
    assert not any(name.startswith(("ranker/", "entities/")) for name in found)
