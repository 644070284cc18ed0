"""The batcher with questions that are numbers and answers that are their squares."""

from __future__ import annotations

import threading
import time

import pytest

from arm_lens.service.batching import Batcher, QueueFullError


class Squares:
    """Answers questions once ``gate`` is open; -1 fails, and with it every batch that it is in."""

    def __init__(self) -> None:
        self.gate, self.started, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, numbers):
        self.started.set()
        assert self.gate.wait(10)
        self.batches.append(list(numbers))
        if -1 in numbers:
            raise ValueError("minus one")
        return [number**2 for number in numbers]


def batcher(squares, **options):
    return Batcher(squares, **({"max_batch": 4, "max_wait": 0.0, "capacity": 10} | options))


def asked(one, *numbers):
    one.reserve(len(numbers))
    return one.submit(numbers)


def occupied(one, squares):
    """A first question that is being answered, so that all others wait."""
    future = asked(one, 0)
    assert squares.started.wait(10)
    return future


def test_what_waits_is_answered_together_and_in_order():
    squares = Squares()
    one = batcher(squares)
    first = occupied(one, squares)
    futures = [asked(one, 1, 2), asked(one, 3), asked(one, 4, 5, 6)]
    squares.gate.set()
    assert [future.result(10) for future in (first, *futures)] == [[0], [1, 4], [9], [16, 25, 36]]
    assert squares.batches == [[0], [1, 2, 3, 4], [5, 6]]
    one.close()
    assert (one.accepted, one.answered, one.waiting) == (4, 4, 0)


def test_an_error_is_that_of_the_question_at_fault():
    squares = Squares()
    one = batcher(squares)
    first = occupied(one, squares)
    futures = [asked(one, 1), asked(one, 2, -1), asked(one, 3)]
    squares.gate.set()
    (one_found,), (two, error), (three,) = (future.result(10) for future in futures)
    assert (first.result(10), one_found, two, three) == ([0], 1, 4, 9)
    assert isinstance(error, ValueError)
    one.close()


def test_a_full_queue_refuses_and_has_room_again():
    squares = Squares()
    one = batcher(squares, capacity=3)
    first = occupied(one, squares)
    waiting = asked(one, 1, 2)
    with pytest.raises(QueueFullError, match="2 questions wait and 2 more") as refused:
        one.reserve(2)
    assert refused.value.seconds >= 1
    one.reserve(1)
    one.release(1)
    last = asked(one, 3)
    squares.gate.set()
    assert [future.result(10) for future in (first, waiting, last)] == [[0], [1, 4], [9]]
    asked(one, 4, 5, 6).result(10)
    one.close()


def test_closing_answers_what_waits():
    squares = Squares()
    one = batcher(squares, max_wait=60.0)
    futures = [asked(one, number) for number in range(3)]
    squares.gate.set()
    start = time.monotonic()
    one.close()  # does not wait for further questions
    assert time.monotonic() - start < 10
    assert [future.result(0) for future in futures] == [[0], [1], [4]]
    with pytest.raises(RuntimeError, match="closed"):
        asked(one, 4)


def test_an_idle_batcher_waits_for_company_only_so_long():
    squares = Squares()
    squares.gate.set()
    one = batcher(squares, max_batch=2, max_wait=0.2)
    start = time.monotonic()
    assert asked(one, 3).result(10) == [9]
    assert time.monotonic() - start >= 0.19
    future = asked(one, 4)
    asked(one, 5)  # the batch is full, and is answered at once
    assert future.result(10) == [16]
    assert squares.batches == [[3], [4, 5]]
    one.close()
