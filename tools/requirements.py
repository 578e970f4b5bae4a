"""Write images/<image>/requirements.txt: the locked packages that each image installs, with hashes.

    python tools/requirements.py

An image installs exactly these with `--no-deps`. A package's hash is that of the one file which the lock's platform
(Linux x86-64, CPython 3.11) takes; torch has several builds of one version (CPU, CUDA), and pyspark
is built from source: these go without a hash into requirements-plain.txt. What torch needs in its CUDA build alone is in
requirements-cuda.txt, from the lock, as are Spark's: the files come out the same in every environment.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import lock

ROOT = Path(__file__).parent.parent

# kfp's runtime inside a container needs the package itself and typing-extensions, none of its client dependencies.
CLIENT = ("kfp", "kfp-kubernetes")
# NCCL is for XGBoost on several GPUs (nothing here asks for it) and weighs more than the rest of the base image.
NEVER = ("nvidia-nccl-cu12",)
IMAGES = {
    "base": (("data", "nlp", "cluster"), ("kfp", "typing-extensions")),
    "train": (("data", "nlp", "train", "cluster"), ("kfp", "typing-extensions")),
    "serve": (("serve",), ()),
    "spark": (("data", "nlp", "cluster", "spark"), ("kfp", "typing-extensions")),
}
UNHASHED = ("torch", "pyspark")


def pins(image: str) -> dict[str, str]:
    """Package -> version that `image` installs, whichever build of torch it gets."""
    extras, runtime = IMAGES[image]
    everything = lock.closure()
    wanted = lock.closure(extras, without=(*CLIENT, *NEVER), cuda=False)
    if "spark" in extras:  # need not be installed here
        wanted |= lock.locked().spark
    return wanted | {name: everything[name] for name in runtime}


def hashes(found: dict[str, str]) -> dict[str, str]:
    """Package -> sha256 of the file pip chooses for this platform."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
        listing.write("".join(f"{name}=={version}\n" for name, version in found.items()))
        listing.flush()
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        report = subprocess.run([*command, "--report", "-", "-r", listing.name], check=True, capture_output=True, text=True)
    items = json.loads(report.stdout)["install"]
    return {
        item["metadata"]["name"].lower().replace("_", "-").replace(".", "-"): item["download_info"]["archive_info"]["hashes"][
            "sha256"
        ]
        for item in items
    }


def main() -> None:
    """Write the files of every image."""
    wanted = {image: pins(image) for image in IMAGES}
    union = {name: version for found in wanted.values() for name, version in found.items() if name not in UNHASHED}
    cuda = lock.locked().cuda
    digest = hashes(union | cuda)
    for image, found in wanted.items():
        lines = [f"{name}=={found[name]} --hash=sha256:{digest[name]}\n" for name in sorted(found) if name not in UNHASHED]
        (ROOT / "images" / image).mkdir(exist_ok=True)
        (ROOT / "images" / image / "requirements.txt").write_text("".join(lines))
        plain = "".join(f"{name}=={found[name]}\n" for name in UNHASHED if name in found)
        (ROOT / "images" / image / "requirements-plain.txt").write_text(plain)
        if "torch" in found:
            lines = [f"{name}=={cuda[name]} --hash=sha256:{digest[name]}\n" for name in sorted(cuda)]
            (ROOT / "images" / image / "requirements-cuda.txt").write_text("".join(lines))
        print(f"{image}: {len(found)} packages")


if __name__ == "__main__":
    main()
