"""What the page says beside the ranking, of a real bundle's catalogue and features."""

from pathlib import Path

import pyarrow.parquet as pq
from tritower.serving.ranking import Ranking


def test_a_visitor_is_told_in_the_catalogue_s_words(ranking: Ranking, bundle_folder: Path) -> None:
    examples = ranking.guide.examples()
    assert 1 <= len(examples) <= 5 and examples == ranking.guide.examples()
    jobs = {(row["title"], row["company"]) for row in pq.read_table(bundle_folder / "dataset" / "jobs.parquet").to_pylist()}
    for example in examples:
        known = ranking.guide.known(example.user_id)
        assert known and known.past.clicked >= len(known.clicks) >= 1
        assert example.query == known.past.searches[0][0] and ranking.guide.places.find(example.place)
        assert all((click.title, click.company) in jobs for click in known.clicks)
        assert [click.ts for click in known.clicks] == sorted((click.ts for click in known.clicks), reverse=True)
    assert not ranking.guide.known("nobody") and not ranking.guide.known("")
