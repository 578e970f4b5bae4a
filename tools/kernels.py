"""Compile the kernels of all steps and of the server into this checkout, for the processors of the images.

    python tools/kernels.py

Compiling takes a minute and a half. A process that wants a kernel which nobody has compiled yet does it for itself, and so do
those of the tests at the same time. A run and the tests here find what this has compiled (see `tritower.numba_cache`).
"""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """What the image `serve` does when it is built."""
    sys.path[:0] = [str(ROOT), str(ROOT / "images")]
    from pipelines import kernels

    with kernels.as_in_the_images():
        runpy.run_path(str(ROOT / "images/warm_serve.py"), run_name="__main__")


if __name__ == "__main__":
    main()
