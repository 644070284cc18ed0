"""Batches of what waits: one thread answers the questions of all requests, as many at a time as it can.

A request's questions enter one queue, in order. The thread takes the first ``max_batch`` of them, whoever sent them; if it
is idle, a question waits for others for at most ``max_wait`` seconds. A request is answered when the last of its questions
is. `Batcher.reserve` counts questions before any work is done for them, so that the queue never exceeds its capacity.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class QueueFullError(RuntimeError):
    """As many questions wait as may wait.

    Attributes:
        seconds: about how long it takes until there is room.
    """

    def __init__(self, waiting: int, wanted: int, capacity: int, seconds: int) -> None:
        super().__init__(
            f"{waiting} questions wait and {wanted} more were sent, of {capacity} that may wait; try again in {seconds} s"
        )
        self.seconds = seconds


@dataclass(eq=False)
class _Request(Generic[Question, Answer]):
    answers: list[Answer | Exception | None]
    left: int
    future: Future[list[Answer | Exception]]


class Batcher(Generic[Question, Answer]):
    """Answers questions in batches, in a thread of its own.

    Args:
        answer: answers a batch: an answer or an error for each question. If it raises, each question is tried alone.
        max_batch: the most questions in a batch.
        max_wait: seconds for which an idle batcher waits for further questions.
        capacity: the most questions that may wait.
        observe: called with the size of each batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Answer | Exception]],
        *,
        max_batch: int,
        max_wait: float,
        capacity: int,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._answer, self._observe = answer, observe
        self._max_batch, self._max_wait, self._capacity = max_batch, max_wait, capacity
        self._waiting: deque[tuple[_Request[Question, Answer], int, Question, float]] = deque()
        self._reserved = 0
        self._closed = False
        self._seconds_each = 0.01
        self._changed = threading.Condition()
        self.accepted = self.answered = 0
        """Requests that were accepted, and those that were answered."""
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many questions wait, reserved ones included."""
        return self._reserved

    def reserve(self, count: int) -> None:
        """Make room for questions that will be submitted, or released.

        Raises:
            QueueFullError: if there is no room.
        """
        with self._changed:
            if self._reserved + count > self._capacity:
                excess = self._reserved + count - self._capacity
                seconds = max(1, math.ceil(excess * self._seconds_each))
                raise QueueFullError(self._reserved, count, self._capacity, seconds)
            self._reserved += count

    def release(self, count: int) -> None:
        """Give back room that was reserved, for questions that will not be submitted."""
        with self._changed:
            self._reserved -= count

    def submit(self, questions: Sequence[Question]) -> Future[list[Answer | Exception]]:
        """Enqueue a request's questions, for which room was reserved; the result is an answer or an error for each."""
        future: Future[list[Answer | Exception]] = Future()
        future.set_running_or_notify_cancel()  # a client that leaves does not take its questions out of a batch
        request: _Request[Question, Answer] = _Request([None] * len(questions), len(questions), future)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self.accepted += 1
            now = time.monotonic()
            self._waiting.extend((request, index, one, now) for index, one in enumerate(questions))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Answer what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            questions = [question for _, _, question, _ in batch]
            self._observe(len(batch))
            start = time.monotonic()
            answers = self._answers(questions)
            self._seconds_each += 0.2 * ((time.monotonic() - start) / len(batch) - self._seconds_each)
            for (request, index, _, _), answer in zip(batch, answers, strict=True):
                request.answers[index] = answer
                request.left -= 1
                if not request.left:
                    self.answered += 1
                    request.future.set_result([one for one in request.answers if one is not None])

    def _next(self) -> list[tuple[_Request[Question, Answer], int, Question, float]]:
        """The next batch; empty once the batcher is closed and nothing waits."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while self._waiting and len(self._waiting) < self._max_batch and not self._closed:
                left = self._waiting[0][3] + self._max_wait - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
            self._reserved -= len(batch)
            return batch

    def _answers(self, questions: Sequence[Question]) -> Sequence[Answer | Exception]:
        """The answers to a batch; if it fails as a whole, one by one, so that only the questions at fault have an error."""
        try:
            return self._answer(questions)
        except Exception as error:  # is handed to whoever asked
            if len(questions) == 1:
                return [error]
            return [answer for one in questions for answer in self._answers([one])]
