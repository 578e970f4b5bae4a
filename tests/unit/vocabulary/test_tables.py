"""The shipped tables and the command that builds them."""

import csv
import gzip
import json
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import vocabulary
from tritower.vocabulary.build import build, split_parentheses


def test_every_title_has_an_occupation_of_the_table() -> None:
    titles = vocabulary.titles()
    names = {row["occupation"]: row["title"] for row in titles.to_pylist() if row["kind"] == "occupation"}
    assert titles.num_rows > 50_000 and set(titles["kind"].to_pylist()) == {"occupation", "alternate", "reported"}
    assert all(names[row["occupation"]] == row["occupation_title"] for row in titles.to_pylist())
    assert names["29-1141.00"] == "Registered Nurses"


def test_handwritten_tables_are_consistent() -> None:
    assert len(vocabulary.abbreviations()) >= 150 and vocabulary.abbreviations()["rn"] == ("registered nurse",)
    assert len(vocabulary.places()) >= 300 and len(vocabulary.regions()) == 51
    assert all(place.region_name == vocabulary.regions()[place.region] for place in vocabulary.places())
    assert len(set(vocabulary.places(""))) == len(vocabulary.places(""))
    assert {level for _, level in vocabulary.seniorities()} == set(range(len(vocabulary.LEVELS)))
    assert all(slip != right for slip, right in vocabulary.misspellings().items())


def test_every_city_of_the_united_states_is_somewhere_in_them() -> None:
    found = vocabulary.coordinates()
    assert found.keys() == {(place.city, place.region) for place in vocabulary.places()}
    assert found["Austin", "TX"] == (30.27, -97.74) and found["Kansas City", "MO"] != found["Kansas City", "KS"]
    assert all(18 < north < 72 and -160 < east < -66 for north, east in found.values())


def test_data_is_small_and_names_its_sources() -> None:
    folder = Path(str(resources.files("tritower.vocabulary")))
    assert sum(path.stat().st_size for path in (folder / "data").iterdir()) < 4_000_000
    attribution = (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(word in attribution for word in ("O*NET", "USDOL/ETA", "ESCO", "IPOD", "GeoNames", "CC BY 4.0", "MIT"))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Respiratory Care Practitioner (RCP)", ("Respiratory Care Practitioner", "RCP")),
        ("RN (Registered Nurse)", ("Registered Nurse", "RN")),
        ("Teacher (all ages)", ("Teacher", None)),
        ("Cook", ("Cook", None)),
    ],
)
def test_split_parentheses(written: str, expected: tuple[str, str | None]) -> None:
    assert split_parentheses(written) == expected


def test_build_from_raw_lists(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()

    def parquet(name: str, **columns: list[str]) -> None:
        pq.write_table(pa.table(columns), raw / name)

    parquet("onet_occupations.parquet", onet_soc=["35-2014.00"], title=["Cooks, Restaurant"], description=["They cook."])
    parquet("onet_reported_titles.parquet", onet_soc=["35-2014.00"], reported_title=["Line Cook (LC)"])
    parquet("onet_alternate_titles.parquet", onet_soc=["35-2014.00"] * 2, alternate_title=["Line Cook", "Fry Cook"])
    technology = {"Example": ["Structured query language SQL", "Point of sale POS software"], "Hot Technology": ["Y", "N"]}
    parquet("onet_technology_skills.parquet", **technology)
    with (raw / "soc2018_direct_match_titles.csv").open("w", newline="") as file:
        csv.writer(file, delimiter="|").writerows([["soc_code", "soc_direct_match_title"], ["35-2014", "Grill Cook"]])
    with (raw / "esco_v1.1_occupations_en.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["preferredLabel", "altLabels", "iscoGroup"], ["chef", "line cooks\nhead chef", "3434"]])
    with (raw / "ipod_gazetteer.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Title", "A1", "A2", "A3"], ["cook", "RES", "FUN", "RES"]])
    (raw / "skills_30957.json").write_text(json.dumps(["frying", "a b c d e"]))
    with gzip.open(raw / "find_job_titles_74392.txt.gz", "wt") as file:
        file.write("Cook, Short Order\nFry Cook\n")

    assert build(raw, out) == {"titles": 4, "other_titles": 3, "skills": 3, "descriptions": 1, "title_tokens": 1}
    titles = pq.read_table(out / "titles.parquet").to_pylist()
    assert [(row["title"], row["kind"], row["short"]) for row in titles] == [
        ("Cooks, Restaurant", "occupation", None),
        ("Line Cook", "reported", "LC"),
        ("Fry Cook", "alternate", None),
        ("Grill Cook", "alternate", None),
    ]
    assert pq.read_table(out / "other_titles.parquet")["title"].to_pylist() == ["Short Order Cook", "chef", "head chef"]
    assert pq.read_table(out / "skills.parquet").to_pylist()[1] == {
        "skill": "Structured query language", "kind": "technology", "hot": True, "short": "SQL",
    }  # fmt: skip
    assert pq.read_table(out / "title_tokens.parquet").to_pylist() == [{"token": "cook", "tag": "RES", "votes": 2}]
    first = (out / "titles.parquet").read_bytes()
    build(raw, out)
    assert (out / "titles.parquet").read_bytes() == first
