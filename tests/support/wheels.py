"""Small wheels, and indexes of them in a folder."""

import base64
import hashlib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
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
