"""What a test that needs a GPU is marked with: `@gpu.needed`."""

import pytest
import torch


def needed(test):
    """The marker `cuda`, and a skip that says why where there is no GPU."""
    reason = f"needs a GPU, and torch {torch.__version__} sees none here"
    return pytest.mark.cuda(pytest.mark.skipif(not torch.cuda.is_available(), reason=reason)(test))
