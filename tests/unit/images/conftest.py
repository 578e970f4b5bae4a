"""Small wheels, indexes of them in a folder, and a checkout whose images want nothing else."""

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CUDA_NEEDS = ('cuda-toolkit[runtime]==13.0.3; platform_system == "Linux"',)


def wheel(index: Path, name: str, version: str, *needs: str) -> str:
    """Put a wheel with one module into a package index that is a folder; the wheel's sha256."""
    stem = f"{name}-{version}"
    files = {
        f"{name}.py": f"__version__ = {version!r}\n",
        f"{stem}.dist-info/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Provides-Extra: runtime"]
            + [f"Requires-Dist: {text}" for text in needs]
        )
        + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {
        path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=") for path, text in files.items()
    }
    record = "".join(f"{path},sha256={digest.decode()},{len(files[path])}\n" for path, digest in digests.items())
    files[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n"
    folder = index / name.replace("_", "-")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    links = (f'<a href="{one.name.replace("+", "%2B")}">{one.name}</a>' for one in sorted(folder.glob("*.whl")))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def torch_release() -> str:
    """The release of torch that the lock has."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.removeprefix("torch==") for line in lines if line.startswith("torch=="))


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
