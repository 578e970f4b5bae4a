"""Raw jobs, impressions and users in; one clean, numbered, time-split dataset folder out."""

import functools
import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tritower import storage, threads
from tritower.config import to_dict
from tritower.engines.protocol import Engine, open_engine, scratch_place
from tritower.errors import ConfigError, DataError, QualityError
from tritower.ingest import dataset as dataset_files
from tritower.ingest import ids, negatives, plan, refusals, repeats, report, rows, tables
from tritower.ingest import quality as quality_measures
from tritower.ingest.config import IngestConfig
from tritower.logs import phase
from tritower.schema import (
    RAW_IMPRESSIONS,
    RAW_JOBS,
    RAW_TABLES,
    RAW_USERS,
    Table,
)

_log = logging.getLogger(__name__)
_PART_ROWS = 4_000_000


def run(
    *,
    jobs: str,
    impressions: str,
    users: str,
    dataset: str | Path,
    config: IngestConfig,
    quality: str | Path = "",
    metrics: str | Path = "",
    store: str = "",
) -> dict[str, float]:
    """Check, deduplicate, split and number raw logs.

    Args:
        jobs: location of the job adverts: a file or a folder of CSV, JSON Lines or Parquet.
        impressions: location of the jobs shown.
        users: location of the users; empty when there is none.
        dataset: folder to write (schema.py describes its files).
        config: the knobs.
        quality: HTML file to write, if any.
        metrics: JSON file for the returned numbers, if any.
        store: location of the dataset in the run's store, where Spark's executors keep their tables in other pods.

    Returns:
        Counts by name.

    Raises:
        SchemaError: a required column is missing.
        DataError: a source is empty or broken, or too short to be split.
        QualityError: too many rows were refused.
        StorageError: a location cannot be read or written.
    """
    threads.cap_libraries()
    uris = {"jobs": jobs, "impressions": impressions} | ({"users": users} if users else {})
    with storage.atomic_directory(dataset) as folder, _open_engine(config, folder, store) as engine:
        plans, views = _plans(uris, config)
        files = {name: _read(engine, RAW_TABLES[name], found, config, views=views) for name, found in plans.items()}
        if not users:
            _no_users(engine)
        counts = _tables(engine, config, views=views)
        examples = _mended(engine, counts, files)
        refusals.check(engine, counts, config, files)
        drawn = _drawn_per_view(config) if views else 0
        summary: dict[str, Any] = {"version": 1, "negatives": drawn, "counts": counts, "config": to_dict(config)}
        with phase(_log, "write") as seen:
            dataset_files.write_quarantine(engine, folder, files)
            summary |= dataset_files.write(engine, folder, config)
            _add_up(summary)
            summary["fingerprint"] = dataset_files.fingerprint(folder)
            seen["rows"] = summary["tables"]["impressions"]
        storage.write_json(folder / "quality.json", _judge(engine, counts, examples, config, quality))
        storage.write_json(folder / "dataset.json", summary)
        engine.close()
        shutil.rmtree(folder / ".scratch", ignore_errors=True)
    numbers = _numbers(summary)
    if metrics:
        storage.write_json(metrics, numbers)
    return numbers


def version(text: str) -> str:
    """The version of the data as it was handed over.

    A schedule has one version for all of its runs, with a word in it that the backend replaces by the run's id. Were the word
    left as it is, every run after the first would take its steps from the cache, whatever the data.

    Raises:
        ConfigError: the word was not replaced.
    """
    if "{{" in text:
        remedy = "This backend does not replace it: give the schedule's runs another version each, or submit them."
        raise ConfigError(f"the data version is still {text!r}, the same for all runs", where="data_version", remedy=remedy)
    return text


def _open_engine(config: IngestConfig, folder: Path, store: str) -> Engine:
    scratch = scratch_place(config.scratch, folder, store, config.engine, config.spark)
    return open_engine(
        config.engine, memory_limit=config.memory_limit, threads=config.threads, scratch=scratch, spark=config.spark
    )


def _plans(uris: dict[str, str], config: IngestConfig) -> tuple[dict[str, plan.Plan], bool]:
    """What is to be read, checked and said; whether the impressions are views."""
    plans = {name: plan.make(RAW_TABLES[name], uri, config) for name, uri in uris.items()}
    views = plan.is_views(plans["impressions"], config)
    plan.announce(plans.values(), views=views, drawn=_drawn_per_view(config))
    for found in plans.values():
        plan.check(found, views=views)
    return plans, views


def _read(engine: Engine, table: Table, source: plan.Plan, config: IngestConfig, *, views: bool) -> list[str]:
    """Check every row of a source into `c_<table>`; return its files by number."""
    with phase(_log, f"read {table.name}") as seen:
        engine.register(f"plan_{table.name}", source.as_table())
        kernel = functools.partial(
            rows.check_rows,
            table=table.name,
            rename=source.rename,
            views=views and table is RAW_IMPRESSIONS,
            skew_us=round(config.max_click_skew_s * 1_000_000),
            longest=config.max_text_characters,
        )
        read = engine.map_batches(f"c_{table.name}", f"SELECT * FROM plan_{table.name}", kernel, rows.checked_schema(table))
        if not read and table is not RAW_USERS:
            raise DataError("no rows", where=source.uri, remedy="Check the export.")
        seen["rows"] = read
    files = {piece["number"]: piece["file"] for piece in source.pieces}
    return [files.get(number, "") for number in range(max(files, default=-1) + 1)]


def _no_users(engine: Engine) -> None:
    engine.register("c_users", rows.checked_schema(RAW_USERS).empty_table())


def _tables(engine: Engine, config: IngestConfig, *, views: bool) -> dict[str, dict[str, Any]]:
    """Build every numbered table; return by raw table: rows in, deduplicated, merged and out, and ids that were respelt."""
    counts: dict[str, dict[str, Any]] = {}
    with phase(_log, "number jobs") as seen:
        counts["jobs"] = {"deduplicated": repeats.unique_rows(engine, RAW_JOBS)}
        tables.number_jobs(engine, config.description_words)
        seen["rows"] = counts["jobs"]["out"] = _count(engine, "n_jobs")
    with phase(_log, "number requests") as seen:
        repeated_users = repeats.unique_rows(engine, RAW_USERS)
        respelt = ids.match(engine)
        tables.known_jobs(engine)
        if views:
            counts["impressions"] = {"deduplicated": tables.unique_views(engine), "merged": 0}
            _draw(engine, config)
            tables.keep_views(engine)
            tables.number_requests(engine)
            tables.add_drawn(engine)
            counts["impressions"]["drawn"] = _count(engine, "drawn")
        else:
            tables.number_requests(engine)
            counts["impressions"] = repeats.unique_impressions(engine) | {"drawn": 0}
        counts["impressions"]["out"] = _count(engine, "u_impressions") - counts["impressions"]["drawn"]
        seen["rows"] = _count(engine, "n_requests")
    with phase(_log, "number users and texts") as seen:
        counts["users"] = {"deduplicated": repeated_users, "out": _count(engine, "u_users")}
        tables.number_users(engine)
        tables.number_texts(engine)
        tables.profile_lists(engine)
        seen["users"], seen["texts"] = _count(engine, "n_users"), _count(engine, "n_texts")
    for name, counted in counts.items():
        counted["in"] = _count(engine, f"c_{name}")
        counted["mended"] = {f"{key}.respelt": rows for key, rows in respelt.items()} if name == "impressions" else {}
    return counts


def _drawn_per_view(config: IngestConfig) -> int:
    return config.negatives or 9


def _draw(engine: Engine, config: IngestConfig) -> None:
    """Name `drawn`: (seq of the view, job). The views are held as five integers each: 40 bytes a view."""
    views = pa.Table.from_batches(engine.stream("SELECT seq, ts, viewer, job, job_region, near FROM views", order_by="ts, seq"))
    columns = {name: views[name].to_numpy() for name in views.column_names}
    count = _drawn_per_view(config)
    drawn_NK = negatives.draw(
        user_N=columns["viewer"],
        job_N=columns["job"],
        ts_N=columns["ts"],
        job_region_N=columns["job_region"],
        near_N=columns["near"],
        count=count,
        window_us=int(config.negatives_window_d * 86_400_000_000),
        seed=config.seed,
    )
    full = drawn_NK[:, -1] >= 0
    table = pa.table({"seq": np.repeat(columns["seq"][full], count), "job": drawn_NK[full].ravel()})
    engine.register("drawn", table)


def _count(engine: Engine, name: str) -> int:
    return int(engine.rows(f"SELECT count(*) AS n FROM {name}")[0]["n"])


def _mended(engine: Engine, counts: dict[str, dict[str, Any]], files: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """Count the values that were not taken as they stand, and say so; return an example of each."""
    examples: dict[str, dict[str, str]] = {}
    for name in files:
        found = refusals.mended(engine, name, files[name])
        counts[name]["mended"] |= {code: mend.rows for code, mend in found.items()}
        examples[name] = {code: mend.example for code, mend in found.items()}
        counted = counts[name]["mended"]
        if counted:
            _log.info("%s, values mended: %s", name, ", ".join(f"{code} {rows:,}" for code, rows in counted.items()))
        for code, mend in found.items():
            if code.rpartition(".")[2] in refusals.UNREADABLE:
                message = "%s: %s is taken for missing in %s of %s rows; the first: %s"
                _log.warning(message, name, code, f"{mend.rows:,}", f"{counts[name]['in']:,}", mend.example)
    merged = counts["impressions"]["merged"]
    if merged:
        _log.info("impressions, rows merged with another of the same request and job: %s", f"{merged:,}")
    return examples


def _judge(
    engine: Engine,
    counts: dict[str, dict[str, Any]],
    examples: dict[str, dict[str, str]],
    config: IngestConfig,
    quality: str | Path,
) -> dict[str, Any]:
    """Measure the data, write the report, and stop when a measure is beyond its limit; return the measures."""
    measured = quality_measures.measure(engine, counts) | {"examples": examples}
    before = None
    if config.previous:
        before = _previous_measures(config.previous)
        measured["new_companies"] = quality_measures.new_companies(engine, f"{config.previous.rstrip('/')}/jobs.parquet")
    findings = quality_measures.compare(measured, before, config)
    measured["findings"] = [asdict(finding) for finding in findings]
    if quality:
        # Written first: whoever is stopped wants to see by what.
        storage.write_text(quality, report.html(measured, before, findings))
    _log.info("%s", report.verdict(counts, findings))
    beyond = [f"{finding.name} {finding.value:.1%} ({finding.limit})" for finding in findings if finding.is_beyond]
    if beyond:
        raise QualityError(
            f"{len(beyond)} measures are beyond their limits: {'; '.join(beyond)}",
            where="data quality",
            remedy="Look into the source, or change the limits: max_repeated_share, max_missing_rise, max_ctr_change,"
            " max_new_company_share.",
        )
    return measured


def _previous_measures(previous: str) -> dict[str, Any]:
    store, path = storage.filesystem(f"{previous.rstrip('/')}/quality.json")
    with storage.reading(previous), store.open_input_stream(path) as stream:
        measured: dict[str, Any] = json.loads(stream.read())
    return measured


def _add_up(summary: dict[str, Any]) -> None:
    for name, counted in summary["counts"].items():
        out = counted["out"] + counted["quarantined"] + counted["deduplicated"] + counted.get("merged", 0)
        assert counted["in"] == out, f"{name}: {counted['in']} rows in, {out} accounted for"
    shown = summary["counts"]["impressions"]
    assert summary["tables"]["impressions"] == shown["out"] + shown["drawn"]
    assert summary["tables"]["jobs"] == summary["counts"]["jobs"]["out"]


def headline(numbers: dict[str, float]) -> dict[str, float]:
    """The figures for a backend's page, which shows ten by name, of what `run` returns."""
    names = {f"{name}_{kind}": f"{name}_{kind}" for name in ("impressions", "jobs", "users") for kind in ("in", "out")}
    names |= {f"{name}_refused": f"{name}_quarantined" for name in ("impressions", "jobs", "users")}
    return {name: numbers[key] for name, key in sorted((names | {"searches": "requests"}).items())}


def _numbers(summary: dict[str, Any]) -> dict[str, float]:
    numbers = {
        f"{name}_{kind}": counted[kind]
        for name, counted in summary["counts"].items()
        for kind in ("in", "out", "quarantined", "deduplicated")
    }
    numbers |= {f"{split}_impressions": found["impressions"] for split, found in summary["splits"].items()}
    return numbers | {"requests": summary["tables"]["requests"], "texts": summary["tables"]["texts"]}
