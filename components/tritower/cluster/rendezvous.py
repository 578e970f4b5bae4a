"""Processes of several pods meet at the first one's; when that one begins anew, the others must come again.

A pod whose container comes back before the first one's processes have noticed that it was gone joins a meeting that is about to
end, and would wait there until its time is over. So the first pod leaves a new word in the job's home each time it begins, and
the others look at it while their processes run.
"""

import logging
import threading
import uuid

from tritower.cluster import heartbeat

logger = logging.getLogger(__name__)
_EVERY_S = 5.0


class Rendezvous:
    """The word in a job's home. The first pod leaves it when this is made; the others watch it in a thread of their own.

    Args:
        home: the job's folder, a location; empty where there is none, and nothing is left or looked at.
        number: this pod's; 0 is the first.
        every_s: seconds between two looks, at most 5.
    """

    def __init__(self, home: str, number: int, every_s: float) -> None:
        self._place, self._every_s = f"{home}/{heartbeat.RENDEZVOUS}", min(every_s, _EVERY_S)
        self._seen: str | None = None
        self._again = threading.Event()
        if not home:
            return
        if number:
            threading.Thread(target=self._watch, name="rendezvous", daemon=True).start()
        else:
            self._leave()

    def moved(self) -> bool:
        """Whether the first pod has begun anew since the last call."""
        if not self._again.is_set():
            return False
        self._again.clear()
        return True

    def _leave(self) -> None:
        try:
            heartbeat.write(self._place, f"{uuid.uuid4().hex}\n")
        except OSError as error:  # the others then wait until their time is over
            logger.warning("the other pods cannot be told that this one has begun: %s", error)

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._every_s if self._seen else 0.1):
            try:
                word = heartbeat.read(self._place)
            except OSError as error:
                logger.warning("whether the first pod has begun anew cannot be read: %s", error)
                continue
            if word and word != self._seen:
                if self._seen:
                    self._again.set()
                self._seen = word
