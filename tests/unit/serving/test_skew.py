"""What the server answers is what training saw: the requests of the test split, one by one, each asked before it is told.

Features equal the step's files bit for bit, and scores lie within 1e-6 of those of the step `score`, which reads the
same files. With a query that no text of the catalogue equals, all is the same but what its vector enters.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from tritower import storage
from tritower.serving import bundling

from tests.support import bundles, skew
from tests.support.bundles import Run


def bundle(run: Run, folder: Path) -> tuple[Path, list[skew.Shown], list[str]]:
    """A bundle with the state before the test split, and that split."""
    bundling.write(replace(run.sources, state=skew.before_test(run.sources, folder / "before")), folder / "bundle")
    return folder / "bundle", *skew.split(run.sources, folder)


def test_a_test_split_is_served_as_it_was_trained(run: Run, tmp_path: Path) -> None:
    place, shown, names = bundle(run, tmp_path)
    found = skew.replayed(skew.Within(place), shown, names)
    assert (found.requests, found.differ) == (len(shown), {}) and len(shown) >= 10
    assert found.values > 50 * len(shown) * 5 and max(found.apart) < 1e-6


@pytest.mark.slow
def test_a_longer_one_over_http(tmp_path: Path) -> None:
    """Some two hundred requests; then those with new words again, of a server that has to encode and recognise them."""
    run = bundles.run(tmp_path / "run", impressions=25_000)
    place, shown, names = bundle(run, tmp_path)
    with skew.serving(place, tmp_path / "server") as server:
        found = skew.replayed(server, shown, names)
    assert (found.requests, found.differ) == (len(shown), {}) and len(shown) > 200
    assert max(found.apart) < 1e-6
    fewer = skew.without_new_queries(run.sources, tmp_path / "fewer")
    bundling.write(replace(fewer, state=tmp_path / "before" / "features"), tmp_path / "unknown")
    with skew.serving(tmp_path / "unknown", tmp_path / "encoding") as server:
        found = skew.replayed(server, shown, names, asked=lambda one: one.is_new, top=10)
    facts = storage.read_json(run.sources.features / "features.json")["features"]
    of_vectors = {one["name"] for one in facts if one["needs_embeddings"]}
    assert 20 < found.requests == sum(one.is_new for one in shown) == len(found.tops)
    assert found.differ.keys() <= of_vectors and max(found.apart) < 1e-3
