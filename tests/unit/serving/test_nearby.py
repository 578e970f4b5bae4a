"""Distances on the globe, against values computed by hand and by another formula, and the jobs within a circle."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower.serving import nearby

DEGREE_KM = 2 * math.pi * nearby.EARTH_KM / 360
LATITUDES, LONGITUDES = st.floats(-90, 90, width=32), st.floats(-180, 180, width=32)
POINTS = st.tuples(LATITUDES, LONGITUDES)


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [
        ((0, 0), (0, 1), DEGREE_KM),
        ((0, 0), (1, 0), DEGREE_KM),
        ((60, 10), (60, 11), 55.5970),  # 2 R asin(cos 60 deg sin .5 deg)
        ((0, 179.5), (0, -179.5), DEGREE_KM),  # over the date line
        ((89.5, 0), (89.5, 180), DEGREE_KM),  # over the pole
        ((90, 17), (90, -120), 0),
        ((10, 20), (-10, -160), math.pi * nearby.EARTH_KM),  # the antipode
        ((30.25, -97.75), (30.25, -97.75), 0),
        ((48.8566, 2.3522), (51.5074, -0.1278), 343.556),  # Paris to London
    ],
)
def test_distances(one: tuple[float, float], other: tuple[float, float], km: float) -> None:
    assert nearby.distance_km(np.array([other], np.float64), *one)[0] == pytest.approx(km, abs=1e-3)
    assert nearby.distance_km(np.array([one], np.float64), *other)[0] == pytest.approx(km, abs=1e-3)


def by_vectors(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The angle between two directions, by atan2 of cross and dot product: another formula, sound at every angle."""

    def direction(point: tuple[float, float]) -> np.ndarray:
        north, east = map(math.radians, point)
        return np.array([math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)])

    a, b = direction(one), direction(other)
    return nearby.EARTH_KM * math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b))


@given(POINTS, POINTS)
def test_distances_are_those_of_another_formula(one: tuple[float, float], other: tuple[float, float]) -> None:
    found = nearby.distance_km(np.array([other], np.float32), *one)[0]
    # Near the antipode the haversine loses half of its digits: 1e-8 of the sine is 1 m there.
    assert found == pytest.approx(by_vectors(one, other), abs=1e-3 if found < 19_000 else 0.5)


@given(st.lists(POINTS, max_size=30), POINTS, st.floats(0.001, 20_040))
def test_the_band_leaves_nothing_out(places: list[tuple[float, float]], point: tuple[float, float], km: float) -> None:
    place_J2 = np.array([*places, (np.nan, np.nan)], np.float32).reshape(-1, 2)
    with np.errstate(invalid="ignore"):
        expected_J = nearby.distance_km(place_J2, *point) <= km
    assert nearby.within(place_J2, *point, km).tolist() == expected_J.tolist()
    assert not expected_J[-1]


def test_coordinates_of_jobs_are_both_known_and_sound_or_not_at_all() -> None:
    nan = float("nan")
    latitude = [30.2672, None, 30.0, nan, 90.5, -90.0, 0.0]
    longitude = [-97.7431, -97.0, None, 10.0, 10.0, 180.0, 180.5]
    found = nearby.of_jobs(pa.table({"latitude": latitude, "longitude": longitude}))
    np.testing.assert_array_equal(found[[0, 5]], np.array([[30.2672, -97.7431], [-90, 180]], np.float32))
    assert np.isnan(found[[1, 2, 3, 4, 6]]).all() and found.dtype == np.float32
    assert np.isnan(nearby.of_jobs(pa.table({"job_id": ["a", "b"]}))).all()
    assert nearby.of_jobs(pa.table({"latitude": pa.nulls(1), "longitude": pa.nulls(1)})).shape == (1, 2)


def test_the_middle_of_places() -> None:
    middle = nearby.middle(np.array([[10, 179], [10, -177], [np.nan, np.nan]], np.float32))
    assert middle == pytest.approx((10.006, -179), abs=1e-2)  # over the date line, and not on the other side of the globe
    assert nearby.middle(np.array([[90, 0], [np.nan, np.nan]], np.float32)) == pytest.approx((90, 0))
    assert nearby.middle(np.full((3, 2), np.nan, np.float32)) is None
    assert nearby.middle(np.array([[0, 0], [0, 180]], np.float32)) is None
