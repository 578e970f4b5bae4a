"""What a job is called, and what says that two manifests are the same."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SPEC_HASH = "tritower.dev/spec-hash"
"""Annotation: digest of the spec that the launcher sent. What an API server or a webhook adds does not change it."""
STEP, RUN = "tritower.dev/step", "tritower.dev/run"
_STEM = 29


def job_name(step: str, run: str, outputs: Mapping[str, str]) -> str:
    """The name of a job: its step, and a hash of the run and of where it writes.

    A launcher that is started again with the same executor input finds its job by it; two tasks of one step in one run write
    to different places and have different names. 40 characters at most, which is Katib's limit; a PyTorchJob's is 50.
    """
    text = json.dumps([run, step, sorted(outputs.items())])
    stem = re.sub(r"[^a-z0-9]+", "-", step.lower()).strip("-")[:_STEM].rstrip("-") or "job"
    return f"{stem if stem[0].isalpha() else 'j' + stem[1:]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def spec_hash(spec: Mapping[str, Any]) -> str:
    """A digest of a spec, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def label(text: str) -> str:
    """The text as a label's value: 63 characters of letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._")
