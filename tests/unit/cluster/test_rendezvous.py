from pathlib import Path

from tritower.cluster.rendezvous import Rendezvous

from tests.support.family import wait_for


def test_the_others_learn_once_that_the_first_pod_has_begun_anew(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    early = Rendezvous(home, 1, 0.05)  # there before the first pod: its coming is no reason to begin again
    Rendezvous(home, 0, 0.05)
    late = Rendezvous(home, 2, 0.05)
    wait_for(lambda: early._seen is not None and late._seen is not None, "both have seen it", 5)
    assert not early.moved() and not late.moved()
    Rendezvous(home, 0, 0.05)
    for one in (early, late):
        wait_for(one._again.is_set, "it is seen", 5)
        assert one.moved() and not one.moved()


def test_a_place_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert not Rendezvous(str(tmp_path / "file" / "home"), 0, 0.05).moved()
    assert not Rendezvous("", 1, 0.05).moved()
