"""A process of a training that trains nothing: it says that it is there and does what its first argument says.

`python -m tests.support.worker DEED FOLDER`
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tritower.errors import DataError

rank = os.environ.get("RANK", "0")
deed, folder = sys.argv[1], Path(sys.argv[2])
(folder / f"here-{rank}").write_text(str(os.getpid()))
if deed == "refuse" and rank == "1":
    raise DataError("row 7 says 'a\nFakeError: nothing is wrong'", where="x.csv", remedy="Mend it.")
if deed == "break" and rank == "1":
    raise KeyError("nobody thought of it")
if deed == "die" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
if deed == "join":
    from tritower.ranker import process_group

    with process_group.joined("cpu") as mine:
        if mine.mean(mine.rank) != 0.5:
            raise DataError("the mean of 0 and 1 is another")
    sys.exit(0)
if deed == "mixed":
    from torch.distributed import DistError
    from torch.distributed.rendezvous import rendezvous
    from tritower import processes

    processes.met(rendezvous, DistError, "cuda" if rank == "1" else "cpu")
    sys.exit(0)
if deed == "stumble":
    from tritower.ranker import process_group

    def make() -> str:
        raise DataError("nothing to share")

    with process_group.joined("cpu") as mine:
        mine.node.once("nothing", make)
if deed == "litter":
    tempfile.mkdtemp()
    print("littered", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if deed in ("die", "lost"):
    # What a library says whose other end is gone.
    time.sleep(0.5)
    raise RuntimeError("Connection closed by peer")
time.sleep(600)
