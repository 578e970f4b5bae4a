"""Compiled kernels that lie where numba may not write."""

import os
import subprocess
import sys
from pathlib import Path

import numba.core.caching
from tritower import numba_cache

KERNEL = """
import numba

@numba.njit(cache=True)
def double(x):
    return 2 * x

print(double(21))
"""


def run(program: Path, cache: Path, prefix: Path) -> str:
    """What numba says about its cache while a program runs whose `sys.prefix` is `prefix`."""
    code = f"import sys, runpy; sys.prefix = {str(prefix)!r}; runpy.run_path({str(program)!r})"
    settings = {"NUMBA_CACHE_DIR": str(cache), "NUMBA_DEBUG_CACHE": "1"}
    settings["NUMBA_CACHE_LOCATOR_CLASSES"] = "tritower.numba_cache.SeededCacheLocator"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | settings, check=True, capture_output=True, text=True)
    assert "42" in done.stdout
    return done.stdout


def test_what_the_image_holds_is_not_compiled_again(tmp_path: Path) -> None:
    program = tmp_path / "kernel.py"
    program.write_text(KERNEL)
    image = tmp_path / "image"
    assert "data saved to" in run(program, image / "numba", tmp_path / "none")
    for path in (image, *image.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    said = run(program, tmp_path / "tmp", image)
    assert f"data loaded from '{tmp_path}/tmp" in said
    assert "saved to" not in said
    # What the image does not hold is compiled into the copy, which can be written.
    program.write_text(KERNEL.replace("2 * x", "x + x"))
    assert "data saved to" in run(program, tmp_path / "tmp", image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "kernel.py", "tmp"]


def test_a_cache_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "image" / "a").write_text("1")
    numba_cache.fill(tmp_path / "image", tmp_path / "tmp")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert issubclass(numba_cache.SeededCacheLocator, numba.core.caching.UserProvidedCacheLocator)
