"""Deploy a bundle that the gate let pass, or write what would be applied."""

import logging
from pathlib import Path

import yaml

from tritower import storage
from tritower.deploy import manifests
from tritower.deploy import release as releases
from tritower.deploy.config import KINDS, SERVERLESS, DeployConfig
from tritower.errors import ConfigError

logger = logging.getLogger(__name__)


def check_gate(gate: str, *, force: bool, by: str, why: str) -> None:
    """Refuse what the gate holds, unless somebody answers for it.

    Args:
        gate: `pass` or `hold`; empty = nobody judged it, which counts as `hold`.
        force: deploy it all the same.
        by: who says so.
        why: and why; both are needed to force, and go into the record.

    Raises:
        ConfigError: it is not let through.
    """
    if gate not in ("pass", "hold", ""):
        raise ConfigError(f"the gate says {gate!r}", where="gate", remedy="Give pass or hold.")
    if force and not (by and why):
        raise ConfigError("a forced deploy says who forces it and why", where="force", remedy="Give both: by and why.")
    if gate != "pass" and not force:
        said = "the gate holds" if gate else "no gate has judged this bundle"
        raise ConfigError(f"{said}: nothing is deployed", where="gate",
                          remedy="Look at the report; to deploy it all the same give force, by and why.")  # fmt: skip


def run(
    *,
    bundle: str,
    gate: str,
    config: DeployConfig,
    force: bool = False,
    by: str = "",
    why: str = "",
    run: str = "",
) -> str:
    """Bring a bundle to serve; what was done, in words.

    Args:
        bundle: its location.
        gate: the evaluation's verdict, `pass` or `hold`.
        config: where and how; with the launcher `none` nothing is done, and that is said.
        force, by, why: see `check_gate`.
        run: id of the pipeline's run, for the record.

    Raises:
        ConfigError: the gate holds, or a knob is wrong.
        StorageError: the bundle cannot be read.
        LaunchError: something is missing on the cluster, or the new version is not fit to serve.
    """
    if config.launcher == "none":
        return _said("nothing is deployed: the launcher is none")
    if gate == "hold" and not force:
        # A run whose gate holds has done its work: the step says so, and what serves serves on.
        return _said("the gate holds: what serves serves on")
    check_gate(gate, force=force, by=by, why=why)
    from tritower.deploy.rollout import Rollout

    known = releases.read(bundle, config.questions)
    return _said(Rollout(config).deploy(known, gate=gate, by=by, why=why, run=run))


def write(bundle: str, config: DeployConfig, folder: Path) -> list[Path]:
    """Write what would be applied as YAML, for GitOps; the paths. No cluster is asked.

    Args:
        bundle: its location.
        config: with namespace and image; the launcher is kserve, deployment, or serverless (KServe with Knative, where a
            canary is a field).
        folder: gets a file for each object.
    """
    known = releases.read(bundle, config.questions)
    for knob in ("namespace", "image"):
        if not getattr(config, knob):
            raise ConfigError(f"no {knob} is named", where=knob, remedy="Name one: no cluster is asked for it.")
    if config.launcher == SERVERLESS:
        items = [manifests.serverless(known, config)]
    elif config.launcher in KINDS:
        one = manifests.of(known, config, config.launcher)
        items = [*one.objects, *manifests.shared(config), manifests.service(config, one.name)]
        items += [manifests.route(config, {one.deployment: 100})] if config.gateway else []
    else:
        words = ", ".join((*KINDS, SERVERLESS))
        problem = f"no manifests are written with the launcher {config.launcher}"
        raise ConfigError(problem, where="launcher", remedy=f"Use {words}.")
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        paths.append(folder / f"{item['kind'].lower()}-{item['metadata']['name']}.yaml")
        storage.write_text(paths[-1], yaml.safe_dump(item, sort_keys=False, width=120))
    return paths


def _said(text: str) -> str:
    logger.info("%s", text)
    return text
