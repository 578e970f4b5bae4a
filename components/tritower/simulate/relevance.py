"""The truth: how likely a user who looks at a job clicks it, and how likely a position is looked at.

Only element-wise arithmetic is used, never a matrix product, so that a pair has the same value, to the bit, alone and in any
batch.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritower.simulate.world import World

_DAY_US = 86_400_000_000


def examination(position: NDArray[Any], decay: float) -> NDArray[np.float64]:
    """Probability that the job at a position (1 is the top) is looked at: position ** -decay."""
    return np.asarray(position.astype(np.float64) ** -decay)


def relevance(world: World, request: NDArray[Any], job: NDArray[Any]) -> NDArray[np.float32]:
    """Probability of a click if examined, for aligned request and job numbers: the best possible ranking score."""
    logit = utility(world, request, job).astype(np.float64) + world.intercept
    return (1.0 / (1.0 + np.exp(-logit))).astype(np.float32)


def utility(world: World, request: NDArray[Any], job: NDArray[Any]) -> NDArray[np.float32]:
    """Log-odds of a click if examined, without the intercept."""
    config, jobs, users, requests = world.config, world.jobs, world.users, world.requests
    user = requests.user[request]
    total = occupation_part(world, request, job)
    total -= np.float32(config.weight_seniority) * np.abs(users.seniority[user] - jobs.seniority[job])
    total += place_part(world, request, job, user)
    total += np.float32(config.weight_company) * jobs.reputation[job] + np.float32(config.weight_appeal) * jobs.appeal[job]
    total += np.float32(config.weight_taste) * taste(world, user, job)
    age_days = np.maximum(requests.ts_us[request] - jobs.posted_us[job], 0) / _DAY_US
    total -= (config.weight_age * np.log1p(age_days)).astype(np.float32)
    return total


def occupation_part(world: World, request: NDArray[Any], job: NDArray[Any]) -> NDArray[np.float32]:
    """Relatedness of the wanted and the offered occupation, refined by speciality where they are related."""
    jobs, requests = world.jobs, world.requests
    related = world.relatedness_OO[requests.occupation[request], jobs.occupation[job]]
    speciality = _dot(world.speciality_VD, requests.variant[request], world.speciality_VD, jobs.variant[job])
    weight, refined = np.float32(world.config.weight_occupation), np.float32(world.config.weight_speciality)
    return np.asarray(weight * related + refined * related * speciality)


def place_part(world: World, request: NDArray[Any], job: NDArray[Any], user: NDArray[Any]) -> NDArray[np.float32]:
    """Same city, else same state; a remote job counts by how remote-minded the user is, where that is more."""
    config, jobs, requests = world.config, world.jobs, world.requests
    near = np.where(
        requests.city[request] == jobs.city[job],
        np.float32(config.weight_city),
        np.where(requests.region[request] == jobs.region[job], np.float32(config.weight_region), np.float32(0)),
    )
    remote = np.where(jobs.remote[job], np.float32(config.weight_remote) * world.users.remote_minded[user], np.float32(0))
    return np.maximum(near, remote)


def taste(world: World, user: NDArray[Any], job: NDArray[Any]) -> NDArray[np.float32]:
    """The user's own liking of the industry and of the kind of work, about one standard deviation in all."""
    industry = world.users.taste_industry_US[user, world.jobs.industry[job]]
    work = _dot(world.users.taste_work_UD, user, world.speciality_VD, world.jobs.variant[job])
    return np.asarray((industry + work) * np.float32(np.sqrt(0.5)), np.float32)


def _dot(left_AD: NDArray[np.float32], a: NDArray[Any], right_BD: NDArray[np.float32], b: NDArray[Any]) -> NDArray[np.float32]:
    total = np.zeros(len(a), np.float32)
    for d in range(left_AD.shape[1]):
        total += left_AD[a, d] * right_BD[b, d]
    return total
