"""wheelhouse/: every wheel that the images install, and which build of torch it holds."""

import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

from engine import run

ROOT = Path(__file__).resolve().parent.parent
WHEELHOUSE = ROOT / "wheelhouse"
# A digest of the index that torch was taken from: the address itself may hold a password.
TORCH_FROM = WHEELHOUSE / ".torch-from"


def locked(image: str, kind: str) -> list[str]:
    """Lines of an image's locked requirements.

    Args:
        image: a folder of images/.
        kind: empty: with hashes; `plain`: several builds of one version, so no hash; `cuda`: what torch needs in its CUDA
            build alone, with hashes.
    """
    file = ROOT / "images" / image / f"requirements{kind and '-'}{kind}.txt"
    return file.read_text().splitlines() if file.exists() else []


def hashed(image: str) -> list[str]:
    """The image's lines with hashes, those for the CUDA build of torch where that is what the wheelhouse holds."""
    return locked(image, "") + (locked(image, "cuda") if torch_build(image) == "cuda" else [])


def torch_build(image: str) -> str:
    """`cuda` or `cpu`: what the wheel of torch in wheelhouse/ is, by what it requires; empty where the image has no torch."""
    lines = [line for line in locked(image, "plain") if line.startswith("torch==")]
    if not lines:
        return ""
    wheel = found(lines[0])
    requires = Parser().parsestr(_inside(wheel, "METADATA").decode()).get_all("Requires-Dist") or []
    needs = {_name(text) for text in requires if "extra ==" not in text}
    cuda = {_name(line) for line in locked(image, "cuda")}
    unknown = needs - cuda - {_name(line) for line in locked(image, "")}
    if unknown:
        sys.exit(
            f"{wheel.name} needs {', '.join(sorted(unknown))}, which the lock does not have: take PyPI's build or a CPU build "
            "(remove this file, then `make wheelhouse`, with TORCH_INDEX=URL for another index)"
        )
    return "cuda" if needs & cuda else "cpu"


def fill(images: list[str]) -> None:
    """Fill wheelhouse/ with the wheels of these images' requirements; files already there are kept."""
    WHEELHOUSE.mkdir(parents=True, exist_ok=True)
    _make_own()
    _forget_torn()
    _forget_other_build()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    # pyspark comes as source only: `pip wheel` makes a wheel of it and takes the others as they are.
    for line in _missing(images, lambda image: locked(image, "plain")):
        index = os.environ.get("TORCH_INDEX", "") if line.startswith("torch==") else ""
        environment = os.environ | ({"PIP_INDEX_URL": index} if index else {})
        run(*pip, "wheel", "--wheel-dir", str(WHEELHOUSE), "--quiet", "--no-deps", line, env=environment)
    if lines := _missing(images, hashed):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
            listing.write("\n".join(lines))
            listing.flush()
            take = ["download", "--only-binary=:all:", "--dest", str(WHEELHOUSE)]
            run(*pip, *take, "--quiet", "--no-deps", "-r", listing.name)
    for image in images:
        files = [found(line) for line in (*hashed(image), *locked(image, "plain"))]
        build = torch_build(image)
        said = f", torch's {build.upper()} build" if build else ""
        print(f"{image}: {len(files)} wheels, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB{said}")


def _make_own() -> None:
    for stale in WHEELHOUSE.glob("tritower-*.whl"):
        stale.unlink()
    with tempfile.TemporaryDirectory() as scratch:  # setuptools leaves files beside the source
        source = Path(scratch) / "source"
        source.mkdir()
        for part in ("components", "pyproject.toml", "README.md", "LICENSE"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, source / part)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
        run(*pip, "--no-build-isolation", "--wheel-dir", str(WHEELHOUSE), str(source))


def _forget_torn() -> None:
    """Remove what an interrupted download left."""
    for wheel in WHEELHOUSE.glob("*.whl"):
        if not zipfile.is_zipfile(wheel):
            print(f"{wheel.name} is not whole and is taken anew")
            wheel.unlink()


def _forget_other_build() -> None:
    """Remove the wheel of torch where another index is asked for than the one it came from."""
    wanted = hashlib.sha256(os.environ.get("TORCH_INDEX", "").encode()).hexdigest()
    if TORCH_FROM.exists() and TORCH_FROM.read_text() != wanted:
        for wheel in WHEELHOUSE.glob("torch-*.whl"):
            print(f"{wheel.name} came from another index and is taken anew")
            wheel.unlink()
    TORCH_FROM.write_text(wanted)


def _missing(images: list[str], lines: Callable[[str], list[str]]) -> list[str]:
    return sorted({line for image in images for line in lines(image) if not _wheel(line)})


def _wheel(line: str) -> Path | None:
    """The wheel in wheelhouse/ of a line `name==version [--hash=...]`."""
    package, release = line.split()[0].split("==")
    stem = re.sub(r"[-_.]+", "[-_.]", package)
    pattern = re.compile(rf"{stem}-{re.escape(release)}(\+[\w.]+)?-.*\.whl$", re.IGNORECASE)
    files = sorted(file for file in WHEELHOUSE.glob("*.whl") if pattern.match(file.name))
    if len(files) > 1:
        sys.exit(f"two builds of {package} in {WHEELHOUSE}: {' and '.join(file.name for file in files)}. Remove one of them.")
    return files[0] if files else None


def found(line: str) -> Path:
    """The wheel of a locked line; ends the program where wheelhouse/ has none."""
    file = _wheel(line)
    if file is None:
        sys.exit(f"no wheel of {line.split()[0]} in {WHEELHOUSE}: run `make wheelhouse` where there is a network")
    if not zipfile.is_zipfile(file):
        sys.exit(f"{file} is not whole: run `make wheelhouse` where there is a network")
    return file


def content(line: str) -> str:
    """A digest of what a wheel installs: builds of one version differ in it, and two packings of one build do not."""
    return hashlib.sha256(_inside(found(line), "RECORD")).hexdigest()


def _inside(wheel: Path, name: str) -> bytes:
    """A file of the wheel's metadata folder."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [path for path in archive.namelist() if re.fullmatch(rf"[^/]+\.dist-info/{name}", path)]
        return archive.read(path)


def _name(text: str) -> str:
    """The canonical name of a requirement's package."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", text.strip())[0]).lower()
