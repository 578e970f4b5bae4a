"""Places as people type them."""

import pytest
from tritower.serving.places import Place, Places

PLACES = Places(
    [("Austin", "TX", "US")] * 2
    + [("Springfield", "MO", "US"), ("Springfield", "IL", "US"), ("Springfield", "IL", "US"), ("Zürich", None, "CH")]
    + [(None, None, None), (None, "TX", "US"), ("", "", "")]
)
AUSTIN = Place(city="Austin", region="TX", country="US")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Austin, TX", AUSTIN),
        ("  austin ,tx, us", AUSTIN),
        ("AUSTIN", AUSTIN),
        ("austin, us", AUSTIN),
        ("Springfield", Place(city="Springfield", region="IL", country="US")),
        ("Springfield, MO", Place(city="Springfield", region="MO", country="US")),
        ("TX", Place(region="TX", country="US")),
        ("us", Place(country="US")),
        ("Zu\u0308RICH", Place(city="Zürich", country="CH")),
        ("Atlantis", None),
        ("Austin, IL", None),
        ("", None),
        (" , ", None),
    ],
)
def test_a_place_is_found_by_every_way_to_name_it(text: str, place: Place | None) -> None:
    assert PLACES.find(text) == place


def test_places_are_named_by_their_number_of_jobs() -> None:
    assert PLACES.named == ["Austin, TX", "Springfield, IL", "Springfield, MO", "Zürich"]
    assert [str(PLACES.find(name)) for name in PLACES.named] == PLACES.named
    assert str(Place(country="US")) == "US" and str(Place(region="TX", country="US")) == "TX"
    assert Places([]).find("Austin") is None and Places([]).named == []
