"""A process that is killed again and again, without paying each time for what it imports."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil

KILLS = int(os.environ.get("ARM_LENS_KILLS", "8"))
"""How often a test kills its process. A release is tested with more."""
FORKS = """
import os, sys
while line := sys.stdin.readline():
    child = os.fork()
    if not child:
        try:
            victim(*eval(line))
        finally:
            os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # until then its id is its own, whether it runs or not
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Victims:
    """Processes that run a function ``victim``, one at a time.

    Args:
        source: Python source that defines it; run once.
        arguments: ``sys.argv[1:]`` of that.
    """

    def __init__(self, source: str, *arguments: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", source + FORKS, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    @contextlib.contextmanager
    def running(self, *arguments: object) -> Iterator[int]:
        """The id of a process that runs ``victim(*arguments)``; it is waited for at the end."""
        print(repr(arguments), file=self._process.stdin, flush=True)
        try:
            yield int(self._process.stdout.readline())
        finally:
            print(file=self._process.stdin, flush=True)
            self._process.stdout.readline()

    def run(self, *arguments: object) -> float:
        """Let it run to its end; how many seconds that took."""
        started = time.monotonic()
        with self.running(*arguments):
            pass
        return time.monotonic() - started

    def kill_at_random(self, times: int, most: float, *arguments: object, state: Callable[[], object]) -> Iterator[int]:
        """Kill it so many times: by turns soon after it has changed something, however long that takes on this machine,
        and at any moment of its first ``most`` seconds.

        Args:
            times: How often.
            most: In seconds. Where a run ends, a share of how long one takes here: `run` says it.
            arguments: Of ``victim``.
            state: What its output is now; where a run ends without a change, it is not waited for.

        Yields:
            The number of the kill.
        """
        moments = random.Random(0)
        for number in range(times):
            before = state()
            with self.running(*arguments) as child:
                if waits := number % 2 == 0:
                    ends = time.monotonic() + 240.0
                    while state() == before and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
                        assert time.monotonic() < ends, "waited in vain"
                        time.sleep(0.001)
                time.sleep(moments.uniform(0.0, most / 10 if waits else most))
                os.kill(child, signal.SIGKILL)
            yield number

    def close(self) -> None:
        """End it all."""
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
