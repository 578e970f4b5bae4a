"""What is installed here: `python -m tritower.about [--present M ...] [--absent M ...] [--sbom]`.

Without options it prints the version. An image's smoke check asks which modules import and which must not be found, and
takes the software bill of materials (CycloneDX 1.5 JSON, made from the installed packages' own metadata).
"""

import argparse
import importlib
import importlib.util
import json
import sys
from importlib.metadata import Distribution, distributions

from tritower import __version__


def faults(present: list[str], absent: list[str]) -> list[str]:
    """One line for each module of `present` that does not import and each of `absent` that can be found."""
    found = [f"{name} must not be installed" for name in absent if importlib.util.find_spec(name) is not None]
    for name in present:
        try:
            importlib.import_module(name)
        except ImportError as error:
            found.append(f"{name} does not import: {error}")
    return found


def sbom() -> dict[str, object]:
    """CycloneDX 1.5 document of every installed distribution, sorted by name."""
    parts = [_component(dist) for dist in distributions()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "tritower", "version": __version__}},
        "components": sorted(parts, key=lambda part: str(part["name"])),
    }


def _component(dist: Distribution) -> dict[str, object]:
    name = dist.metadata["Name"].lower()
    part: dict[str, object] = {
        "type": "library",
        "name": name,
        "version": dist.version,
        "purl": f"pkg:pypi/{name}@{dist.version}",
    }
    licence = dist.metadata.json.get("license_expression") or dist.metadata.json.get("license")
    if isinstance(licence, str) and "\n" not in licence:
        part["licenses"] = [{"license": {"name": licence}}]
    return part


def main() -> int:
    """Command line; exit status 1 where an expectation fails."""
    parser = argparse.ArgumentParser(description="What is installed here.")
    parser.add_argument("--present", nargs="*", default=[])
    parser.add_argument("--absent", nargs="*", default=[])
    parser.add_argument("--sbom", action="store_true")
    given = parser.parse_args()
    wrong = faults(given.present, given.absent)
    for line in wrong:
        print(line, file=sys.stderr)
    print(json.dumps(sbom(), indent=1) if given.sbom else f"tritower {__version__}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
