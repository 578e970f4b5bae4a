"""The tuning step on one machine: features and embeddings in, the best knobs and a report out."""

import logging
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from tritower import logs, storage
from tritower.storage import staging
from tritower.tuning import plots, search
from tritower.tuning.config import TuningConfig

_log = logging.getLogger(__name__)


def run(
    *,
    features: str | Path,
    embeddings: str | Path,
    best: str | Path,
    report: str | Path,
    config: TuningConfig,
    module: str = "tritower.ranker",
) -> dict[str, float]:
    """Search the space, or go on with an interrupted search.

    Args:
        features: location of the features step's folder, for every trial.
        embeddings: location of the embed step's folder, likewise.
        best: location of the JSON file to write: knobs (fixed and found, as the ranker's config), metric, untuned, trials.
        report: location of the HTML file to write: history, parallel coordinates, every trial.
        config: the space and how to search it.
        module: the tuned step's entry point; see `trial.run`.

    Returns:
        best, untuned, trials, pruned, failed.

    Raises:
        StepError: more than `max_failed` trials failed.
    """
    read, written = {"features": str(features), "embeddings": str(embeddings)}, {"best": str(best), "report": str(report)}
    with staging.staged(read, written) as places:
        inputs = {name: str(places[name]) for name in read}  # fetched once for all trials
        return _searched(config, module, inputs, places["best"], places["report"])


def _searched(config: TuningConfig, module: str, inputs: dict[str, str], best: Path, report: Path) -> dict[str, float]:
    """See `run`; all places are on this machine."""
    with tempfile.TemporaryDirectory(prefix="tuning-") as work, logs.phase(_log, "tune") as counts:
        kept = storage.local_path(config.storage) if config.storage else Path(work) / "study.db"
        study = search.open_study(kept, config, module)
        untuned = search.run(study, config, module=module, inputs=inputs, work=Path(work))
        found, value = search.best(study, untuned, config)
        trials = search.table(study)
        counts["trials"] = len(trials)
    states = [item["state"] for item in trials]
    numbers: dict[str, float] = {
        "best": value,
        "untuned": untuned,
        "trials": len(trials),
        "pruned": states.count("pruned"),
        "failed": states.count("fail"),
    }
    storage.write_json(best, {"knobs": {**(config.fixed or {}), **found}, **numbers, "history": trials})
    storage.write_text(report, _page(trials, found, numbers, config))
    return numbers


def knobs(best: str | Path) -> dict[str, Any]:
    """The best knobs that `run` left, as the tuned step's config takes them."""
    found: dict[str, Any] = storage.read_json(best)["knobs"]
    return found


def _page(trials: list[dict[str, Any]], found: dict[str, str], numbers: dict[str, float], config: TuningConfig) -> str:
    maximize = config.goal == "maximize"
    gained = f"{config.metric} {numbers['best']:.5f} against {numbers['untuned']:.5f} with the defaults"
    template = resources.files("tritower.tuning").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        verdict=f"The search found better knobs: {gained}." if found else f"No trial beat the defaults ({gained}).",
        counts=f"{numbers['trials']} trials, {numbers['pruned']} stopped early, {numbers['failed']} failed.",
        best=found,
        metric=config.metric,
        names=[parameter.name for parameter in config.space],
        trials=trials,
        history=plots.history(trials, numbers["untuned"], config.metric, maximize=maximize),
        parallel=plots.parallel(trials, config.space, config.metric, maximize=maximize),
    )
