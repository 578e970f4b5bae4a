"""Which jobs lie near a place: coordinates, great-circle distances, and the middle of a place's jobs.

Distances are those on a sphere of the earth's mean radius, by the haversine formula (Sinnott, "Virtues of the Haversine", Sky
and Telescope 68, 1984), which stays exact for short ones; an ellipsoid differs by half a percent at most.

Legend: J jobs, N some of them; a coordinate is a pair of latitude and longitude in degrees, NaN where unknown.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower.errors import ConfigError
from tritower.recommend.index import Index
from tritower.recommend.retrieve import Conditions, fulfilling
from tritower.serving.messages import Near
from tritower.serving.places import Place

EARTH_KM = 6371.0088
"""Mean radius of the earth (Moritz, Geodetic Reference System 1980)."""
_NEAR = "filters.near"
COLUMNS = ("latitude", "longitude")
Coordinates = npt.NDArray[np.float32]
_MARGIN = 1e-5  # degrees; halves of the last digit of a float32 near 180


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whereabouts:
    """Where the jobs of a catalogue are. It is never written to: `updated` gives a new one.

    Attributes:
        place_J2: coordinates by row of the catalogue.
    """

    place_J2: Coordinates

    @staticmethod
    def read(dataset: Path) -> "Whereabouts":
        """Of a bundle's part `dataset`; an older one has no coordinates."""
        file = dataset / "jobs.parquet"
        there = [name for name in COLUMNS if name in pq.read_schema(file).names]
        return Whereabouts(place_J2=of_jobs(pq.read_table(file, columns=there or ["job_id"])))

    def updated(self, jobs: pa.Table, row_N: npt.NDArray[np.int64]) -> "Whereabouts":
        """With new and changed adverts (`schema.RAW_JOBS`), whose rows are these."""
        size = max(len(self.place_J2), int(row_N.max(initial=-1)) + 1)
        place_J2 = np.full((size, 2), np.nan, np.float32)
        place_J2[: len(self.place_J2)] = self.place_J2
        place_J2[row_N] = of_jobs(jobs)
        return Whereabouts(place_J2=place_J2)

    @functools.cached_property
    def some(self) -> bool:
        """Whether any job has coordinates."""
        return bool(np.isfinite(self.place_J2[:, 0]).any())

    @functools.cached_property
    def warnings(self) -> tuple[str, ...]:
        """What an answer that asks for a distance says of the jobs without coordinates; nothing where all have them."""
        count, jobs = int(np.isnan(self.place_J2[:, 0]).sum()), len(self.place_J2)
        told = f"{count:,} of {jobs:,} jobs have no coordinates and are left out where a distance is asked for"
        return (told,) if count else ()

    def near(self, near: Near, place: Place | None, index: Index) -> npt.NDArray[np.bool_]:
        """Which jobs (J,) lie within a distance of a point.

        Args:
            near: what was asked for.
            place: what it names, or the place searched in; None where the catalogue knows no such name.
            index: of the same jobs.

        Raises:
            ConfigError: there is no such point.
        """
        if near.latitude is not None and near.longitude is not None:
            centre: tuple[float, float] | None = near.latitude, near.longitude
        elif place is None:
            raise _nowhere(f"no job is in a place called {near.place!r}")
        elif place == Place():
            raise _nowhere("a distance needs a place")
        else:
            there = Conditions(city=place.city, region=place.region, country=place.country)
            centre = middle(self.place_J2[fulfilling(there, index, np.arange(len(index)))])
        if not self.some:
            remedy = "Filter by city or region; ingest takes latitude and longitude of a job."
            raise ConfigError("the catalogue has no coordinates of jobs", where=_NEAR, remedy=remedy)
        if centre is None:
            raise _nowhere(f"no job in {str(place)!r} has coordinates")
        return within(self.place_J2, *centre, near.km)


def _nowhere(problem: str) -> ConfigError:
    return ConfigError(problem, where=_NEAR, remedy="Give a place of the catalogue's, or latitude and longitude.")


def of_jobs(jobs: pa.Table) -> Coordinates:
    """The coordinates (J, 2) of adverts; unknown where a table lacks the columns, or a row one of the two or a sound value.

    Rounded to float32, which moves a job by 1 m at most.
    """
    if not set(COLUMNS) <= set(jobs.column_names):
        return np.full((len(jobs), 2), np.nan, np.float32)
    columns = [pc.fill_null(jobs[name].cast(pa.float64()), float("nan")).to_numpy() for name in COLUMNS]
    found_J2 = np.stack(columns, axis=1).astype(np.float32)
    with np.errstate(invalid="ignore"):
        found_J2[~((np.abs(found_J2[:, 0]) <= 90) & (np.abs(found_J2[:, 1]) <= 180))] = np.nan
    return found_J2


def distance_km(place_N2: npt.NDArray[np.floating], latitude: float, longitude: float) -> npt.NDArray[np.float64]:
    """Great-circle distances (N,) to a point; NaN where a place is unknown."""
    here, there_N = np.radians(latitude), np.radians(place_N2[:, 0].astype(np.float64))
    across_N = np.radians(place_N2[:, 1].astype(np.float64) - longitude)
    hav_N = np.sin((there_N - here) / 2) ** 2 + np.cos(here) * np.cos(there_N) * np.sin(across_N / 2) ** 2
    found_N: npt.NDArray[np.float64] = 2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(hav_N, 1)))
    return found_N


def within(place_J2: Coordinates, latitude: float, longitude: float, km: float) -> npt.NDArray[np.bool_]:
    """Which places (J,) lie within a distance of a point; an unknown one never does.

    Only those in the band of latitudes that the circle touches are measured.
    """
    reach = np.degrees(km / EARTH_KM) + _MARGIN
    with np.errstate(invalid="ignore"):
        is_in_J: npt.NDArray[np.bool_] = np.abs(place_J2[:, 0] - np.float32(latitude)) <= np.float32(reach + _MARGIN)
    band = np.flatnonzero(is_in_J)
    is_in_J[band] = distance_km(place_J2[band], latitude, longitude) <= km
    return is_in_J


def middle(place_N2: Coordinates) -> tuple[float, float] | None:
    """The middle of the places that are known: latitude and longitude of their mean direction from the earth's centre.

    None where none is known, or where they cancel each other, as a place and its antipode do.
    """
    known = np.radians(place_N2[np.isfinite(place_N2).all(axis=1)].astype(np.float64))
    if not len(known):
        return None
    level = np.cos(known[:, 0])
    x, y, z = (level * np.cos(known[:, 1])).mean(), (level * np.sin(known[:, 1])).mean(), np.sin(known[:, 0]).mean()
    if np.hypot(np.hypot(x, y), z) < 1e-9:
        return None
    return float(np.degrees(np.arctan2(z, np.hypot(x, y)))), float(np.degrees(np.arctan2(y, x)))
