"""Indexes of small wheels, and a checkout whose images want nothing else."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.support.wheels import CUDA_NEEDS, ROOT, torch_release, wheel


@pytest.fixture
def indexes(tmp_path: Path) -> dict[str, str]:
    """Addresses: `pypi` has the CUDA build of torch and what it needs, `cpu` a CPU build, `other` one for another CUDA."""
    folder, release = tmp_path / "indexes", torch_release()
    wheel(folder / "pypi", "torch", release, "filelock", *CUDA_NEEDS)
    wheel(folder / "pypi", "filelock", "4.0")
    wheel(folder / "pypi", "cuda_toolkit", "13.0.3.0")
    wheel(folder / "cpu", "torch", f"{release}+cpu", "filelock", 'optree; extra == "optree"')
    wheel(folder / "other", "torch", f"{release}+cu128", "filelock", 'nvidia-cublas-cu12==12.8; platform_system == "Linux"')
    return {path.name: path.as_uri() for path in folder.iterdir()}


@pytest.fixture
def checkout(tmp_path: Path, indexes: dict[str, str]) -> Path:
    """What a build of images needs of a checkout, without its .git; the image train wants the packages of `indexes`."""
    copy, held = tmp_path / "checkout", Path(indexes["pypi"].removeprefix("file://"))
    shutil.copytree(ROOT / "images", copy / "images", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "components/tritower").mkdir(parents=True)
    shutil.copy2(ROOT / "components/tritower/__init__.py", copy / "components/tritower")
    for file in ("pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt"):
        shutil.copy2(ROOT / file, copy)
    for image in ("base", "serve", "spark"):
        (copy / "images" / image / "requirements.txt").write_text("")
    for kind, package in (("", "filelock==4.0"), ("-cuda", "cuda-toolkit==13.0.3.0")):
        (file,) = (held / package.split("==")[0]).glob("*.whl")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (copy / f"images/train/requirements{kind}.txt").write_text(f"{package} --hash=sha256:{digest}\n")
    return copy
