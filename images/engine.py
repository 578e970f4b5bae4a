"""The programs that a build calls: Docker, with BuildKit, and debootstrap. What is missing is named, with its remedy."""

import os
import re
import shutil
import subprocess
import sys

NEEDED = {
    "docker": "Docker Engine 20.10 or newer with BuildKit: Debian 12's package docker.io (20.10.24), or docker-ce and "
    "docker-buildx-plugin from Docker, or docker.io and docker-buildx elsewhere",
    "debootstrap": "debootstrap (tried: Debian 12's, 1.0.128): apt-get install debootstrap",
    "pip-audit": "pip-audit: `make audit` installs it",
}
# The client's own builder, which sees the engine's images; another one may be the user's default.
BUILDKIT = {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command (never through a shell), echoed; a failure ends the program with the command's own output above."""
    print("+", " ".join(command), flush=True)
    try:
        return subprocess.run(command, check=True, text=True, **options)  # type: ignore[call-overload,no-any-return]
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not installed. Needed is {NEEDED.get(command[0], command[0])}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{command[0]} ended with {error.returncode}")


def must_answer() -> None:
    """End the program where no Docker engine answers."""
    if not shutil.which("docker"):
        sys.exit(f"docker is not installed. Needed is {NEEDED['docker']}")
    done = subprocess.run(["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"no Docker engine answers: {last}\nStart it (systemctl start docker, or .ci/docker), or set DOCKER_HOST.")


def builder() -> str:
    """The first docker client on PATH that can build with BuildKit, under the environment BUILDKIT.

    Clients before 23 have it built in; later ones leave it to the plugin buildx, and without the plugin to a builder that is
    to be removed, copies every stage and leaves them behind.
    """
    for folder in os.get_exec_path():
        program = shutil.which("docker", path=folder)
        if program and (_says(program, "buildx", "version") or 18 < _major(program) < 23):
            return program
    sys.exit(f"no docker client here can use BuildKit. Needed is {NEEDED['docker']}")


def _major(program: str) -> int:
    found = re.search(r"version (\d+)\.", _says(program, "--version"))
    return int(found[1]) if found else 0


def _says(*command: str) -> str:
    """Standard output of a command; empty where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def image_id(label: str) -> str:
    """The id of an image on this machine; empty where it is not."""
    return _says("docker", "image", "inspect", "-f", "{{.Id}}", label)
