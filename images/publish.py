"""Push images to a registry and compile the pipelines for them: `python images/publish.py REGISTRY [image ...]`.

The YAML names each image by tag and digest (`registry/path/base:0.1.0-abc@sha256:...`): what runs is what was pushed, even if
somebody moves the tag later. `build/published/` gets `images.json` (image -> that name), the pipelines in every flavour and
the components; nothing is written there before all images are pushed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import build
from engine import image_id, must_answer, run

OUT = build.ROOT / "build/published"
_REGISTRY = re.compile(r"[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9][a-z0-9._-]*)*")


def publish(registry: str, images: list[str], out: Path = OUT) -> None:
    """Push what was built last, or what TRITOWER_IMAGE_PREFIX and TRITOWER_IMAGE_TAG name, then compile."""
    if not _REGISTRY.fullmatch(registry):
        sys.exit(f"{registry!r} is no registry: give host and path without https://, such as registry.example.org/team")
    must_answer()
    local = {image: build.label(image) for image in images}
    if missing := [image for image, label in local.items() if not image_id(label)]:
        sys.exit(f"there is no image {local[missing[0]]} on this machine: run `{build.target(missing[0])}`")
    if len(tags := {label.rpartition(":")[2] for label in local.values()}) > 1:
        sys.exit(f"the images are of several commits ({', '.join(sorted(tags))}): run `make images` again")
    names = {image: _pushed(label, f"{registry}/{image}") for image, label in local.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / "images.json").write_text(json.dumps(names, indent=2, sort_keys=True) + "\n")
    own = {"TRITOWER_IMAGES": str(partial / "images.json")}
    run(sys.executable, "-m", "pipelines", "compile", "--all", "--out", str(partial), env=os.environ | own, cwd=build.ROOT)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    print(f"python -m pipelines publish {' '.join(str(file) for file in sorted(out.glob('kfp/*.yaml')))}")


def _pushed(label: str, repository: str) -> str:
    """Push a local image; its name in the registry, with tag and digest."""
    name = f"{repository}:{label.rpartition(':')[2]}"
    run("docker", "tag", label, name)
    run("docker", "push", "--quiet", name, stdout=subprocess.DEVNULL)
    digests = json.loads(run("docker", "image", "inspect", "-f", "{{json .RepoDigests}}", name, capture_output=True).stdout)
    digest = next(one.partition("@")[2] for one in digests if one.startswith(f"{repository}@"))
    return f"{name}@{digest}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("registry", help="host and path, such as registry.example.org/team")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to replace (build/published)")
    parser.add_argument("images", nargs="*", default=["base", "train"])
    given = parser.parse_args()
    if unknown := set(given.images) - set(build.IMAGES):
        parser.error(f"no image {', '.join(sorted(unknown))}; there are {', '.join(build.IMAGES)}")
    publish(given.registry.rstrip("/"), given.images, given.out.absolute())


if __name__ == "__main__":
    main()
