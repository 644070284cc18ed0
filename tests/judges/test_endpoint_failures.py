"""What happens when an endpoint fails, or a run is stopped: plain words, and nothing asked twice."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time

import pytest
import torch
from judges.chat_server import ChatServer, Fault
from judges.endpoint_support import KEY, PROMPTS, RESPONSES, chance, endpoint_judge, judge_at, sure

from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.judges.endpoint.answers import AnswerStore
from arm_lens.judges.endpoint.errors import EndpointError
from arm_lens.judges.endpoint.judge import EndpointJudge
from arm_lens.judges.endpoint.options import EndpointOptions
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import LabelledResponse, PreferenceFieldError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


# What goes wrong


def test_retry_after_is_honoured():
    with ChatServer(sure) as server:
        server.faults.append(Fault(429, {"Retry-After": "1.2"}))
        judge = judge_at(server, max_retries=1)
        judge.score(["How?"], ["So."])
    first, second = (one.time for one in server.received)
    assert 1.2 <= second - first < 6
    assert (judge.usage.requests, judge.usage.retries, judge.usage.answers) == (2, 1, 1)


@pytest.mark.parametrize("fault", [Fault(500), Fault(503), Fault(drop=True), Fault(hang=5)], ids=str)
def test_failures_that_pass_are_survived(fault):
    with ChatServer(sure) as server:
        server.faults.append(fault)
        judge = judge_at(server, max_retries=1, timeout=1.0)
        assert judge.score(["How?"], ["So."])[0] == pytest.approx(chance(JudgeTemplate().question("How?", "So.")))
    assert (judge.usage.requests, judge.usage.retries, judge.usage.answers) == (2, 1, 1)


def test_a_server_that_hangs_is_given_up_on_in_time():
    with ChatServer(sure) as server:
        server.faults += [Fault(hang=9), Fault(hang=9)]
        start = time.monotonic()
        with pytest.raises(EndpointError, match=r"did not answer example 0 within 0\.3 seconds, asked 2 times"):
            judge_at(server, timeout=0.3, max_retries=1).score(["How?"], ["So."])
        assert 0.6 < time.monotonic() - start < 8


@pytest.mark.parametrize(
    "fault, message",
    [
        (Fault(body=b'{"choices": ['), "answered example 0 with something other than a chat completion"),
        (Fault(body=b"<html>welcome</html>"), "something other than a chat completion"),
        (Fault(body=b'{"error": {"message": "upstream gone"}}'), "other than a chat completion: .*upstream gone"),
        (Fault(body=b'{"choices": []}'), "other than a chat completion"),
        (Fault(body=b"[]"), "other than a chat completion"),
        (Fault(500), r"failed on example 0 \(500\): fault 500"),
        (Fault(400), r"failed on example 0 \(400\): fault 400"),
        (Fault(429), r"still turned example 0 away \(429\), asked once: fault 429; ask for fewer requests_per_minute"),
        (Fault(429, {"Retry-After": "900"}), "it asks to wait 900 seconds"),
        (Fault(403), rf"refused the key in OPENAI_API_KEY \(403\)"),  # noqa: F541
        (Fault(drop=True), "cannot reach http://127.0.0.1"),
    ],
)  # fmt: skip
def test_failures_that_stay_are_told_in_plain_words(fault, message):
    with ChatServer(sure) as server:
        server.faults.append(fault)
        with pytest.raises(EndpointError, match=message) as raised:
            judge_at(server).score(["How?"], ["So."])
    assert KEY not in str(raised.value)


def test_a_wrong_key_model_and_address_are_each_named():
    with ChatServer(sure, key="another") as server:
        with pytest.raises(EndpointError, match=rf"{server.url}/ refused the key in OPENAI_API_KEY \(401\): Incorrect"):
            judge_at(server).score(["How?"], ["So."])
        with pytest.raises(EndpointError, match="refused a request without a key"):
            judge_at(server, api_key_env=None).score(["How?"], ["So."])
    missing = r"has no model 'judge', .*\(404\): The model 'judge' does not exist"
    with ChatServer(sure, models=["other"]) as server, pytest.raises(EndpointError, match=missing):
        judge_at(server).score(["How?"], ["So."])
    with pytest.raises(
        EndpointError, match=rf"cannot reach {server.url}/ \(asked once for example 0\): .*base_url right"
    ):
        judge_at(server).score(["How?"], ["So."])
    secret = server.url.replace("http://", "http://me:hunter2@")
    with pytest.raises(EndpointError, match="cannot reach http://127") as raised:
        judge_at(server, base_url=secret).score(["How?"], ["So."])
    assert "hunter2" not in str(raised.value)


def test_a_prompt_beyond_the_context_is_named():
    with ChatServer(sure, context=60) as server:
        with pytest.raises(PromptTooLongError, match=r"example 1 does not fit .*'judge'.*maximum context length is 60"):
            judge_at(server).score(["How?", "How?"], ["So.", "So. " * 60])
        with pytest.raises(PromptTooLongError, match="pair 0 does not fit"):
            judge_at(server).prefer("How?", "So.", "So. " * 60)


def test_text_that_cannot_be_sent_is_named():
    with ChatServer(sure) as server:
        with pytest.raises(PreferenceFieldError, match=r"example 0: .*half of a character"):
            judge_at(server).score(["How?"], ["So \ud800."])
        assert not server.billed["requests"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"votes": 0}, "votes is 0; it must be at least 1"),
        ({"votes": 3, "temperature": 0.0}, "3 votes at temperature 0 would all be the same"),
        ({"concurrency": 0}, r"concurrency\n.*greater than 0"),
        ({"timeout": 0.0}, r"timeout\n.*greater than 0"),
        ({"requests_per_minute": -1.0}, r"requests_per_minute\n.*greater than 0"),
        ({"budget": 1.0}, "a budget needs prices"),
        ({"api_key_env": "NO_SUCH_KEY"}, "the environment variable NO_SUCH_KEY is not set"),
        (
            {"layout": "ranked", "examples": [LabelledResponse("p", "r", True, id="x")]},
            "x is a single labelled response",
        ),
        ({"layout": "ranked", "template": JudgeTemplate(ranked=None)}, "no ranked question"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        endpoint_judge(base_url="http://127.0.0.1:9/v1", **options)


def test_questions_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="2 prompts for 1 responses"):
        EndpointJudge("judge").score(["a", "b"], ["c"])
    with pytest.raises(ValueError, match="nothing to judge"):
        EndpointJudge("judge").score([], [])
    with pytest.raises(ValueError, match="has no score of one"):
        EndpointJudge("judge", question=QuestionOptions(layout="ranked")).score(["a"], ["b"])
    with pytest.raises(ValueError, match="there is no order"):
        EndpointJudge("judge").orders(["a"], ["b"], ["c"])


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"arm-lens\[endpoint\]"):
        EndpointJudge("judge")


# Stopped and resumed


def test_a_run_that_the_server_did_not_survive_asks_only_for_the_rest(tmp_path):
    with ChatServer(sure, dies_after=5) as server, pytest.raises(EndpointError, match="cannot reach") as raised:
        judge_at(server, cache=tmp_path, concurrency=1).score(PROMPTS, RESPONSES)
    assert server.billed["requests"] == 5
    assert "5 of 12 answers are kept" in raised.value.__notes__[0]
    with ChatServer(sure, port=server.port) as revived:
        scores = judge_at(revived, cache=tmp_path).score(PROMPTS, RESPONSES)
        assert torch.equal(scores, judge_at(revived).score(PROMPTS, RESPONSES))
    before, after = ({one.question for one in some} for some in (server.received[:5], revived.received[:7]))
    assert len(before) == 5 and len(after) == 7 and not before & after


def test_a_run_whose_answers_are_all_there_needs_no_server(tmp_path):
    with ChatServer(sure) as server:
        scores = judge_at(server, cache=tmp_path / "mine").score(PROMPTS, RESPONSES)
    assert torch.equal(judge_at(server, cache=tmp_path / "mine").score(PROMPTS, RESPONSES), scores)


@pytest.mark.parametrize(
    "other", [{"criterion_text": "kind"}, {"temperature": 0.5}, {"max_tokens": 5}, {"votes": 2}, {"rationale": True},
              {"template": JudgeTemplate(scalar="{prompt} {response}?")}, {"examples": [LabelledResponse("p", "r", True)]}],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_an_answer_serves_no_other_request(tmp_path, other):
    with ChatServer(sure) as server:
        judge_at(server, cache=tmp_path).score(["How?"], ["So."])
        changed = judge_at(server, cache=tmp_path, **other)
        changed.score(["How?"], ["So."])
    assert changed.usage.cached == 0


def test_an_answer_serves_no_other_model_and_no_other_endpoint(tmp_path):
    with ChatServer(sure, models=["judge", "jury"]) as one, ChatServer(sure) as two:
        judge_at(one, cache=tmp_path).score(["How?"], ["So."])
        EndpointJudge("jury", endpoint=EndpointOptions(base_url=one.url, cache=tmp_path)).score(["How?"], ["So."])
        judge_at(two, cache=tmp_path).score(["How?"], ["So."])
        judge_at(two, base_url=two.url + "/", cache=tmp_path).score(["How?"], ["So."])  # the same place
    assert (len(one.received), len(two.received)) == (2, 1)


def test_the_key_is_nowhere_on_disk(tmp_path):
    with ChatServer(sure) as server:
        judge = judge_at(server, cache=tmp_path)
        judge.score(PROMPTS, RESPONSES)
        assert all(KEY.encode() not in file.read_bytes() for file in tmp_path.rglob("*.json"))
    assert any(b"Yes" in file.read_bytes() for file in tmp_path.rglob("*.json"))


def interrupting(number: int):
    """Answers surely, and presses Ctrl-C while answering that request, counted from 1."""
    count = itertools.count(1)

    def answer(body):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # the answer is on its way for a while yet
        return sure(body)

    return answer


def test_ctrl_c_stops_and_loses_nothing(tmp_path):
    with ChatServer(interrupting(4)) as server:
        with pytest.raises(KeyboardInterrupt):
            judge_at(server, cache=tmp_path, concurrency=1).score(PROMPTS, RESPONSES)
        assert len(AnswerStore(tmp_path)) == server.billed["requests"] == 4  # with the one on its way
        judge_at(server, cache=tmp_path).score(PROMPTS, RESPONSES)
    assert server.billed["requests"] == 12


def test_ctrl_c_does_not_wait_for_those_whose_turn_has_not_come(tmp_path):
    with ChatServer(interrupting(1)) as server:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            judge_at(server, requests_per_minute=2.0, cache=tmp_path).score(PROMPTS, RESPONSES)
        assert time.monotonic() - start < 5
    assert len(AnswerStore(tmp_path)) == server.billed["requests"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_killed_process_is_resumed_without_asking_twice(tmp_path):
    prompts = [f"What is {number} and {number}?" for number in range(40)]
    responses = [f"It is {2 * number}." for number in range(40)]
    reading, writing = os.pipe()
    child = os.fork()  # before the server has its threads
    if not child:
        try:
            place = os.read(reading, 100).decode()
            judge = EndpointJudge(
                "judge", endpoint=EndpointOptions(base_url=place, cache=tmp_path, concurrency=2, max_retries=0)
            )
            judge.score(prompts, responses)
        finally:
            os._exit(0)
    with ChatServer(sure, delay=0.03) as server:
        os.write(writing, server.url.encode())
        give_up = time.monotonic() + 20
        while len(server.received) < 15 and time.monotonic() < give_up:
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        time.sleep(0.2)  # what was on its way arrives nowhere
        first = [one.question for one in server.received]
        kept = len(AnswerStore(tmp_path))
        assert 15 - 2 <= len(first) - 2 <= kept <= len(first) < 40  # all but the two on their way
        scores = judge_at(server, cache=tmp_path, concurrency=8).score(prompts, responses)
        second = [one.question for one in server.received[len(first) :]]
        assert len(second) == len(set(second)) == 40 - kept
        assert len(set(first) & set(second)) == len(first) - kept
        assert torch.equal(scores, judge_at(server, concurrency=8).score(prompts, responses))
