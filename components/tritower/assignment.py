"""Who gets which arm of an experiment: a salted hash of the unit, the same on every machine and in every language.

    fraction(unit, salt) = the first 53 bits of blake2b(salt, byte 0, unit; digest of 8 bytes, big-endian) / 2^53

Three questions, each answered with a salt of its own, so that no answer tells anything about another:

    holdout   is the unit kept out of every experiment?                        salt "holdout", or the given one
    layer     does it lie in the experiment's slice, as far as that is open?   salt "layer:" + layer
    arm       which arm?                                                       salt of the experiment

Experiments of one layer with slices apart share no unit. Those of different layers overlap, and independently. The ramp `share`
opens the slice from its start: a larger share adds units, and moves none from an arm to another. Shares of arms are fixed for
an experiment's life: whoever changes them takes a new salt.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

from tritower.config import check
from tritower.errors import ConfigError

Why = Literal["arm", "no unit", "holdout", "other slice", "not yet"]


def fraction(unit: str, salt: str) -> float:
    """A number in [0, 1) for a unit, evenly spread over units; those of two salts are independent.

    Raises:
        ConfigError: the salt holds a zero byte, which parts it from the unit.
    """
    if "\0" in salt:
        raise ConfigError("a salt holds a zero byte", where=salt, remedy="Use letters, digits and punctuation.")
    digest = hashlib.blake2b(f"{salt}\0{unit}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One side of an experiment."""

    name: str
    """What the exposure log calls it; in the server, the name of a bundle."""
    share: float = 0.5
    """Share of the experiment's units, above 0; those of all arms sum to 1."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment, as far as assignment knows it.

    Raises:
        ConfigError: shares that do not sum to 1, a name twice, a slice outside the layer.
    """

    name: str
    """Its name."""
    arms: tuple[Arm, ...] = ()
    """Its arms, two or more, in a fixed order: the order is part of the assignment."""
    salt: str = ""
    """Decides the arm; empty = the name. A new one draws anew."""
    layer: str = "default"
    """Experiments of one layer share its units out among them by their slices."""
    slice_start: float = 0.0
    """Where its slice of the layer begins, from 0."""
    slice_stop: float = 1.0
    """Where it ends, up to 1."""
    share: float = 1.0
    """The ramp: the part of the slice that is open, 0 to 1."""
    holdout: float = 0.0
    """Share of all units that no experiment touches, 0 to below 1; the same units wherever `holdout_salt` is the same."""
    holdout_salt: str = "holdout"
    """Decides who is held out."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(bool(self.name), "name", self.name, "not empty")
        check(len(self.arms) >= 2, "arms", len(self.arms), "of at least 2")
        names = [arm.name for arm in self.arms]
        check(len(set(names)) == len(names) and all(names), "arms", names, "each with a name of its own")
        shares = [arm.share for arm in self.arms]
        check(min(shares) > 0 and math.isclose(math.fsum(shares), 1), "arms", shares, "of shares above 0 that sum to 1")
        bounds = f"{self.slice_start} to {self.slice_stop}"
        check(0 <= self.slice_start < self.slice_stop <= 1, "slice_start", bounds, "a slice within 0 to 1")
        check(0 <= self.share <= 1, "share", self.share, "from 0 to 1")
        check(0 <= self.holdout < 1, "holdout", self.holdout, "from 0 to below 1")

    @property
    def arm_salt(self) -> str:
        """The salt that decides the arm."""
        return self.salt or self.name

    def assign(self, unit: str) -> "Assignment":
        """The arm of a unit, or why it has none. The empty unit (nobody known) never has one."""
        if not unit:
            return self._none(unit, "no unit")
        if fraction(unit, self.holdout_salt) < self.holdout:
            return self._none(unit, "holdout")
        place = fraction(unit, f"layer:{self.layer}")
        if not self.slice_start <= place < self.slice_stop:
            return self._none(unit, "other slice")
        if place - self.slice_start >= self.share * (self.slice_stop - self.slice_start):
            return self._none(unit, "not yet")
        drawn, upper = fraction(unit, self.arm_salt), 0.0
        for arm in self.arms[:-1]:
            upper += arm.share
            if drawn < upper:
                break
        else:
            arm = self.arms[-1]
        return Assignment(experiment=self.name, salt=self.arm_salt, unit=unit, arm=arm.name, why="arm")

    def _none(self, unit: str, why: Why) -> "Assignment":
        return Assignment(experiment=self.name, salt=self.arm_salt, unit=unit, arm="", why=why)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What the exposure log says of a unit.

    Attributes:
        experiment, salt: which experiment, and what decided.
        unit: who was assigned.
        arm: its arm; empty where it has none.
        why: `arm`, or the reason for none.
    """

    experiment: str
    salt: str
    unit: str
    arm: str
    why: Why
