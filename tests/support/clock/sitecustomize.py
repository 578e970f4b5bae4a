"""For processes whose clock is wrong by CLOCK_AHEAD_S: on PYTHONPATH, Python runs this before anything else."""

import os
import time

_ahead_s, _time, _time_ns = float(os.environ.get("CLOCK_AHEAD_S", "0")), time.time, time.time_ns
time.time = lambda: _time() + _ahead_s
time.time_ns = lambda: _time_ns() + int(_ahead_s * 1e9)
