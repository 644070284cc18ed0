"""A judge at a local server, and the models behind it."""

from __future__ import annotations

import hashlib

from judges.chat_server import Reply, text_in

from arm_lens.judges.endpoint.judge import EndpointJudge
from arm_lens.judges.endpoint.options import EndpointOptions
from arm_lens.judges.options import QuestionOptions

KEY = "sk-very-secret-7c1d"
PROMPTS = [f"What is {number} and {number}?" for number in range(12)]
RESPONSES = [f"It is {2 * number}." for number in range(12)]


def judge_at(server, **options) -> EndpointJudge:
    return endpoint_judge(**{"base_url": server.url, "max_retries": 0, "timeout": 10.0} | options)


def endpoint_judge(model="judge", **options) -> EndpointJudge:
    """With the options of question and endpoint among the others."""
    question, endpoint = (
        group(**{name: options.pop(name) for name in list(options) if name in group.model_fields})
        for group in (QuestionOptions, EndpointOptions)
    )
    return EndpointJudge(model, question=question, endpoint=endpoint, **options)


def chance(text: str) -> float:
    """A probability that depends on the text alone."""
    return (1 + hashlib.sha256(text.encode()).digest()[0]) / 258


def says(text: str):
    return lambda body: Reply(text)


def sure(body) -> Reply:
    """Answers with log-probabilities; P(Yes) or P(A) is the chance of the question."""
    question = text_in(body["messages"][-1])
    yes, no = ("A", "B") if "Answer A or B" in question else ("Yes", "No")
    p = chance(question)
    likely = {yes: 0.9 * p, no: 0.9 * (1 - p), "Hm": 0.1}
    text = yes if p > 0.5 else no
    return Reply(text, [(text, likely)])


def longer(body) -> Reply:
    """Prefers the longer response, and calls one of more than 9 characters good."""
    question = text_in(body["messages"][-1])
    if "Answer A or B" in question:
        a, b = (question.split(f"Response {name}:\n")[1].split("\n\n")[0] for name in "AB")
        return Reply("A" if len(a) > len(b) else "B")
    return Reply("Yes" if len(question.split("Response:\n")[1].split("\n\n")[0]) > 9 else "No")
