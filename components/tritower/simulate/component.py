"""The simulate step as a KFP component."""

from typing import Any

from kfp.dsl import Dataset, Metrics, Output

from tritower._build import component


@component("base")
def simulate(log: Output[Dataset], metrics: Output[Metrics], config: dict[str, Any] = {}) -> None:
    """Writes the log of a simulated job board, with the true click probability of every row.

    Args:
        log: A folder with jobs.parquet, users.parquet, impressions/, truth/ and world/.
        metrics: Row counts and the click rate.
        config: Knobs of SimulateConfig.
    """
    from tritower.config import from_dict
    from tritower.simulate import step
    from tritower.simulate.config import SimulateConfig

    facts = step.run(out=log.path, config=from_dict(SimulateConfig, config))
    for name, value in facts.items():
        metrics.log_metric(name, value)
    log.metadata.update(config=config, rows=facts["impressions"])
