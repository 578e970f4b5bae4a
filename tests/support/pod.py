"""What a pod of a job runs in tests: it prints, then does as it is told.

python -m tests.support.pod DEED [ARGUMENT] --model=LOCATION
"""

import os
import signal
import sys
import time
import uuid
from pathlib import Path

from tritower import child, storage
from tritower.errors import DataError, StorageError

deed, *rest = sys.argv[1:]
given = dict(part.removeprefix("--").split("=", 1) for part in rest if part.startswith("--"))
print(f"deed {deed}", flush=True)
if deed == "count":  # a line every 20 ms; then it goes on while the file is there that may be named
    for number in range(int(rest[0])):
        print(f"line {number}", flush=True)
        time.sleep(0.02)
    hold = [Path(one) for one in rest[1:2] if not one.startswith("--")]
    while any(one.exists() for one in hold):
        time.sleep(0.02)
elif deed == "tell":  # the same, each attempt under a name of its own
    attempt = uuid.uuid4().hex[:8]
    for number in range(int(rest[0])):
        print(f"{attempt} line {number}", flush=True)
        time.sleep(0.02)
    print(f"{attempt} line {rest[0]}", flush=True)
elif deed == "refuse":
    child.report(DataError("row 7 has no time", where="x.csv", remedy="Mend it."))
    sys.exit(1)
elif deed == "exit":
    print("something is odd", flush=True)
    sys.exit(int(rest[0]))
elif deed == "once":  # fails at the first attempt
    mark = f"{given['model']}.tried"
    if not storage.names(mark):
        with storage.atomic_file(f"tried-{os.getpid()}") as file:
            file.write_text("tried")
        storage.upload(f"tried-{os.getpid()}", mark)
        child.report(StorageError("the store hesitates"))
        sys.exit(1)
elif deed == "eat":
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1 << 20)) * 8)
        time.sleep(0.01)
elif deed == "polite":  # ends with 0 when it is asked to end, its work not done
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("ready", flush=True)
    time.sleep(600)
elif deed == "lame":  # the second pod fails, the first one would go on
    if os.environ["RANK"] == "1":
        print("this is why", flush=True)
        sys.exit(3)
    time.sleep(600)
elif deed == "sleep":
    time.sleep(600)
print("done", flush=True)
