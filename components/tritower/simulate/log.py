"""The stream of impressions: pages shown, clicks drawn, day by day and block by block."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritower.simulate import chance, policy
from tritower.simulate.relevance import examination, relevance, utility
from tritower.simulate.world import World

_DAY_US = 86_400_000_000
_PILOT_REQUESTS = 3_000


@dataclass(frozen=True, kw_only=True)
class Block:
    """Impressions of consecutive requests, by (request, position); all columns aligned."""

    request: NDArray[np.int64]
    cell: NDArray[np.int64]  # unique over the log, and independent of how it is cut into blocks
    job: NDArray[np.int32]
    position: NDArray[np.int16]
    relevance: NDArray[np.float32]
    click_probability: NDArray[np.float32]
    clicked: NDArray[np.bool_]
    delay_us: NDArray[np.int64]


def calibrate(world: World, search: policy.Search) -> float:
    """The intercept at which a pilot of evenly spread requests has the configured click rate (bisection)."""
    config, requests = world.config, world.requests
    count = len(requests.ts_us)
    pilot = np.unique(np.linspace(0, count - 1, min(count, _PILOT_REQUESTS)).astype(np.int64))
    nothing = np.zeros(len(world.jobs.city))
    logits, looks = [], []
    for rows in _by_day(requests.ts_us, pilot):
        index = policy.index_jobs(world, int(requests.ts_us[rows[0]] // _DAY_US * _DAY_US), nothing, nothing)
        request, job, position = policy.show(world, search, index, rows)
        logits.append(utility(world, request, job).astype(np.float64))
        looks.append(examination(position, config.examination_decay))
    logit, look = np.concatenate(logits), np.concatenate(looks)
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        rate = float(np.mean(look / (1 + np.exp(-(logit + middle)))))
        low, high = (middle, high) if rate < config.ctr else (low, middle)
    return low


def blocks(world: World, search: policy.Search) -> Iterator[Block]:
    """All impressions in the order of time. The board's popularity counts are updated every midnight."""
    config, ts_us = world.config, world.requests.ts_us
    clicks = np.zeros(len(world.jobs.city), np.int64)
    shown = np.zeros_like(clicks)
    for day in _by_day(ts_us, np.arange(len(ts_us))):
        index = policy.index_jobs(world, int(ts_us[day[0]] // _DAY_US * _DAY_US), clicks, shown)
        for rows in _cut(day, config.part_requests, config.block_requests):
            block = _block(world, search, index, rows)
            clicks += np.bincount(block.job[block.clicked], minlength=len(clicks))
            shown += np.bincount(block.job, minlength=len(shown))
            yield block


def _block(world: World, search: policy.Search, index: policy.Index, rows: NDArray[np.int64]) -> Block:
    config, seed = world.config, world.config.seed
    request, job, position = policy.show(world, search, index, rows)
    liked = relevance(world, request, job)
    probability = (examination(position, config.examination_decay) * liked).astype(np.float32)
    # One number per (request, position): the click does not depend on the batch it is drawn in.
    cell = request * 64 + position
    clicked = chance.uniform(chance.key(seed, "click"), cell) < probability
    delay_s = config.click_delay_s * np.exp(1.2 * chance.normal(chance.key(seed, "delay"), cell))
    delay_s = np.clip(np.rint(delay_s), 1, 3_600)
    return Block(
        request=request,
        cell=cell,
        job=job,
        position=position,
        relevance=liked,
        click_probability=probability,
        clicked=clicked,
        delay_us=delay_s.astype(np.int64) * 1_000_000,
    )


def _cut(rows: NDArray[np.int64], part: int, block: int) -> Iterator[NDArray[np.int64]]:
    """Blocks of at most `block` requests that end where a part of the output does."""
    for piece in np.split(rows, np.flatnonzero(np.diff(rows // part)) + 1):
        for start in range(0, len(piece), block):
            yield piece[start : start + block]


def _by_day(ts_us: NDArray[np.int64], rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    day = ts_us[rows] // _DAY_US
    yield from np.split(rows, np.flatnonzero(np.diff(day)) + 1)
