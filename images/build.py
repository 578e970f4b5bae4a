"""Wheels, images and their checks: `python images/build.py {wheelhouse,base-image,build,check} [image ...]`.

    wheelhouse   wheelhouse/<image>/: every locked wheel and tritower's own (the only part that needs a network)
    base-image   a Debian base image by debootstrap, for machines that cannot pull python:3.11-slim
    build        docker build, with no network, tagged <prefix>/<image>:<version>-<commit>
    check        the smoke check of each image: imports, random user id, read-only root, size budget; writes its SBOM

Images are named by TRITOWER_IMAGE_PREFIX (default `tritower`); BASE_IMAGE replaces python:3.11-slim.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELHOUSE = ROOT / "wheelhouse"
IMAGES = ("base", "train", "serve")
LOCAL_BASE = "tritower/python:3.11-bookworm"

# What an image must import, what it must not even find, and its size on disk in MB.
EXPECTED: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "base": (
        (
            "kfp.dsl.executor_main",
            "tritower.ingest.step",
            "tritower.features.step",
            "tritower.evaluation.step",
            "xgboost",
            "spacy",
        ),
        ("torch", "sentence_transformers", "transformers"),
        1600,
    ),
    "train": (("kfp.dsl.executor_main", "torch", "tritower.ranker.step", "tritower.encoder.step"), (), 3000),
    "serve": (("openvino", "tokenizers", "pyarrow", "tritower.schema"), ("kfp", "torch", "kubernetes"), 1400),
}


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command (never through a shell), echoed; a failure ends the program with the command's own output above."""
    print("+", " ".join(command), flush=True)
    try:
        return subprocess.run(command, check=True, text=True, **options)  # type: ignore[call-overload,no-any-return]
    except subprocess.CalledProcessError as error:
        sys.exit(f"{command[0]} ended with {error.returncode}")


def version() -> str:
    """tritower's version as its package states it."""
    text = (ROOT / "components/tritower/__init__.py").read_text()
    return re.findall(r'__version__ = "(.+)"', text)[0]


def revision() -> str:
    """The commit's short id, with `-dirty` where the working tree differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def tag() -> str:
    """The immutable image tag: version and commit."""
    return os.environ.get("TRITOWER_IMAGE_TAG") or f"{version()}-{revision()}"


def name(image: str) -> str:
    """Full image name."""
    return f"{os.environ.get('TRITOWER_IMAGE_PREFIX', 'tritower').rstrip('/')}/{image}:{tag()}"


def wheelhouse(images: list[str]) -> None:
    """Fill wheelhouse/<image>/ with exactly the wheels of its requirements; files already there are kept."""
    pool = WHEELHOUSE / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    for stale in pool.glob("tritower-*.whl"):
        stale.unlink()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(pool), str(ROOT))
    own = next(pool.glob("tritower-*.whl"))
    for image in images:
        source, place = ROOT / "images" / image, WHEELHOUSE / image
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        shutil.copy(source / "requirements.txt", place)
        local = (source / "requirements-torch.txt").read_text() + f"tritower=={version()}\n"
        (place / "requirements-local.txt").write_text(local)
        download = [
            *pip,
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            str(pool),
            "--find-links",
            str(pool),
        ]
        for listing in ("requirements.txt", "requirements-torch.txt"):
            if (source / listing).read_text().strip():
                run(*download, "-r", str(source / listing))
        pinned = re.findall(r"^([\w.-]+)==(\S+)", (source / "requirements.txt").read_text() + local, flags=re.MULTILINE)
        for package, release in pinned:
            os.link(_wheel(pool, package, release), place / _wheel(pool, package, release).name)
        assert (place / own.name).exists()
        print(f"{image}: {len(pinned)} wheels, {sum(f.stat().st_size for f in place.iterdir()) / 1e6:.0f} MB")


def _wheel(pool: Path, package: str, release: str) -> Path:
    stem = re.sub(r"[-_.]+", "[-_.]", package)
    matching = [f for f in pool.iterdir() if re.match(rf"{stem}-{re.escape(release)}(\+\w+)?-.*\.whl$", f.name, re.IGNORECASE)]
    if not matching:
        sys.exit(f"no wheel for {package}=={release} in {pool}")
    return matching[0]


def base_image() -> None:
    """Make `tritower/python:3.11-bookworm` with debootstrap (root, Debian's archive reachable by apt)."""
    root = ROOT / "build/images/rootfs"
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    packages = "python3,python3-venv,ca-certificates"
    run(
        "debootstrap",
        "--variant=minbase",
        f"--include={packages}",
        "bookworm",
        str(root),
        *_mirror(),
        stdout=subprocess.DEVNULL,
    )
    for needless in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / needless, ignore_errors=True)
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
        run("docker", "import", "--change", 'CMD ["bash"]', "-", LOCAL_BASE, stdin=archive.stdout)
    shutil.rmtree(root)


def _mirror() -> list[str]:
    """The archive this machine's apt uses: debootstrap's own default may be out of reach."""
    places = [*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt/sources.list.d").glob("*.list")]
    for file in [*places, Path("/etc/apt/sources.list")]:
        found = re.search(r"(?:^URIs:\s*|^deb\s+(?:\[[^\]]*\]\s*)?)(\S+/debian/?)(?=\s|$)", _text(file), flags=re.MULTILINE)
        if found:
            return [found[1]]
    return []


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def build(images: list[str]) -> None:
    """docker build without network from wheelhouse/<image>."""
    base = os.environ.get("BASE_IMAGE", "python:3.11-slim")
    for image in images:
        if not (WHEELHOUSE / image).is_dir():
            sys.exit(f"wheelhouse/{image} is missing: run `make wheelhouse` where there is a network")
        arguments = {"BASE_IMAGE": base, "VERSION": version(), "REVISION": revision()}
        flags = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        dockerfile = str(ROOT / "images" / image / "Dockerfile")
        run(
            "docker",
            "build",
            "--quiet",
            "--network",
            "none",
            *flags,
            "-t",
            name(image),
            "-f",
            dockerfile,
            str(WHEELHOUSE / image),
        )


def check(images: list[str]) -> None:
    """Smoke check: imports and absences under a random user id on a read-only root, no entry point, size, SBOM."""
    faults: list[str] = []
    for image in images:
        present, absent, budget_mb = EXPECTED[image]
        inspected = json.loads(run("docker", "image", "inspect", name(image), capture_output=True).stdout)[0]
        size_mb = inspected["Size"] / 1e6
        if inspected["Config"].get("Entrypoint"):
            faults.append(f"{image}: has an ENTRYPOINT, KFP's command would not run")
        if size_mb > budget_mb:
            faults.append(f"{image}: {size_mb:.0f} MB, budget {budget_mb} MB")
        # The flag is KFP's own when it starts a step: without it, importing kfp takes its client too.
        confined = (
            "--env _KFP_RUNTIME=true --network none --read-only --tmpfs /tmp:mode=1777,exec --user 24680:0 --cap-drop ALL"
        )
        program = ["python3", "-m", "tritower.about", "--present", *present, "--absent", *absent, "--sbom"]
        done = subprocess.run(
            ["docker", "run", "--rm", *confined.split(), name(image), *program], capture_output=True, text=True
        )
        if done.returncode:
            faults += [f"{image}: {line}" for line in done.stderr.strip().splitlines()[-5:]]
            continue
        place = ROOT / "build/images" / f"{image}.sbom.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(done.stdout)
        packages = len(json.loads(done.stdout)["components"])
        print(f"{image}: {size_mb:.0f} MB of {budget_mb}, {packages} packages, imports as expected")
    if faults:
        sys.exit("\n".join(faults))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=["wheelhouse", "base-image", "build", "check", "tag"])
    parser.add_argument("images", nargs="*", default=list(IMAGES))
    given = parser.parse_args()
    if given.verb == "tag":
        print(tag())
    elif given.verb == "base-image":
        base_image()
    else:
        {"wheelhouse": wheelhouse, "build": build, "check": check}[given.verb](given.images)


if __name__ == "__main__":
    main()
