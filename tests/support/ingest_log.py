"""A tiny raw log, as files of any format, and a way to run the step on it."""

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tritower.ingest import step
from tritower.ingest.config import IngestConfig

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def at(hours: float) -> datetime.datetime:
    return START + datetime.timedelta(hours=hours)


def jobs() -> list[dict[str, Any]]:
    return [
        {"job_id": "a", "title": "Registered  Nurse", "company": "Acme", "city": "Ames", "region": "IA", "posted_at": at(-50)},
        {"job_id": "b", "title": "Line Cook", "company": "ACME", "city": None, "region": None, "posted_at": None},
        {"job_id": "c", "title": "Truck Driver", "company": "Été", "city": "Oslo", "region": "OS", "posted_at": at(-1)},
    ]


def impressions(requests: int = 20) -> list[dict[str, Any]]:
    """Three rows a request; request i at hour i; job b is clicked a minute later in every other one."""
    return [
        {
            "request_id": f"r{number:03d}",
            "ts": at(number),
            "user_id": f"u{number % 3}",
            "query": f"nurse {number % 4}",
            "job_id": job,
            "clicked": job == "b" and number % 2 == 0,
            "position": place,
            "clicked_at": at(number + 1 / 60) if job == "b" and number % 2 == 0 else None,
        }
        for number in range(requests)
        for place, job in enumerate("abc", start=1)
    ]


def users() -> list[dict[str, Any]]:
    return [
        {"user_id": "u0", "interests": ["Nurse", "Cook"], "past_titles": ["Nurse"], "city": "Ames"},
        {"user_id": "quiet", "interests": None, "past_titles": [], "city": None},
    ]


def plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return value


def save(rows: list[dict[str, Any]], path: Path) -> str:
    """Write rows in the format of the file's ending."""
    if path.suffix == ".parquet":
        names = list(dict.fromkeys(name for row in rows for name in row))
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({key: plain(value) for key, value in row.items() if value is not None}) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                texts = {key: "|".join(value) if isinstance(value, list) else plain(value) for key, value in row.items()}
                writer.writerow(texts)
    return str(path)


class Log:
    """Raw tables that a test changes, then runs the step on."""

    def __init__(self, folder: Path, suffix: str = ".parquet") -> None:
        self.folder, self.suffix = folder, suffix
        self.jobs, self.impressions, self.users = jobs(), impressions(), users()
        self.out = folder / "dataset"

    def run(self, *, with_users: bool = True, places: dict[str, str] | None = None, **knobs: Any) -> dict[str, float]:
        uris = {
            name: save(getattr(self, name), self.folder / f"{name}{self.suffix}")
            for name in ("jobs", "impressions", "users")
            if name not in (places or {})
        } | (places or {})
        if not with_users:
            uris["users"] = ""
        settings = {"max_quarantined_share": 1.0, "threads": 1} | knobs
        return step.run(**uris, dataset=self.out, config=IngestConfig(**settings))

    def table(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.out / f"{name}.parquet").to_pylist()
        return rows

    def shown(self) -> list[dict[str, Any]]:
        files = sorted((self.out / "impressions").rglob("*.parquet"))
        rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
        return sorted(rows, key=lambda row: row["row"])

    def mended(self, table: str = "impressions") -> dict[str, int]:
        """column.what -> rows."""
        counts: dict[str, Any] = json.loads((self.out / "quality.json").read_text())["counts"]
        return dict(counts[table]["mended"])

    def reasons(self) -> dict[tuple[str, int], str]:
        """(file name, row) -> reason."""
        return {(Path(row["source"]).name, row["source_row"]): row["reason"] for row in self.table("quarantine")}
