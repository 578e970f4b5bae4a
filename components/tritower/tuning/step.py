"""The tuning step on one machine: features and embeddings in, the best knobs and a report out."""

import contextlib
import dataclasses
import logging
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tritower import logs, storage
from tritower.pages import page
from tritower.storage import staging
from tritower.tuning import plots, search
from tritower.tuning.config import TuningConfig

_log = logging.getLogger(__name__)
_STUDY = "study.db"


def run(
    *,
    features: str | Path,
    embeddings: str | Path,
    best: str | Path,
    report: str | Path,
    config: TuningConfig,
    module: str = "tritower.ranker",
    artifact_uri: str = "",
) -> dict[str, float]:
    """Search the space, or go on with an interrupted search, when it is started again with the same `artifact_uri`.

    Args:
        features: location of the features step's folder, for every trial.
        embeddings: location of the embed step's folder, likewise.
        best: location of the JSON file to write: knobs (fixed and found, as the ranker's config), metric, untuned, trials.
        report: location of the HTML file to write: history, parallel coordinates, every trial.
        config: the space and how to search it.
        module: the tuned step's entry point; see `trial.run`.
        artifact_uri: where `best` will be kept in the end; the study is kept beside it, after each trial, unless the config
            names a file. Empty for `best` itself.

    Returns:
        best, untuned, trials, pruned, failed.

    Raises:
        StepError: more than `max_failed` trials failed.
    """
    read, written = {"features": str(features), "embeddings": str(embeddings)}, {"best": str(best), "report": str(report)}
    with storage.kept(artifact_uri or best, config.storage) as kept, staging.staged(read, written) as places:
        inputs = {name: str(places[name]) for name in read}  # fetched once for all trials
        return _searched(config, module, inputs, places["best"], places["report"], kept)


def _searched(
    config: TuningConfig, module: str, inputs: dict[str, str], best: Path, report: Path, kept: str
) -> dict[str, float]:
    """See `run`; all places but `kept` are on this machine."""
    with tempfile.TemporaryDirectory(prefix="tuning-") as work, logs.phase(_log, "tune") as counts:
        file, keep = _kept_study(kept, Path(work), config)
        study = search.open_study(file, config, module)
        untuned = search.run(study, config, module=module, inputs=inputs, work=Path(work), keep=keep)
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
    _log.info("%s", _verdict(found, numbers, config))
    storage.write_text(report, page.html(_page(trials, found, numbers, config)))
    return numbers


def _kept_study(kept: str, work: Path, config: TuningConfig) -> tuple[Path, Callable[[], None]]:
    """The file of the study on this machine, and what sends a copy of it to `kept`, where that is in a store.

    SQLite needs a disk, so a store holds copies: what an attempt finds there, it goes on with.
    """
    if config.storage:
        return storage.local_path(config.storage), lambda: None
    if kept and storage.is_local(kept):
        return storage.local_path(kept) / _STUDY, lambda: None
    file, location = work / _STUDY, f"{kept}/{_STUDY}"
    if kept:
        storage.patiently(lambda: storage.fetch(location, file) if storage.names(location) else None)

    def keep() -> None:
        copy = work / f"copy-{_STUDY}"
        with contextlib.closing(sqlite3.connect(file)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)  # other trials may write at the same time
        storage.tried(lambda: storage.upload(copy, location), "the study")

    return file, keep if kept else lambda: None


def with_plain(config: TuningConfig, fixed: dict[str, Any], plain: dict[str, int]) -> TuningConfig:
    """The config with more knobs fixed: those of `fixed`, then those of `plain` that are not 0 and that nothing else names.

    A knob is known by the last part of its name, as the ranker takes `training.epochs` and `epochs`.
    """
    given = {**fixed, **(config.fixed or {})}
    inner = {name for value in given.values() if isinstance(value, dict) for name in value}
    named = {name.rpartition(".")[2] for name in (*given, *inner, *(parameter.name for parameter in config.space))}
    more = {name: value for name, value in plain.items() if value and name not in named}
    return dataclasses.replace(config, fixed={**more, **given})


def knobs(best: str | Path) -> dict[str, Any]:
    """The best knobs that `run` left, as the tuned step's config takes them."""
    found: dict[str, Any] = storage.read_json(best)["knobs"]
    return found


def _page(trials: list[dict[str, Any]], found: dict[str, str], numbers: dict[str, float], config: TuningConfig) -> page.Page:
    maximize, metric = config.goal == "maximize", page.spoken(config.metric)
    names = [parameter.name for parameter in config.space]
    rows = [
        [
            str(item["number"]),
            item["state"],
            "-" if item["value"] is None else f"{item['value']:.5f}",
            "-" if item["seconds"] is None else f"{item['seconds']}",
            *(_short(item["params"].get(name, "-")) for name in names),
        ]
        for item in trials
    ]
    columns = ["trial", "state", metric, "seconds", *(page.spoken(name) for name in names)]
    knobs_found = page.Table(
        columns=["setting", "value"], rows=[[page.spoken(k), _short(v)] for k, v in found.items()], text_columns=2
    )
    drawn = [
        plots.history(trials, numbers["untuned"], config.metric, maximize=maximize),
        plots.parallel(trials, config.space, config.metric, maximize=maximize),
    ]
    return page.Page(
        name="Tuning",
        verdict=_verdict(found, numbers, config),
        tone="good" if found else "",
        lines=[f"{numbers['trials']} trials, {numbers['pruned']} stopped early, {numbers['failed']} failed."],
        sections=[
            page.Section(title="Better settings", blocks=[knobs_found], is_open=True),
            page.Section(title="The search", blocks=[page.Plots(plots=drawn)], is_open=True),
            page.Section(title="Trials", blocks=[page.Table(columns=columns, rows=rows)]),
        ],
    )


def _short(value: str) -> str:
    """A value as text, of a number the digits that matter."""
    with contextlib.suppress(ValueError):
        return f"{float(value):.4g}"
    return value


def _verdict(found: dict[str, str], numbers: dict[str, float], config: TuningConfig) -> str:
    gained = f"{page.spoken(config.metric)} {numbers['best']:.5f} against {numbers['untuned']:.5f} with the defaults"
    return f"Found better settings: {gained}" if found else f"Kept the defaults: no trial beat them ({gained})"
