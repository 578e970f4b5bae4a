"""`serve`: the last run of a demo, or of `run --local`, as a server with a page."""

import json
import os
import sys
from pathlib import Path

from tritower.errors import StorageError

_STEP = {
    "model": "ranker/ranker_model",
    "encoder": "finetune/encoder",
    "dataset": "ingest/dataset",
    "embeddings": "embed/embeddings",
    "features": "features/features",
    "state": "features/state",
    "entities": "entities/entities",
    "baseline": "baseline/baseline_model",
}
"""What a bundle is made of: step and output, as the local runner names their folders."""
_OPTIONAL = ("entities", "baseline")


def run(out: Path, *, port: int) -> None:
    """Make the bundle of the newest run below a folder, unless it is there, and serve it until it is stopped.

    Args:
        out: the folder of the demo.
        port: on loopback; 0 = one that is free.

    Raises:
        StorageError: no run has left what a bundle needs.
        ArtifactError: what was found is not of one run.
    """
    folders = newest(out)
    bundle = out / "bundle"
    if not (bundle / "bundle.json").exists() or changed(bundle / "bundle.json") < max(map(changed, folders.values())):
        from tritower.serving import bundling

        print(f"Making the bundle of the last run: {bundle}", flush=True)
        bundling.write(bundling.Sources(**folders), bundle)
    sys.stdout.flush()
    # A demo's log has ended: as of now all its adverts have expired.
    config = json.dumps({"as_of": "last_event"})
    command = ["-m", "tritower.serving", "serve", "--bundle", str(bundle.absolute()), "--port", str(port), "--config", config]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - this very interpreter, which the shell then stops


def newest(out: Path) -> dict[str, Path]:
    """The newest folder of each kind below a demo's folder; steps that a run took from the cache lie with an older run.

    Raises:
        StorageError: one is missing.
    """
    folders = {}
    for name, output in _STEP.items():
        found = list((out / "run" / "artifacts").glob(f"*/{output}"))
        if found:
            folders[name] = max(found, key=changed)
        elif name not in _OPTIONAL:
            where = str(out / "run" / "artifacts" / "*" / output)
            raise StorageError(
                "no run has ended here", where=where, remedy="Run `make demo` first, or name its folder by --out."
            )
    return folders


def changed(path: Path) -> float:
    """When it was last written, in seconds since 1970."""
    return path.stat().st_mtime
