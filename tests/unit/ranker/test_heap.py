"""The heap during a training: freed memory is taken again, and the collector gets its objects back."""

import gc
import resource

import pytest
import torch
from tritower.ranker import heap


def faults(rounds: int) -> int:
    """Pages that the system had to map while tensors of 4 MiB come and go."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        kept = [torch.ones(1 << 20) for _ in range(8)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_memory_is_mapped_once_and_objects_are_collected_again_afterwards():
    with heap.steady():
        frozen = gc.get_freeze_count()
        assert frozen > 1000
        faults(3)
        assert faults(20) < 20 * 8 * 100  # of 1,024 pages for each tensor
    assert gc.get_freeze_count() == 0


def test_the_collector_gets_its_objects_back_after_an_error():
    with pytest.raises(ZeroDivisionError), heap.steady():
        raise ZeroDivisionError
    assert gc.get_freeze_count() == 0
