"""KFP interface of deploy: a bundle comes to serve on the cluster."""

from typing import Any

from tritower._build import component


@component("base")
def deploy(
    bundle: str,
    gate: str = "",
    config: dict[str, Any] = {},
    force: bool = False,
    by: str = "",
    why: str = "",
    run: str = "",
) -> str:
    """Bring a bundle to serve on the cluster, if the gate let it pass; says what was done.

    Args:
        bundle: Location of the bundle, which every pod must be able to open.
        gate: The evaluation's verdict, "pass" or "hold".
        config: Knobs of DeployConfig; nothing is deployed while `launcher` is none.
        force: Deploy it although the gate holds; goes into the record with the two below.
        by: Who forces it.
        why: Why it is forced.
        run: Id of the run, for the record.
    """
    from tritower.config import from_dict
    from tritower.deploy import step
    from tritower.deploy.config import DeployConfig

    knobs = from_dict(DeployConfig, config, where="settings_deploy")
    return step.run(bundle=bundle, gate=gate, config=knobs, force=force, by=by, why=why, run=run)
