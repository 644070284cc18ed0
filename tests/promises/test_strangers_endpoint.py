"""What an endpoint sends is a stranger's: checked before it is stored, bounded, and without any secret in what is shown."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import logging
import math
import os
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from judges.chat_server import ChatServer, Fault, Reply
from judges.endpoint_support import KEY, chance, endpoint_judge, judge_at, sure

from arm_lens.benchmark import read_config
from arm_lens.benchmark.config import UnconfirmedKeyError
from arm_lens.cli import app
from arm_lens.judges.endpoint import transport
from arm_lens.judges.endpoint.answers import AnswerStore
from arm_lens.judges.endpoint.errors import EndpointError
from arm_lens.judges.endpoint.judge import EndpointJudge
from arm_lens.judges.endpoint.options import EndpointOptions
from arm_lens.judges.template import JudgeTemplate
from arm_lens.registry import JUDGES, OptionsError

ANSWERS = int(os.environ.get("ARM_LENS_MUTATIONS", "105"))
"""How many mutated answers are tried."""
RIGHT = chance(JudgeTemplate().question("How?", "So."))
PASSWORD = "pass word/7"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def completion(**changes: Any) -> dict[str, Any]:
    """A chat completion as `sure` gives it, with other fields of its choice or of its message's log-probabilities."""
    likely = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in (("Yes", -0.2), ("No", -2.0))]
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": "Yes"},
        "finish_reason": "stop",
        "logprobs": {"content": [likely[0] | {"top_logprobs": likely}]},
    }
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    return {"id": "1", "object": "chat.completion", "choices": [choice | changes], "usage": usage}


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


# ------------------------------------------------------------------------------------------ checked before it is stored


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (body(completion(message={"content": [{"type": "text", "text": "Yes"}]})), "choices.0.message.content"),
        (body(completion(message={"content": 3})), "choices.0.message.content"),
        (body(completion(message=None)), "choices.0.message"),
        (body(completion(finish_reason=["stop"])), "choices.0.finish_reason"),
        (body(completion(logprobs={"content": [{"token": "Yes", "logprob": None}]})), "logprobs.content.0.logprob"),
        (body(completion(logprobs={"content": [{"token": "Yes", "logprob": "-1"}]})), "logprobs.content.0.logprob"),
        (body(completion(logprobs={"content": [{"token": "Yes", "logprob": 5.0}]})), "logprobs.content.0.logprob"),
        (body(completion(logprobs={"content": [{"token": "Yes", "logprob": float("nan")}]})), "not a finite number"),
        (body(completion(logprobs={"content": {}})), "logprobs.content"),
        (body(completion() | {"choices": {"0": 1}}), "choices"),
        (body(completion() | {"usage": {"prompt_tokens": -5, "completion_tokens": 1}}), "usage.prompt_tokens"),
        (body(completion() | {"usage": {"prompt_tokens": True, "completion_tokens": 1}}), "usage.prompt_tokens"),
        (body([1, 2]), "something other than a chat completion"),
        (b"[" * 100_000, "nested"),
        (b"\xff\xfe", "something other than a chat completion"),
        (b"", "something other than a chat completion"),
        (b'{"error": "overloaded \x1b[2J"}', "something other than a chat completion"),
    ],
)
def test_a_wrong_answer_is_one_error_and_is_asked_for_again_by_the_next_run(tmp_path, content, reason):
    with ChatServer(sure) as server:
        server.faults.append(Fault(body=content))
        with pytest.raises(EndpointError, match=reason) as error:
            judge_at(server, cache=tmp_path / "answers").score(["How?"], ["So."])
        assert "example 0" in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 700
        assert len(AnswerStore(tmp_path / "answers")) == 0
        assert judge_at(server, cache=tmp_path / "answers").score(["How?"], ["So."])[0] == pytest.approx(RIGHT)


def likely(*tokens: tuple[str, float]) -> dict[str, Any]:
    return {
        "token": tokens[0][0],
        "logprob": tokens[0][1],
        "top_logprobs": [{"token": a, "logprob": b} for a, b in tokens],
    }


def test_probabilities_are_those_of_the_verdict_or_none():
    def answered(text: str, *tokens: dict[str, Any]) -> EndpointJudge:
        server.faults.append(
            Fault(body=body(completion(message={"content": text}, logprobs={"content": list(tokens)})))
        )
        return judge_at(server)

    def score(judge: EndpointJudge) -> float:
        return judge.score(["How?"], ["So."]).item()

    with ChatServer(sure) as server:
        # in pieces, of which none is the verdict: the words count, not what else the first piece might have been
        pieces = likely(("Y", -0.1), ("N", -3.0), ("No", -3.2)), likely(("es", 0.0))
        judge = answered("Yes", *pieces)
        assert score(judge) == 1.0 and judge.usage.from_text == 1 and judge.usage.unparsed == 0
        # two tokens with one text
        yes, other, no = 0.5, 0.01, 0.3
        tokens = [("Yes", math.log(yes)), ("No", math.log(no)), ("Yes", math.log(other))]
        assert score(answered("Yes", likely(*tokens))) == pytest.approx((yes + other) / (yes + other + no))
        assert score(answered("Yes", likely(*tokens[:2], tokens[0]))) == pytest.approx(yes / (yes + no))
        # neither in the words nor likely
        judge = answered("I cannot say", likely(("I", -0.01), ("Yes", -9.0), ("No", -14.0)))
        assert score(judge) == 0.5 and judge.usage.unparsed == 1
        with pytest.raises(EndpointError, match=r"probabilities of 2 tokens add up to 2, more than 1"):
            score(answered("Yes", likely(("Yes", 0.0), ("No", 0.0))))


VALUES: list[Any] = [
    None, True, -1, 0, 10**15, 10**30, 1e308, -1e308, float("nan"), float("-inf"), "", "Yes", "\x00", "\ud800", [], {}, [[]],
    ["Yes"], {"token": "Yes", "logprob": -0.1}, "No" * 5000,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*path, name))


def mutated(order: random.Random) -> bytes:
    """A chat completion with one thing changed."""
    value = completion()
    *way, last = order.choice(list(places(value)))
    parent: Any = value
    for name in way:
        parent = parent[name]
    kind = order.choice(["replace", "replace", "replace", "delete", "nest", "bytes"])
    if kind == "replace":
        parent[last] = copy.deepcopy(order.choice(VALUES))
    elif kind == "delete":
        del parent[last]
    elif kind == "nest":
        for _ in range(order.choice([1, 500])):
            parent[last] = [parent[last]]
    content = body(value)
    if kind == "bytes":
        start = order.randrange(len(content))
        flipped = content[:start] + bytes([content[start] ^ 1 << order.randrange(8)]) + content[start + 1 :]
        content = order.choice([flipped, content[:start], content[start:], content * 2])
    return content


@pytest.mark.slow
def test_mutated_answers_are_read_or_refused_and_what_is_stored_can_be_read_again(tmp_path):
    answered = 0
    with ChatServer(sure) as server:
        for number in range(ANSWERS):
            cache, content = tmp_path / str(number), mutated(random.Random(number))
            server.faults.append(Fault(body=content))
            judge = judge_at(server, cache=cache)
            try:
                scores = judge.score(["How?"], ["So."])
            except EndpointError as error:
                assert "example 0" in str(error) and str(error).isprintable(), (number, content)
                assert len(AnswerStore(cache)) == 0, (number, content)
            else:
                answered += 1
                assert 0 <= scores[0] <= 1, (number, content)
                assert torch.equal(judge_at(server, cache=cache).score(["How?"], ["So."]), scores), (number, content)
                assert not server.faults
    assert ANSWERS / 10 < answered < ANSWERS


def test_an_answer_that_ends_in_half_a_character_is_read(tmp_path):
    with ChatServer(sure) as server:
        server.faults.append(Fault(body=body(completion(message={"content": "Yes. \ud83d"}))))
        judge = judge_at(server, cache=tmp_path)
        assert judge.score(["How?"], ["So."])[0] > 0.5
        assert judge_at(server, cache=tmp_path).score(["How?"], ["So."])[0] > 0.5


# ------------------------------------------------------------------------------------------ bounded


def test_an_answer_beyond_the_largest_is_not_read_further_and_not_asked_for_again(monkeypatch):
    monkeypatch.setattr(transport, "MOST_BYTES", 100_000)
    with ChatServer(sure) as server:
        server.faults += [Fault(body=body(completion(message={"content": "Yes " * 100_000})))] * 3
        with pytest.raises(EndpointError, match="more than 100,000 bytes"):
            judge_at(server, max_retries=2).score(["How?"], ["So."])
        assert len(server.received) == 1


def test_a_compressed_answer_is_refused_before_it_expands():
    with ChatServer(sure) as server:
        bomb = gzip.compress(bytes(50_000_000))
        server.faults.append(Fault(headers={"Content-Encoding": "gzip"}, body=bomb))
        with pytest.raises(EndpointError, match="an uncompressed one was requested"):
            judge_at(server, max_retries=2).score(["How?"], ["So."])
    assert server.received[0].headers["accept-encoding"] == "identity"


@pytest.mark.slow
def test_an_answer_that_drips_is_given_up_on_in_time():
    with ChatServer(sure) as server:
        server.faults += [Fault(body=body(completion()), drip=0.05)] * 2
        start = time.monotonic()
        with pytest.raises(EndpointError, match=r"did not answer example 0 within 0\.5 seconds, asked 2 times"):
            judge_at(server, timeout=0.5, max_retries=1).score(["How?"], ["So."])
        assert time.monotonic() - start < 8


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("raw", "again"),
    [
        (OK, b"X"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"a"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"a"),
        (OK + b"Content-Length: 99999\r\n\r\n", b" "),
    ],
    ids=["headers", "100 Continue", "length of a chunk", "trailers", "body"],
)
def test_whatever_drips_is_given_up_on_in_time(raw, again):
    with ChatServer(sure) as server:
        server.faults.append(Fault(raw=raw, again=again, drip=0.02))
        start = time.monotonic()
        with pytest.raises(EndpointError, match=r"did not answer example 0 within 0\.3 seconds, asked once"):
            judge_at(server, timeout=0.3).score(["How?"], ["So."])
        assert time.monotonic() - start < 5
        assert judge_at(server).score(["How?"], ["So."])[0] == pytest.approx(RIGHT)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status):
    with ChatServer(sure) as other, ChatServer(sure) as server:
        server.faults.append(Fault(status, {"Location": f"{other.url}/chat/completions?token=x"}, b"{}"))
        with pytest.raises(EndpointError, match=r"redirects are not followed.*set base_url to it") as error:
            judge_at(server).score(["How?"], ["So."])
    assert not other.received and other.url in str(error.value) and "token=x" not in str(error.value)


# ------------------------------------------------------------------------------------------ secrets


def everything_shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
def test_a_key_that_is_echoed_in_an_error_is_nowhere(caplog, capfd, status):
    caplog.set_level(logging.DEBUG)
    with ChatServer(sure) as server:
        echo = {"error": {"message": f"bad key {KEY}, Bearer {KEY}", "code": None}, "key": KEY}
        server.faults.append(Fault(status, body=body(echo)))
        with pytest.raises(EndpointError) as error:
            judge_at(server).score(["How?"], ["So."])
    shown = everything_shown(error.value) + caplog.text + "".join(capfd.readouterr())
    assert KEY not in shown and "[hidden]" in str(error.value)


def test_a_key_among_the_likely_tokens_is_not_stored(tmp_path):
    with ChatServer(lambda request: Reply("Yes", [("Yes", {"Yes": 0.7, KEY: 0.2, "No": 0.1})])) as server:
        assert judge_at(server, cache=tmp_path).score(["How?"], ["So."])[0] == 1.0
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("url", ["me:hunter2@host", "http://me:hunter2@h:port/v1", "http://me:hunter2@a..b/v1",
                                 "http://me:hunter2@h\x01st/v1", "http://me@host/v1?key=hunter2"])  # fmt: skip
def test_an_address_that_is_none_is_refused_and_not_shown(monkeypatch, url):
    with pytest.raises(ValueError, match="expected an address such as") as error:
        EndpointOptions(base_url=url)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ValueError, match="environment variable OPENAI_BASE_URL is not an address such as") as own:
        endpoint_judge()
    assert "hunter2" not in str(error.value) + str(own.value)


def test_no_part_of_a_key_is_left_where_a_message_is_cut():
    with ChatServer(sure) as server:
        for pad in range(170, 305, 3):
            text = "x" * pad + KEY
            server.faults += [Fault(400, body=body({"error": {"message": text}})), Fault(body=text.encode())]
            for _ in range(2):
                with pytest.raises(EndpointError) as error:
                    judge_at(server).score(["How?"], ["So."])
                assert KEY[:4] not in str(error.value)


def test_no_other_variable_of_the_environment_leaves_for_a_strangers_host(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: gate-mine\nAuthorization: Bearer other-mine")
    for name in ("ADMIN_KEY", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", "sk-mine")
    with ChatServer(sure) as server:
        judge_at(server).score(["How?"], ["So."])
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        judge_at(server).score(["How?"], ["So."])
    strange, own = (one.headers for one in server.received)
    assert not any("mine" in value for value in strange.values())
    assert strange["authorization"] == f"Bearer {KEY}"
    assert (own["openai-organization"], own["x-gateway"]) == ("org-mine", "gate-mine")


@pytest.mark.parametrize("key", ["sk-\xe9-secret", "sk-\x01secret", "sk-a\nsecret"])
def test_a_key_that_cannot_be_sent_is_named_by_its_variable(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match="environment variable OPENAI_API_KEY has a character") as error:
        endpoint_judge()
    assert "secret" not in everything_shown(error.value)


def test_a_key_that_is_echoed_in_an_answer_is_not_stored(tmp_path):
    with ChatServer(lambda request: Reply(f"Yes. {KEY}", [(KEY, {KEY: 0.9, "No": 0.1})])) as server:
        judge = judge_at(server, cache=tmp_path)
        assert judge.score(["How?"], ["So."])[0] > 0.5
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in stored and b"[hidden]" in stored


def test_a_password_in_the_address_is_used_and_shown_nowhere(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    quoted = PASSWORD.replace(" ", "%20").replace("/", "%2F")
    with ChatServer(sure) as server:
        url = server.url.replace("http://", f"http://me:{quoted}@")
        header = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        server.faults.append(Fault(400, body=body({"error": {"message": f"no {PASSWORD} {quoted} Basic {header}"}})))
        judge = endpoint_judge(base_url=url, max_retries=0, cache=tmp_path)
        with pytest.raises(EndpointError) as error:
            judge.score(["How?"], ["So."])
        judge.score(["How?"], ["So."])
    assert server.received[0].headers["authorization"].startswith("Basic ")
    options = EndpointOptions(base_url=url)
    shown = everything_shown(error.value) + caplog.text + "".join(capfd.readouterr())
    shown += (
        repr(options) + str(options) + options.model_dump_json() + str(options.model_dump(mode="json")) + repr(judge)
    )
    shown += "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert not any(secret in shown for secret in (PASSWORD, quoted, header))
    assert options.model_dump(mode="json")["base_url"] == server.url and options.base_url == url


def test_an_error_about_options_shows_no_password():
    url = f"http://me:{KEY}@localhost/v1"
    for options in ({"timeout": -1}, {"budget": 1.0}, {"base_url": f"me:{KEY}@nowhere"}, {"base_url": url + "?a=b"}):
        with pytest.raises(ValueError) as error:
            EndpointOptions(**{"base_url": url} | options)
        assert KEY not in everything_shown(error.value)


def configuration(folder: Path, **options: Any) -> Path:
    rows = [{"prompt": f"p{n}", "response": f"r{n}", "label": n % 2 == 0} for n in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = {"kind": "preferences", "name": "mine", "path": "rows.jsonl", "pool": 4}
    values = {"judges": ["length", {"judge": "endpoint", "model": "judge", **options}], "lead": "length",
              "n_examples": [2], "test_items": 4, "studies": [study]}  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder / "run.yaml"


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"api_key_env": "AWS_SECRET", "base_url": "http://me:pw@evil.example:81/v1"}, "AWS_SECRET=evil.example:81"),
        ({"base_url": "http://evil.example/v1"}, "OPENAI_API_KEY=evil.example"),
        ({"endpoint": {"base_url": "http://api.openai.com.evil.example/v1"}}, "OPENAI_API_KEY=api.openai.com.evil.example"),
        ({"base_url": "http://api.openai.com@evil.example/v1"}, "OPENAI_API_KEY=evil.example"),
        ({"base_url": "http://api.openai.com/v1"}, "OPENAI_API_KEY=api.openai.com"),  # not encrypted
        ({"api_key_env": "AWS_SECRET_ACCESS_KEY"}, "AWS_SECRET_ACCESS_KEY=api.openai.com"),
        ({}, None),
        ({"api_key_env": None, "base_url": "http://evil.example/v1"}, None),
        ({"base_url": "https://api.openai.com/v1"}, None),
    ],
)  # fmt: skip
def test_a_file_sends_a_key_only_where_the_user_says(tmp_path, monkeypatch, options, sent):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    path = configuration(tmp_path, **options)
    if sent is None:
        assert read_config(path).choices
        return
    for allowed in ([], [sent + "x"], ["OPENAI_API_KEY=api.openai.co"]):
        with pytest.raises(UnconfirmedKeyError, match=f"--allow-key {sent} ") as error:
            read_config(path, allow_keys=allowed)
        assert "pw@" not in str(error.value)
    assert read_config(path, allow_keys=[sent]).choices


def test_the_users_own_address_in_the_environment_is_trusted_with_the_usual_key(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://mine.example/v1")
    assert read_config(configuration(tmp_path)).choices
    assert read_config(configuration(tmp_path, base_url="http://mine.example/v1")).choices
    with pytest.raises(UnconfirmedKeyError, match=r"--allow-key OTHER_KEY=mine\.example"):
        read_config(configuration(tmp_path, api_key_env="OTHER_KEY"))


@pytest.mark.slow
def test_a_run_keeps_the_password_out_of_its_folder(tmp_path, capfd):
    with ChatServer(sure) as server:
        url = server.url.replace("http://", 'http://me:hunter2@se"c ret@')
        host = url.rpartition("@")[2].partition("/")[0]
        path = configuration(tmp_path, base_url=url, max_retries=0)
        with pytest.raises(UnconfirmedKeyError):
            app(["benchmark", str(path), "--out", str(tmp_path / "no"), "--no-images"], standalone_mode=False)
        app(
            [
                "benchmark",
                str(path),
                "--out",
                str(tmp_path / "out"),
                "--no-images",
                "--allow-key",
                f"OPENAI_API_KEY={host}",
            ],
            standalone_mode=False,
        )
    assert server.received
    shown = "".join(capfd.readouterr()).encode()
    written = [file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()]
    for secret in (b"hunter2", b"ret@", KEY.encode()):
        assert not any(secret in content for content in [*written, shown])


# ------------------------------------------------------------------------------------------ in words


@pytest.mark.parametrize(
    "prices", [[0.15], [], 3, "0.15, 0.6", {"in": 1}, [0.1, None], [0.1, -1], [0.1, float("nan")], [1, 2, 3]]
)
def test_prices_that_are_not_two_are_explained(prices):
    with pytest.raises(
        OptionsError, match="expected two prices, of a million prompt tokens and of a million completion tokens"
    ):
        JUDGES["endpoint"].parse({"model": "m", "prices": prices})
