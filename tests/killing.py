"""A process that is killed again and again, without paying each time for what it imports."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

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

    def kill_after(self, seconds: float, *arguments: object) -> None:
        """Kill it after so many seconds, if it is still there."""
        with self.running(*arguments) as child:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)

    def kill_at_random(self, times: int, most: float, *arguments: object) -> Iterator[int]:
        """Kill it so many times, each at another moment of its first ``most`` seconds; the number of the kill."""
        moments = random.Random(0)
        for number in range(times):
            self.kill_after(moments.uniform(0.0, most), *arguments)
            yield number

    def close(self) -> None:
        """End it all."""
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
