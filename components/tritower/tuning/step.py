"""The tuning step: features and embeddings in, the best knobs and a report out."""

import contextlib
import dataclasses
import logging
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tritower import logs, storage
from tritower.errors import StepError
from tritower.pages import page
from tritower.storage import staging
from tritower.tuning import launched, plots, search
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
    launcher: str = "local",
    cluster: Mapping[str, Any] | None = None,
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
        launcher: `local`, or one of `searches.LAUNCHERS`: trials in pods, which read features and embeddings from a store.
        cluster: that launcher's settings.

    Returns:
        best, untuned, trials, pruned, failed.

    Raises:
        StepError: all trials failed, or more than `max_failed`.
    """
    read, written = {"features": str(features), "embeddings": str(embeddings)}, {"best": str(best), "report": str(report)}
    with logs.phase(_log, "tune") as counts, contextlib.ExitStack() as held:
        if launcher == "local":
            kept = held.enter_context(storage.kept(artifact_uri or best, config.storage))
            places = held.enter_context(staging.staged(read, written))
            inputs = {name: str(places[name]) for name in read}  # fetched once for all trials
            trials, untuned = _searched(config, module, inputs, kept)
        else:
            place = artifact_uri or str(best)
            trials, untuned = launched.run(config, module=module, inputs=read, place=place, launcher=launcher, cluster=cluster)
            places = held.enter_context(staging.staged({}, written))
        counts["trials"] = len(trials)
        return _left(trials, untuned, config, best=places["best"], report=places["report"])


def _searched(config: TuningConfig, module: str, inputs: dict[str, str], kept: str) -> tuple[list[dict[str, Any]], float]:
    """The trials and the metric of the defaults; all places but `kept` are on this machine."""
    with tempfile.TemporaryDirectory(prefix="tuning-") as work:
        file, keep = _kept_study(kept, Path(work), config)
        study = search.open_study(file, config, module)
        untuned = search.run(study, config, module=module, inputs=inputs, work=Path(work), keep=keep)
        return search.table(study), untuned


def _left(trials: list[dict[str, Any]], untuned: float, config: TuningConfig, *, best: Path, report: Path) -> dict[str, float]:
    """Write what was found; the figures."""
    states = [item["state"] for item in trials]
    if states and set(states) == {"fail"}:
        raise StepError(f"all {len(states)} trials failed", where="tuning", remedy="The log says why each of them did.")
    found, value = _best(trials, untuned, config)
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


def _best(trials: list[dict[str, Any]], untuned: float, config: TuningConfig) -> tuple[dict[str, str], float]:
    """The best knobs as text and their metric; no knobs where no trial beat the step's own defaults."""
    sign = 1 if config.goal == "maximize" else -1
    complete = [item for item in trials if item["value"] is not None]
    first = max(complete, key=lambda item: sign * float(item["value"]), default=None)
    if first and sign * first["value"] > sign * untuned:
        return dict(first["params"]), float(first["value"])
    return {}, untuned


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
