"""Mending of misspelt words."""

from hypothesis import given
from hypothesis import strategies as st
from tritower.entities.spelling import Speller

SPELLER = Speller({"manager": 50, "managed": 2, "nurse": 40, "driver": 30, "rare": 9, "welder": 1}, {"manger": "manager"})


def test_one_edit_is_mended_towards_the_word_seen_most() -> None:
    for slip in ("mannager", "maanger", "managfr", "mangager"):
        assert SPELLER.mend(slip) == "manager"
    assert SPELLER.mend("manger") == "manager"  # known by heart


def test_what_is_left_alone() -> None:
    for word in ("manager", "managed", "nurze", "xanager", "mnger", "driver5", "weldxer", "", "bananas"):
        assert SPELLER.mend(word) == word


@given(st.text(alphabet="abcdefgimnrsuvw", max_size=10))
def test_a_mended_word_is_known_and_shares_the_first_letter(word: str) -> None:
    mended = SPELLER.mend(word)
    assert mended == word or (mended in ("manager", "managed", "driver") and mended[0] == word[0])
