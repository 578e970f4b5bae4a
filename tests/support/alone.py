"""A process that joins the others of a training, as the encoder and the ranker do."""

import contextlib

from tritower.encoder import distributed
from tritower.errors import StepError
from tritower.ranker import process_group

with contextlib.suppress(StepError):
    distributed.join()
    raise AssertionError("the encoder's process joined nobody")
with process_group.joined("cpu"):
    pass
