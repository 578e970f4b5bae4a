"""Wheels, images and their checks: `python images/build.py {wheelhouse,base-image,build,check,audit,tag} [image ...]`.

    wheelhouse   wheelhouse/: every locked wheel and tritower's own (the only part of a build that needs a network)
    base-image   a Debian base image by debootstrap, for machines that cannot pull python:3.11-slim; for `spark` one with Java
    build        docker build, with no network: <prefix>/<image>:<version>-<commit> on a layer of its locked packages; their
                 names are kept in build/images/built.json, where `pipelines run --docker` finds them
    check        the smoke check of each image: imports, random user id, read-only root, size budget, for `spark` a query in a
                 session; writes its SBOM
    audit        known vulnerabilities of each image's locked packages, by pip-audit (a network, and pip-audit installed)

Images are named by TRITOWER_IMAGE_PREFIX (default `tritower`). They lie on the base that `base-image` made on this machine,
else on python:3.11-slim; BASE_IMAGE names another for all of them, and BASE_IMAGE_TRAIN, BASE_IMAGE_SPARK... for one: a CUDA
runtime for train, say. It needs Python 3.11 with venv. `train` gets the build of torch that the wheelhouse holds: PyPI's,
which is the CUDA build, or that of the index which TORCH_INDEX names.
"""

import argparse
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import wheels
from engine import BUILDKIT, builder, image_id, must_answer, run

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build/images"
BUILT = OUT / "built.json"
DEBIAN = "bookworm"
LOCAL_BASES = {
    "": ("tritower/python:3.11-bookworm", ""),
    "spark": ("tritower/python-java:3.11-17-bookworm", ",openjdk-17-jre-headless"),
}
STEPS = ("tritower.ingest.step", "tritower.features.step", "tritower.recommend.step")
SPARK_QUERY = """
import pyarrow as pa
from tritower.engines.spark import SparkEngine

with SparkEngine(memory_limit="450MiB", threads=1) as engine:
    engine.register("t", pa.table({"x": [3, 1, 2]}))
    engine.keep("squares", "SELECT x, x * x AS y FROM t", order_by="x", number="n")
    rows = engine.rows("SELECT n, y FROM squares ORDER BY n")
    if rows != [{"n": 0, "y": 1}, {"n": 1, "y": 4}, {"n": 2, "y": 9}]:
        raise SystemExit(f"a query gives {rows}")
"""


@dataclass(frozen=True, kw_only=True)
class Image:
    """What an image is for, which image's packages it shares, and what its smoke check asks for.

    `present` must import, `absent` must not even be found, `budget_mb` bounds its size on disk, and `budget_cuda_mb` that
    with the CUDA build of torch. `program` must run to its end under the image's own user. `kernels` names programs that run
    its numba kernels, so that the build compiles them. `entry` is its entry point, which must run any other command as it is.
    """

    description: str
    present: tuple[str, ...]
    absent: tuple[str, ...] = ()
    budget_mb: int
    budget_cuda_mb: int = 0
    parent: str = ""
    program: str = ""
    kernels: tuple[str, ...] = ()
    entry: tuple[str, ...] = ()


IMAGES = {
    "base": Image(
        description="CPU steps and launchers: no torch",
        present=("kfp.dsl.executor_main", *STEPS, "tritower.evaluation.step", "xgboost", "spacy"),
        absent=("torch", "sentence_transformers", "transformers", "pyspark"),
        budget_mb=1500,
        kernels=("warm.py",),
    ),
    "train": Image(
        description="embedding, fine-tuning, training and scoring: torch",
        present=("kfp.dsl.executor_main", "torch", "tritower.ranker.step", "tritower.encoder.step"),
        budget_mb=2900,
        budget_cuda_mb=7000,
        parent="base",
    ),
    "serve": Image(
        description="the model server: no kfp, no torch",
        present=("tritower.serving.server", "tritower.serving.holder", "tritower.entities.recognise"),
        absent=("kfp", "torch", "sentence_transformers", "transformers", "kubernetes", "pyspark"),
        budget_mb=1800,
        kernels=("warm.py", "warm_serve.py"),
    ),
    "spark": Image(
        description="ingest, features and candidates on the Spark engine: PySpark and Java 17",
        present=("kfp.dsl.executor_main", *STEPS, "pyspark.sql"),
        absent=("torch", "sentence_transformers", "transformers"),
        budget_mb=2500,
        program=SPARK_QUERY,
        kernels=("warm.py",),
        entry=("python3", "-m", "tritower.cluster.entry"),
    ),
}
DEFAULT = ("base", "train", "serve")


def version() -> str:
    """tritower's version as its package states it."""
    text = (ROOT / "components/tritower/__init__.py").read_text()
    return re.findall(r'__version__ = "(.+)"', text)[0]


@functools.cache  # one build, one name, though the checkout may change meanwhile
def revision() -> str:
    """The commit's short id, with `-dirty` where the working tree differs from it; empty outside a git checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""


def tag() -> str:
    """The immutable image tag: version and commit."""
    if given := os.environ.get("TRITOWER_IMAGE_TAG"):
        return given
    commit = revision()
    if not commit:
        sys.exit(f"git tells no commit of {ROOT}, and images are named after it. Set TRITOWER_IMAGE_TAG to the tag to use.")
    return f"{version()}-{commit}"


def name(image: str) -> str:
    """Full image name."""
    return f"{prefix()}/{image}:{tag()}"


def prefix() -> str:
    """Registry and path before an image's name."""
    return (os.environ.get("TRITOWER_IMAGE_PREFIX") or "tritower").rstrip("/")


# ---------------------------------------------------------------------------------------------------------------- base image


def base_image(images: list[str]) -> None:
    """Make a Debian base image with debootstrap (root, Debian's archive reachable by apt); with Java for `spark`."""
    if os.getuid():
        sys.exit("debootstrap needs root: run this target as root, or pull python:3.11-slim instead")
    must_answer()
    chosen = "spark" if images == ["spark"] else ""
    label, more = LOCAL_BASES[chosen]
    rootfs = OUT / "rootfs"
    shutil.rmtree(rootfs, ignore_errors=True)
    rootfs.parent.mkdir(parents=True, exist_ok=True)
    include = f"--include=python3,python3-venv,ca-certificates{more}"
    run("debootstrap", "--variant=minbase", include, DEBIAN, str(rootfs), *_mirror(), stdout=subprocess.DEVNULL)
    for needless in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(rootfs / needless, ignore_errors=True)
    if chosen:  # Spark asks the system for its user's name and stops where there is none
        with (rootfs / "etc/passwd").open("a") as users:
            users.write("tritower:x:1000:0:tritower:/tmp:/usr/sbin/nologin\n")
    with subprocess.Popen(["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE) as archive:
        run("docker", "import", "--change", 'CMD ["bash"]', "-", label, stdin=archive.stdout)
    shutil.rmtree(rootfs)


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


# --------------------------------------------------------------------------------------------------------------------- build


def build(images: list[str]) -> None:
    """Two layers per image, both from wheelhouse/ without a network: its locked packages, then tritower itself.

    The layer of packages is named after what is in it, so it is built once and shared by all commits with the same lock.
    """
    for image in images:
        packages = _packages(image)
        own = [f"tritower=={version()}"]
        kernels, entry = IMAGES[image].kernels, IMAGES[image].entry
        build_layer(name(image), image, parent=packages, hashed=[], plain=own, kernels=kernels, entry=entry)
        _record(image)
    # The engine keeps the wheels that it was sent, which are of no use in another build.
    prune = ["builder", "prune", "--force", "--filter", "type=source.local"]
    run(builder(), *prune, stdout=subprocess.DEVNULL, env=os.environ | BUILDKIT)


def _record(image: str) -> None:
    """Write the image's full name to build/images/built.json, where `pipelines run --docker` looks for it."""
    partial = BUILT.with_suffix(".partial")
    BUILT.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(_built() | {image: name(image)}, indent=2, sort_keys=True) + "\n")
    partial.replace(BUILT)


def _built() -> dict[str, str]:
    """Image -> the full name under which it was last built here; a record that cannot be read is none."""
    try:
        names: dict[str, str] = json.loads(BUILT.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return names


def _packages(image: str) -> str:
    """Name of the image that holds the locked packages of `image`; built unless it is there."""
    base, parent = _base(image), ""
    hashed, plain = wheels.hashed(image), wheels.locked(image, "plain")
    if IMAGES[image].parent and base == _base(IMAGES[image].parent):
        parent = _packages(IMAGES[image].parent)
        below = wheels.hashed(IMAGES[image].parent)
        hashed = [line for line in hashed if line not in below]
    content = [image_id(parent or base), (ROOT / "images/Dockerfile").read_text(), *hashed, *map(wheels.content, plain)]
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    build = wheels.torch_build(image)
    label = f"{prefix()}/{image}-packages:{build}{build and '-'}{digest}"
    if not image_id(label):
        build_layer(label, image, parent=parent or base, hashed=hashed, plain=plain)
    return label


def _base(image: str) -> str:
    """What an image lies on: as the environment says, or the base that `base-image` made here, or python:3.11-slim."""
    if given := os.environ.get(f"BASE_IMAGE_{image.upper()}") or os.environ.get("BASE_IMAGE"):
        return given
    local, _ = LOCAL_BASES.get(image, LOCAL_BASES[""])
    if image_id(local):
        return local
    if image in LOCAL_BASES:
        sys.exit(f"{image} needs a base with Java 17: run `make image-{image}`, or set BASE_IMAGE_{image.upper()}")
    return "python:3.11-slim"


def build_layer(
    label: str,
    image: str,
    *,
    parent: str,
    hashed: list[str],
    plain: list[str],
    kernels: tuple[str, ...] = (),
    entry: tuple[str, ...] = (),
) -> None:
    """One call of docker build: wheels on top of `parent`."""
    arguments = {"PARENT": parent, "NAME": f"tritower/{image}", "VERSION": version(), "REVISION": revision() or "unknown"}
    arguments |= {"DESCRIPTION": IMAGES[image].description, "TORCH": wheels.torch_build(image) or "none"}
    flags = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    with tempfile.TemporaryDirectory(dir=wheels.WHEELHOUSE) as context:
        place = Path(context)
        for line in (*hashed, *plain):
            wheel = wheels.found(line)
            os.link(wheel, place / wheel.name)
        (place / "requirements.txt").write_text("".join(f"{line}\n" for line in hashed))
        (place / "requirements-plain.txt").write_text("".join(f"{line}\n" for line in plain))
        (place / "warm").mkdir()
        for program in kernels:
            shutil.copy2(ROOT / "images" / program, place / "warm")
        dockerfile = place / "Dockerfile"
        # Here and not in the file, after whose text the layers of packages are named: it is the same for every image.
        last = f"ENTRYPOINT {json.dumps(entry)}\n" if entry else ""
        dockerfile.write_text((ROOT / "images/Dockerfile").read_text() + last)
        given = ["--quiet", "--network", "none", *flags, "-t", label, "-f", str(dockerfile), context]
        run(builder(), "build", *given, env=os.environ | BUILDKIT)


# --------------------------------------------------------------------------------------------------------------------- check


def label(image: str) -> str:
    """The full name under which an image lies on this machine: as TRITOWER_IMAGE_TAG says, or as it was last built."""
    return name(image) if os.environ.get("TRITOWER_IMAGE_TAG") else _built().get(image) or name(image)


def target(image: str) -> str:
    """The command that makes an image."""
    return "make image-spark" if image == "spark" else "make images"


def check(images: list[str]) -> None:
    """Smoke check: imports and absences under a random user id on a read-only root, a program, no entry point, size, SBOM."""
    faults: list[str] = []
    for image in images:
        wanted = IMAGES[image]
        name_here = label(image)
        if not image_id(name_here):
            faults.append(f"{image}: there is no image {name_here} on this machine: run `{target(image)}`")
            continue
        inspected = json.loads(run("docker", "image", "inspect", name_here, capture_output=True).stdout)[0]
        size_mb, build = inspected["Size"] / 1e6, (inspected["Config"].get("Labels") or {}).get("tritower.torch", "none")
        budget_mb = wanted.budget_cuda_mb if build == "cuda" else wanted.budget_mb
        if (inspected["Config"].get("Entrypoint") or []) != list(wanted.entry):
            faults.append(f"{image}: its ENTRYPOINT is not {list(wanted.entry)}: a command would not run as it is")
        if size_mb > budget_mb:
            faults.append(f"{image}: {size_mb:.0f} MB, budget {budget_mb} MB")
        confined = "--network none --read-only --tmpfs /tmp:mode=1777,exec --cap-drop ALL"
        container = ["docker", "run", "--rm", *confined.split()]
        program = ["python3", "-m", "tritower.about", "--present", *wanted.present, "--absent", *wanted.absent, "--sbom"]
        done = subprocess.run([*container, "--user", "24680:0", name_here, *program], capture_output=True, text=True)
        ran = done
        if wanted.program:
            ran = subprocess.run([*container, name_here, "python3", "-c", wanted.program], capture_output=True, text=True)
        if done.returncode or ran.returncode:
            failed = done if done.returncode else ran
            faults += [f"{image}: {line}" for line in failed.stderr.strip().splitlines()[-5:]]
            continue
        place = OUT / f"{image}.sbom.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(done.stdout)
        packages = len(json.loads(done.stdout)["components"])
        works = ", its program runs" if wanted.program else ""
        torch = "" if build == "none" else f" (torch's {build.upper()} build)"
        print(f"{image}: {size_mb:.0f} MB of {budget_mb}{torch}, {packages} packages, imports as expected{works}")
    if faults:
        sys.exit("\n".join(faults))


def audit(images: list[str]) -> None:
    """Write build/images/<image>.audit.json with pip-audit; exit 1 where a package is vulnerable or was not audited.

    pip-audit passes over a package that its source of advisories does not know, and says that nothing was found: a mirror
    without advisories would make every image look well. PIP_AUDIT_SERVICE names another source: `osv` in place of `pypi`.
    """
    program = shutil.which("pip-audit") or sys.exit("pip-audit is not installed: run `make audit`")
    OUT.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    for image in images:
        report = OUT / f"{image}.audit.json"
        report.unlink(missing_ok=True)
        lines = [line.split()[0] for kind in ("", "cuda", "plain") for line in wheels.locked(image, kind)]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
            listing.write("\n".join(lines) + "\n")
            listing.flush()
            source = os.environ.get("PIP_AUDIT_SERVICE", "pypi")
            command = [program, "-r", listing.name, "--no-deps", "--disable-pip", "-s", source, "-f", "json", "-o", str(report)]
            done = subprocess.run([*command, "--progress-spinner=off"], capture_output=True, text=True, check=False)
        if not report.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            sys.exit(f"NOT AUDITED: {image}: the source of advisories ({source}) does not answer: {last}")
        entries = json.loads(report.read_text())["dependencies"]
        skipped = [entry["name"] for entry in entries if "skip_reason" in entry]
        found = [entry for entry in entries if entry.get("vulns")]
        if len(skipped) == len(lines):
            report.unlink()
            sys.exit(f"NOT AUDITED: {image}: the source of advisories ({source}) knows none of its {len(lines)} packages")
        known = f"{len(lines) - len(skipped)} of {len(lines)} packages audited"
        print(f"{image}: {known}, {len(found)} with known vulnerabilities: {report}")
        faults += [f"{image}: {name} was not audited" for name in skipped]
        faults += [
            f"{image}: {entry['name']} {entry['version']}: {', '.join(one['id'] for one in entry['vulns'])}" for entry in found
        ]
    if faults:
        sys.exit("\n".join(faults))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = {"wheelhouse": wheels.fill, "base-image": base_image, "build": build, "check": check, "audit": audit}
    parser.add_argument("verb", choices=[*verbs, "tag"])
    parser.add_argument("images", nargs="*", default=list(DEFAULT))
    given = parser.parse_args()
    if unknown := set(given.images) - set(IMAGES):
        parser.error(f"no image {', '.join(sorted(unknown))}; there are {', '.join(IMAGES)}")
    if given.verb == "tag":
        print(tag())
        return
    if given.verb in ("build", "check"):
        must_answer()
    verbs[given.verb](given.images)


if __name__ == "__main__":
    main()
