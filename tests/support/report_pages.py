"""Every step's report, of made figures and of texts as bad as a log may hold."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tritower import schema
from tritower.encoder import report as encoder
from tritower.evaluation import step as evaluation
from tritower.evaluation.config import EvaluationConfig
from tritower.ingest import report as ingest
from tritower.ingest.quality import Finding
from tritower.pages import page
from tritower.recommend import report as recommend
from tritower.tuning import step as tuning
from tritower.tuning.config import SPACE, TuningConfig
from tritower.tuning.plots import height

from tests.support import evaluation_log

TEXTS = ("Registered nurse", "W" * 300, "<b>bold</b> & co", "ممرض في دبي", "日本語" * 40, "senior-" * 30, "one\ntwo")


def every(folder: Path) -> dict[str, str]:
    """Step -> its page; `folder` is for the evaluated log."""
    root = evaluation_log.write_log(folder / "log", requests=700)
    evaluation.run(
        dataset=root / "dataset",
        features=root / "features",
        scores=root / "model",
        **{f"scores_{name}": root / "baseline_cos" for name in ("baseline", "baseline_full", "champion")},
        truth=str(root / "truth"),
        metrics=folder / "metrics.json",
        report=folder / "report.html",
        config=EvaluationConfig(remark="A remark of one long word: " + "x" * 200, min_searches=10, browse=3),
    )
    return {
        "evaluation": (folder / "report.html").read_text(),
        "encoder": page.html(encoder.whole(_fine_tuning())),
        "ingest": ingest.html(*_quality()),
        "tuning": page.html(_search()),
        "recommend": recommend.html(_recommendations(), {"searches": 40, "recommendations": 240, "without": 2}),
    }


def _fine_tuning() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    before = {name: 0.5 + number / 100 for number, name in enumerate(encoder.MEASURES)}
    vectors = rng.normal(size=(2, 70, 8)).astype(np.float32)
    return {
        **{"accepted": True, "verdict": "Kept the fine-tuned encoder", "requests": 500, "randomised": True, "documents": 70},
        **{"clicks": 900, "triplets": 1800, "steps": 56, "seconds": 12.3, "resumed_at": 7},
        **{"before": before, "after": {name: value + 0.01 for name, value in before.items()}},
        "loss_plot": encoder.loss_plot(rng.random(200).tolist()),
        "map_plots": encoder.map_plots(*vectors, [TEXTS[i % len(TEXTS)] for i in range(70)]),
        "neighbours": [{"query": text, "before": TEXTS[:5], "after": TEXTS[2:]} for text in TEXTS],
        "settings": {"learning_rate": 2e-5, "negatives_per_click": 2, "title_similarity": "/very/long/path" * 20},
    }


def _quality() -> tuple[dict[str, Any], dict[str, Any], list[Finding]]:
    counted = {"in": 1_234_567, "out": 1_200_000, "quarantined": 34_000, "deduplicated": 567, "merged": 0}
    counted |= {"reasons": {"missing_value": 34_000}, "mended": dict.fromkeys(TEXTS, 12_345)}
    names = ("jobs", "impressions", "users")
    measured = {
        "counts": dict.fromkeys(names, counted),
        "examples": {"jobs": {text: text for text in TEXTS}},
        "companies": 3,
        "missing": {name: {column.name: 0.3 for column in schema.RAW_TABLES[name].columns} for name in names},
        "days": [{"day": f"2026-01-{day:02}", "impressions": 50_000 + day, "clicks": 100} for day in range(1, 30)],
    }
    finding = Finding(name="jobs: occupation missing", value=0.4, before=0.1, limit="at most 10.0% more", is_beyond=True)
    return measured, measured, [finding]


def _search() -> page.Page:
    chosen = [{p.name: p.choices[0] if p.choices else f"{(p.low or 0) * 1.234567:.12f}" for p in SPACE}]
    chosen += [{p.name: p.choices[-1] if p.choices else str(p.high) for p in SPACE}]
    assert all(0 <= height(p, trial[p.name]) <= 1 for p in SPACE for trial in chosen)
    trials = [
        {"number": n, "state": "complete", "value": 0.7 + n / 50, "seconds": 3.2, "along": [], "params": params}
        for n, params in enumerate(chosen)
    ]
    numbers = {"best": 0.72, "untuned": 0.7, "trials": 2, "pruned": 0, "failed": 0}
    return tuning._page(trials, chosen[1], numbers, TuningConfig(space=SPACE))


def _recommendations() -> pa.Table:
    ts = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
    rows = [
        {
            **{"request": request, "request_id": f"q{request}", "user_id": "u", "query": TEXTS[request % 7], "ts": ts},
            **{"request_city": TEXTS[2], "request_region": None, "rank": rank + 1, "job_id": f"j{rank}"},
            **{"title": TEXTS[rank], "company": TEXTS[-rank], "city": "Berlin", "region": TEXTS[4], "score": 0.5 / (rank + 1)},
        }
        for request in range(40)
        for rank in range(6)
    ]
    return pa.Table.from_pylist(rows, schema=schema.RECOMMENDATIONS.arrow())
