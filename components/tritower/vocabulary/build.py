"""Builds the Parquet tables of `data/` from the raw lists named in ATTRIBUTION.md.

Expected files in the source folder: onet_occupations.parquet, onet_alternate_titles.parquet, onet_reported_titles.parquet,
onet_technology_skills.parquet, soc2018_direct_match_titles.csv, esco_v1.1_occupations_en.csv, ipod_gazetteer.csv,
skills_30957.json, find_job_titles_74392.txt.gz.
"""

import collections
import csv
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tritower.storage import atomic_file
from tritower.vocabulary.text import key, normalise

Row = dict[str, Any]
_PARENTHESES = re.compile(r"\s*\(([^()]*)\)")
_TRAILING_ACRONYM = re.compile(r"^(?=.*[a-z].* )(.+?) ([A-Z][A-Z0-9+/&.-]{1,7})$")
_KINDS = ("occupation", "reported", "alternate")


def build(source: Path, target: Path) -> dict[str, int]:
    """Write every table into `target`; gives the number of rows of each.

    The result is a function of the source files alone: rows are sorted, duplicates dropped.
    """
    titles = title_rows(source)
    tables = {
        "titles": pa.Table.from_pylist(titles),
        "other_titles": pa.Table.from_pylist(other_title_rows(source, known={key(row["title"]) for row in titles})),
        "skills": pa.Table.from_pylist(skill_rows(source)),
        "descriptions": pa.Table.from_pylist(description_rows(source)),
        "title_tokens": pa.Table.from_pylist(token_rows(source)),
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with atomic_file(target / f"{name}.parquet") as path:
            pq.write_table(table, path, compression="zstd", compression_level=19)
    return {name: table.num_rows for name, table in tables.items()}


def title_rows(source: Path) -> list[Row]:
    """O*NET occupation, alternate and reported titles, and SOC 2018 titles, one row per (occupation, normalised title)."""
    names = {row["onet_soc"]: row["title"] for row in _parquet(source / "onet_occupations.parquet")}
    found: list[tuple[str, str, str]] = [(code, name, "occupation") for code, name in names.items()]
    for kind in ("reported", "alternate"):
        listed = _parquet(source / f"onet_{kind}_titles.parquet")
        found += [(row["onet_soc"], row[f"{kind}_title"], kind) for row in listed]
    with (source / "soc2018_direct_match_titles.csv").open(encoding="utf-8", newline="") as file:
        found += [
            (f"{row['soc_code']}.00", row["soc_direct_match_title"], "alternate") for row in csv.DictReader(file, delimiter="|")
        ]
    rows: dict[tuple[str, str], Row] = {}
    for kind in _KINDS:
        for code, written, its_kind in found:
            if its_kind != kind or code not in names:
                continue
            title, short = split_parentheses(written)
            row = {"title": title, "occupation": code, "occupation_title": names[code], "kind": kind, "short": short}
            if normalise(title):
                kept = rows.setdefault((code, normalise(title)), row)
                kept["short"] = kept["short"] or short
    return sorted(rows.values(), key=lambda row: (row["occupation"], _KINDS.index(row["kind"]), row["title"]))


def split_parentheses(written: str) -> tuple[str, str | None]:
    """("Respiratory Care Practitioner", "RCP") of "Respiratory Care Practitioner (RCP)"; a gloss inside is dropped.

    Where the acronym stands first, as in "RN (Registered Nurse)", the two change places.
    """
    inner = _PARENTHESES.findall(written)
    title = " ".join(_PARENTHESES.sub("", written).split())
    short = next((text for text in inner if text.isupper() and " " not in text and 2 <= len(text) <= 8), None)
    if inner and title.isupper() and len(title) <= 8 and " " in inner[0]:
        return inner[0], title
    return title, short


def other_title_rows(source: Path, known: set[str]) -> list[Row]:
    """ESCO labels and the find-job-titles list, without what `known` (lookup keys) already has."""
    rows: dict[str, Row] = {}
    with (source / "esco_v1.1_occupations_en.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for written in [row["preferredLabel"], *row["altLabels"].split("\n")]:
                _add(rows, known, split_parentheses(written)[0], "esco", row["iscoGroup"])
    with gzip.open(source / "find_job_titles_74392.txt.gz", "rt", encoding="utf-8") as file:
        for line in file:
            _add(rows, known, _natural_order(split_parentheses(line.strip())[0]), "find-job-titles", None)
    return sorted(rows.values(), key=lambda row: row["title"])


def skill_rows(source: Path) -> list[Row]:
    """O*NET technology examples and the skill list; an acronym at the end ("... language SQL") goes into `short`."""
    rows: dict[str, Row] = {}
    examples = _parquet(source / "onet_technology_skills.parquet")
    hot = {row["Example"] for row in examples if row["Hot Technology"] == "Y"}
    for example in sorted({row["Example"] for row in examples}, key=lambda name: (name not in hot, name)):
        name, short = _technology(example)
        rows.setdefault(key(name), {"skill": name, "kind": "technology", "hot": example in hot, "short": short})
    for name in json.loads((source / "skills_30957.json").read_text(encoding="utf-8")):
        clean = split_parentheses(name)[0]
        if clean.isascii() and 1 <= len(normalise(clean).split()) <= 4 and re.search("[a-z]", clean):
            rows.setdefault(key(clean), {"skill": clean, "kind": "skill", "hot": False, "short": None})
    rows.pop("", None)
    return sorted(rows.values(), key=lambda row: (row["kind"] != "technology", row["skill"]))


def description_rows(source: Path) -> list[Row]:
    """What people of each occupation do, in the words of O*NET."""
    rows = _parquet(source / "onet_occupations.parquet")
    return sorted(
        ({"occupation": row["onet_soc"], "description": row["description"]} for row in rows), key=lambda row: row["occupation"]
    )


def token_rows(source: Path) -> list[Row]:
    """IPOD tokens with the tag most of the three experts gave."""
    rows = []
    with (source / "ipod_gazetteer.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            (tag, votes), *_ = collections.Counter(row[name] for name in ("A1", "A2", "A3")).most_common()
            rows.append({"token": row["Title"], "tag": tag, "votes": votes})
    return rows


def _technology(example: str) -> tuple[str, str | None]:
    name = example.removesuffix(" software")
    found = _TRAILING_ACRONYM.match(name)
    return (found[1], found[2]) if found and len(found[1].split()) >= 2 else (name, None)


def _natural_order(title: str) -> str:
    """ "Assembler, Hydraulic Backhoe" -> "Hydraulic Backhoe Assembler": library order back to speech."""
    head, comma, rest = title.partition(", ")
    return f"{rest} {head}" if comma and "," not in rest and len(head.split()) == 1 else title


def _add(rows: dict[str, Row], known: set[str], title: str, source: str, group: str | None) -> None:
    title = " ".join(title.split())
    its_key = key(title)
    if its_key and its_key not in known and len(its_key.split()) <= 8:
        rows.setdefault(its_key, {"title": title, "source": source, "group": group})


def _parquet(path: Path) -> Iterable[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = pq.read_table(path).to_pylist()
    return rows
