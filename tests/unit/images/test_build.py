"""images/build.py where no Docker engine is needed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def audit(folder: Path, service: str) -> subprocess.CompletedProcess[str]:
    """Run the audit of the image serve with a pip-audit of the test's own, whose `service` is a Python function body."""
    program = folder / "pip-audit"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "options = dict(zip(sys.argv[1:], sys.argv[2:]))\n"
        "names = [line.split('==') for line in open(options['-r']).read().split()]\n"
        f"{service}\n"
        "json.dump({'dependencies': [dict(name=n, version=v, **about(n)) for n, v in names]}, open(options['-o'], 'w'))\n"
    )
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = [sys.executable, "images/build.py", "audit", "serve"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("sys.exit('Name or service not known')", "NOT AUDITED: serve: .*does not answer: Name or service not known"),
        ("def about(name): return {'skip_reason': 'not found'}", "NOT AUDITED: serve: .*knows none of its"),
        (
            "def about(name): return {'skip_reason': 'x'} if name == 'numpy' else {'vulns': []}",
            "^serve: numpy was not audited$",
        ),
        ("def about(name): return {'vulns': [{'id': 'CVE-1'}] if name == 'minio' else []}", r"^serve: minio [\d.]+: CVE-1$"),
    ],
    ids=["silent", "empty", "gap", "found"],
)
def test_an_audit_that_says_nothing_is_not_a_pass(service: str, said: str, tmp_path: Path) -> None:
    done = audit(tmp_path, service)
    assert done.returncode == 1
    assert re.search(said, done.stderr.strip()), done.stderr


def test_a_clean_audit_passes_and_leaves_its_report(tmp_path: Path) -> None:
    done = audit(tmp_path, "def about(name): return {'vulns': []}")
    assert done.returncode == 0, done.stderr
    report = Path(done.stdout.strip().rpartition(": ")[2])
    assert len(json.loads(report.read_text())["dependencies"]) > 50
    report.unlink()


def test_packages_of_train_are_those_of_base_and_more() -> None:
    base, train = ((ROOT / "images" / image / "requirements.txt").read_text().splitlines() for image in ("base", "train"))
    assert set(base) < set(train)  # the build puts train's packages on top of base's
