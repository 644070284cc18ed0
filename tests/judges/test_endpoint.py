"""A judge behind an endpoint, asked over real HTTP: what it is sent, how it is read, what it takes."""

from __future__ import annotations

import copy
import json
import math
import random
import threading
import time

import pytest
import torch
from judges.chat_server import ChatServer, Fault, Reply
from judges.endpoint_support import KEY, PROMPTS, RESPONSES, chance, judge_at, longer, says, sure

from arm_lens.judges.endpoint.client import Budget, Gate
from arm_lens.judges.endpoint.errors import BudgetReachedError, EndpointError
from arm_lens.judges.endpoint.judge import TOP_LOGPROBS
from arm_lens.judges.position_bias import PositionBias
from arm_lens.judges.questions import questions_of
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import LabelledResponse, PreferencePair


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


# What is asked


EXAMPLES = (
    PreferencePair("Hi", "Hello!", "Go away", id="greeting"),
    PreferencePair("Bye", "Farewell {prompt}", "Whatever", id="parting"),
)


@pytest.mark.parametrize("layout", ["scalar", "ranked"])
@pytest.mark.parametrize("examples", [(), EXAMPLES])
@pytest.mark.parametrize("criterion_text", ["", "kind {to} people"])
def test_messages_are_those_of_the_templates_chat_form(tokenizer, layout, examples, criterion_text):
    template = JudgeTemplate(yes=("Ja",), no=("Nein",))
    echo = copy.deepcopy(tokenizer)
    turns = "{% for m in messages %}{{ m.role }}={{ m.content }}#{% endfor %}"
    echo.chat_template = turns + "{% if add_generation_prompt %}assistant={% endif %}"
    with ChatServer(longer) as server:
        judge = judge_at(server, template=template, layout=layout, examples=examples, criterion_text=criterion_text)
        judge.margins(["How?"], ["Like this"], ["Like that, or so"])
    ask = template.ranked_question if layout == "ranked" else None
    first, second = "Like this", "Like that, or so"
    texts = [ask("How?", first, second), ask("How?", second, first)] if ask else [
        template.question("How?", first), template.question("How?", second)
    ]  # fmt: skip
    spelled = {"scalar": ("Nein", "Ja"), "ranked": ("B", "A")}[layout]
    demonstrations = [(one.text, spelled[one.positive]) for one in questions_of(examples, template, layout)]
    rendered = [template.render(echo, text, examples=demonstrations, criterion=criterion_text) for text in texts]
    turns = [[one.split("=", 1) for one in text.removesuffix("#assistant=").split("#")] for text in rendered]
    expected = [[{"role": role, "content": content} for role, content in one] for one in turns]
    sent = [list(one.body["messages"]) for one in server.received]
    assert sorted(sent, key=str) == sorted(expected, key=str)


def test_one_verdict_is_asked_for_greedily_and_with_probabilities():
    with ChatServer(sure) as server:
        judge_at(server).score(["How?"], ["So."])
    (sent,) = server.received
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert {name: value for name, value in sent.body.items() if name != "messages"} == {
        "model": "judge", "temperature": 0.0, "max_tokens": 16, "logprobs": True, "top_logprobs": TOP_LOGPROBS,
    }  # fmt: skip


def test_a_rationale_is_asked_for_after_the_question_and_read_on_the_last_line():
    with ChatServer(says("No. Let me think.\nIt is right.\n\n**Yes**")) as server:
        judge = judge_at(server, rationale=True, examples=[LabelledResponse("Hi", "Hello", True)])
        assert judge.score(["How?"], ["So."]).tolist() == [1.0]
    (sent,) = server.received
    questions = [message["content"] for message in sent.body["messages"]]
    assert questions[-1].startswith(JudgeTemplate().question("How?", "So.")) and questions[-1].endswith("Yes or No.")
    assert "reasons" in questions[-1] and "reasons" not in questions[0] and questions[1] == "Yes"
    assert "logprobs" not in sent.body


# How it is read


@pytest.mark.slow
def test_rewards_are_the_two_way_probabilities_whatever_order_answers_arrive_in():
    def slow(body):
        time.sleep(0.05 * random.random())
        return sure(body)

    with ChatServer(slow) as server:
        verdicts = judge_at(server, concurrency=8).verdicts(PROMPTS, RESPONSES)
    questions = [JudgeTemplate().question(*pair) for pair in zip(PROMPTS, RESPONSES, strict=True)]
    expected = torch.tensor([chance(question) for question in questions])
    torch.testing.assert_close(verdicts.probability, expected)
    torch.testing.assert_close(verdicts.gap, torch.logit(expected))
    assert server.most_at_once > 1


def test_margins_are_differences_of_log_odds_and_prefer_agrees():
    with ChatServer(sure) as server:
        judge = judge_at(server)
        margins = judge.margins(PROMPTS, RESPONSES, RESPONSES[::-1])
        first = judge.verdicts(PROMPTS, RESPONSES).gap
        second = judge.verdicts(PROMPTS, RESPONSES[::-1]).gap
        comparison = judge.prefer(PROMPTS[0], RESPONSES[0], RESPONSES[-1])
    torch.testing.assert_close(margins, first - second)
    assert comparison.margin == pytest.approx(float(margins[0]))
    assert comparison.preferred == ("a" if margins[0] > 0 else "b")


def test_a_ranked_judge_is_asked_in_both_orders_and_its_position_bias_is_there():
    with ChatServer(sure) as server:
        judge = judge_at(server, layout="ranked")
        margins = judge.margins(PROMPTS, RESPONSES, RESPONSES[::-1])
        questions = judge.usage.requests
        bias = PositionBias.of(judge.orders(PROMPTS, RESPONSES, RESPONSES[::-1]))
        assert judge.usage.requests == questions  # the answers were there
    template, expected, changed = JudgeTemplate(), [], 0
    for prompt, a, b in zip(PROMPTS, RESPONSES, RESPONSES[::-1], strict=True):
        one, two = (chance(template.ranked_question(prompt, *pair)) for pair in ((a, b), (b, a)))
        expected.append((math.log(one / (1 - one)) - math.log(two / (1 - two))) / 2)
        changed += (one > 0.5) == (two > 0.5)
    torch.testing.assert_close(margins, torch.tensor(expected))
    assert 0 < changed < len(PROMPTS)
    assert bias.inconsistent == pytest.approx(changed / len(PROMPTS))


@pytest.mark.parametrize("answer, first, inconsistent", [(says("A"), 1, 1), (says("B"), 0, 1), (longer, 0.5, 0)])
def test_a_liking_for_a_place_shows_and_cancels(answer, first, inconsistent):
    long = [response + " I am sure." for response in RESPONSES]
    with ChatServer(answer) as server:
        judge = judge_at(server, layout="ranked")
        margins = judge.margins(PROMPTS, RESPONSES, long)
        bias = PositionBias.of(judge.orders(PROMPTS, RESPONSES, long))
    assert (margins < 0).all() if answer is longer else (margins == 0).all()
    assert (bias.first, bias.inconsistent) == (first, inconsistent)


@pytest.mark.slow
@pytest.mark.parametrize("rationale", [False, True])
def test_votes_are_counted(rationale):
    def voter(body):
        vote = random.Random(f"{body['messages']}{body['seed']}").random() < 0.7
        return Reply(("Reasons.\n" if rationale else "") + ("Yes" if vote else "No"))

    with ChatServer(voter) as server:
        options = {"votes": 5, "rationale": rationale}
        shares = judge_at(server, concurrency=8, **options).score(PROMPTS, RESPONSES)
        assert torch.equal(judge_at(server, concurrency=1, **options).score(PROMPTS, RESPONSES), shares)
        assert not torch.equal(judge_at(server, seed=1, **options).score(PROMPTS, RESPONSES), shares)
    yes: dict[str, int] = {}
    for one in server.received[: 5 * len(PROMPTS)]:
        yes[one.question] = yes.get(one.question, 0) + voter(one.body).text.endswith("Yes")
    for prompt, response, share in zip(PROMPTS, RESPONSES, shares.tolist(), strict=True):
        (count,) = (n for text, n in yes.items() if text.startswith(JudgeTemplate().question(prompt, response)))
        assert share == pytest.approx(count / 5)
    assert 0 < shares.mean() < 1
    assert len({one.body["seed"] for one in server.received}) == 2 * 5 * len(PROMPTS)
    assert {one.body["temperature"] for one in server.received} == {1.0}


def test_an_answer_without_a_verdict_is_half_a_yes_and_counted():
    replies = iter(["Yes", "Who knows", "No", "Yes", "I cannot", "Yes"])
    with ChatServer(lambda body: Reply(next(replies))) as server:
        judge = judge_at(server, votes=3, concurrency=1)
        verdicts = judge.verdicts(["One", "Two"], ["First", "Second"])
    assert verdicts.probability.tolist() == pytest.approx([1.5 / 3, 2.5 / 3])
    assert verdicts.gap.tolist() == pytest.approx([0, math.log(3 / 1)])
    assert verdicts.unparsed.tolist() == [1, 1]
    assert judge.usage.unparsed == 2
    with ChatServer(says("Hm")) as server:
        assert judge_at(server).prefer("How?", "So", "Thus").preferred == "tie"


def test_an_endpoint_that_tells_no_probabilities_is_read_by_its_words():
    with ChatServer(longer) as server:
        judge = judge_at(server)
        assert judge.score(["p", "q"], ["short", "not at all short"]).tolist() == [0.0, 1.0]
        assert judge.usage.from_text == 2
        assert judge.usage.refused == ()


@pytest.mark.parametrize("field", ["logprobs", "max_tokens", "seed"])
def test_a_field_that_the_endpoint_refuses_is_left_out_from_then_on(field):
    with ChatServer(sure, refuse=[field]) as server:
        judge = judge_at(server, concurrency=1, temperature=0.5 if field == "seed" else None)
        assert judge.score(PROMPTS, RESPONSES).shape == (12,)
    assert judge.usage.refused == (field,)
    assert (judge.usage.requests, judge.usage.answers) == (13, 12)
    assert field not in server.received[-1].body
    assert server.received[-1].body.get("max_completion_tokens") == (16 if field == "max_tokens" else None)
    assert judge.usage.from_text == (12 if field == "logprobs" else 0)


def test_what_the_endpoint_filters_out_is_no_verdict():
    body = json.dumps({"error": {"message": "filtered", "code": "content_filter"}}).encode()
    with ChatServer(says("Yes")) as server:
        server.faults.append(Fault(400, body=body))
        judge = judge_at(server, concurrency=1)
        assert judge.score(PROMPTS[:2], RESPONSES[:2]).tolist() == [0.5, 1.0]
        assert judge.usage.unparsed == 1


# What it takes


def test_the_cost_is_what_the_server_billed(tmp_path):
    with ChatServer(sure) as server:
        judge = judge_at(server, prices=(3.0, 15.0), cache=tmp_path)
        judge.score([*PROMPTS, *PROMPTS], [*RESPONSES, *RESPONSES])  # each twice: asked once
        again = judge_at(server, prices=(3.0, 15.0), cache=tmp_path)
        again.score(PROMPTS, RESPONSES)
    usage = judge.usage
    billed = {
        "requests": usage.requests,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    assert billed == server.billed
    assert usage.cost == pytest.approx((3 * billed["prompt_tokens"] + 15 * billed["completion_tokens"]) / 1e6)
    assert (usage.requests, usage.answers, usage.cached, usage.retries) == (12, 12, 12, 0)
    assert (again.usage.requests, again.usage.answers, again.usage.cached, again.usage.cost) == (0, 0, 12, 0)
    assert math.isnan(judge_at(server).usage.cost)


@pytest.mark.parametrize("concurrency", [1, 6])
def test_the_budget_is_never_exceeded_and_more_budget_goes_on(tmp_path, concurrency):
    prices = (1000.0, 4000.0)
    with ChatServer(sure, delay=0.01) as server:
        judge = judge_at(server, prices=prices, budget=0.45, cache=tmp_path, concurrency=concurrency)
        with pytest.raises(
            BudgetReachedError, match=r"of the budget of 0\.45 is spent, and example \d+ may cost"
        ) as raised:
            judge.score(PROMPTS, RESPONSES)
        done, cost = server.billed["requests"], judge.usage.cost
        billed = (prices[0] * server.billed["prompt_tokens"] + prices[1] * server.billed["completion_tokens"]) / 1e6
        assert cost == pytest.approx(billed) and cost <= 0.45
        assert 4 < done < 12  # not stopped by what others might have cost
        assert f"{done} of 12 answers are kept in {tmp_path}" in raised.value.__notes__[0]
        judge_at(server, prices=prices, budget=2.0, cache=tmp_path).score(PROMPTS, RESPONSES)
        assert server.billed["requests"] == 12


def test_sums_that_do_not_come_out_even_hold_no_budget_back():
    budget, stop = Budget(1.0), threading.Event()
    for amount in (0.1, 0.2, 0.3):
        budget.reserve(amount, "one", stop)
    for amount in (0.3, 0.1, 0.2):  # 0.1 + 0.2 + 0.3 - 0.3 - 0.1 - 0.2 is not 0
        budget.settle(amount, 0.0)
    assert 0.1 + 0.2 + 0.3 - 0.3 - 0.1 - 0.2 != 0
    budget.reserve(1.0, "all", stop)
    budget.settle(1.0, 0.5)
    with pytest.raises(BudgetReachedError, match=r"0\.5 of the budget of 1 is spent, and too much may cost up to 0\.6"):
        budget.reserve(0.6, "too much", stop)


def test_a_budget_needs_an_endpoint_that_counts():
    with ChatServer(sure, counts_tokens=False) as server:
        assert judge_at(server, prices=(1.0, 1.0)).usage.cost == 0
        with pytest.raises(EndpointError, match="does not say how many tokens"):
            judge_at(server, prices=(1.0, 1.0), budget=1.0).score(PROMPTS, RESPONSES)


@pytest.mark.slow
def test_requests_are_evenly_spaced_repeated_ones_included():
    with ChatServer(sure) as server:
        server.faults += [Fault(500), Fault(503)]
        judge = judge_at(server, requests_per_minute=600.0, concurrency=6, max_retries=2)
        judge.score(PROMPTS, RESPONSES)
    times = [one.time for one in server.received]
    assert len(times) == 14 == judge.usage.requests and judge.usage.retries == 2
    for number, moment in enumerate(times):  # as fast as allowed, but for what the way here took the first
        assert moment - times[0] > 0.1 * number - 0.3


@pytest.mark.slow
def test_the_gate_keeps_a_minutes_share_between_requests_from_many_threads():
    gate, times = Gate(requests_per_minute=1500.0), []

    class Request:
        headers: dict[str, str] = {}  # noqa: RUF012
        extensions: dict[str, float] = {}  # noqa: RUF012

    def leave():
        for _ in range(5):
            gate(Request())
            times.append(time.monotonic())

    threads = [threading.Thread(target=leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == gate.requests == 20
    assert max(times) - min(times) > 19 * 0.04 - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_are_on_their_way_than_allowed(concurrency):
    with ChatServer(sure, delay=0.03) as server:
        judge_at(server, concurrency=concurrency).score(PROMPTS, RESPONSES)
    assert server.most_at_once == concurrency


def test_progress_is_shown_on_request(capsys, tmp_path):
    with ChatServer(sure) as server:
        judge_at(server, cache=tmp_path).score(PROMPTS[:5], RESPONSES[:5])
        assert capsys.readouterr().err == ""
        judge_at(server, cache=tmp_path).score(PROMPTS, RESPONSES, progress=True)
    assert "asking" in (demonstrations := capsys.readouterr().err)
    assert "5/12" in demonstrations  # those that are there already
