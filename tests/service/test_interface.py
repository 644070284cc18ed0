"""The interface as an application in this process: answers, refusals, limits."""

from __future__ import annotations

import json
from concurrent.futures import Future

import pytest
from starlette.testclient import TestClient

from arm_lens.engine.finite import NotFiniteError
from arm_lens.service.app import Service
from arm_lens.service.options import ServiceOptions, check_host, is_loopback, token_of

LOCAL = "http://localhost"


@pytest.fixture
def client(served_judges):
    """client(token=..., local=..., **options): requests to a service; an error in it is an answer of 500."""
    opened = []

    def make(token=None, local=True, **options):
        service = Service(served_judges, ServiceOptions(**options), token=token, local=local)
        made = TestClient(service.app, base_url=LOCAL, raise_server_exceptions=False)
        made.__enter__()
        made.service = service
        opened.append(made)
        return made

    yield make
    for one in opened:
        one.__exit__(None, None, None)


def item(text):
    return {"prompt": text[0], "response": text[1]}


def refused(answer, status, field):
    """The message about a field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    errors = {one["field"]: one["message"] for one in answer.json()["errors"]}
    assert field in errors
    return errors[field]


def strict(answer):
    """The answer's JSON, in which NaN and infinity are errors."""

    def fail(name):
        raise AssertionError(name)

    return json.loads(answer.text, parse_constant=fail)


def test_scores_are_those_of_each_reward_model_alone(client, texts):
    numbers = [0, 7, 3, 7]
    answer = client().post("/v1/score", json={"items": [item(texts.texts[one]) for one in numbers]})
    assert answer.status_code == 200
    found = strict(answer)["results"]
    for row, number in zip(found, numbers, strict=True):
        assert set(row) == set(texts.expected)
        for name, expected in texts.expected.items():
            assert row[name] == pytest.approx(expected[number], abs=1e-5)


def test_criteria_are_answered_in_the_order_of_the_request(client, texts):
    names = list(texts.expected)[2:0:-1]
    answer = client().post("/v1/score", json={"items": [item(texts.texts[0])], "criteria": names}).json()
    assert list(answer["results"][0]) == names


def test_a_comparison_is_the_reward_models_own(client, texts, reward_models):
    (prompt, a), (_, b) = texts.texts[:2]
    found = strict(client().post("/v1/compare", json={"prompt": prompt, "a": a, "b": b}))["results"]
    for name, reward_model in reward_models[0].items():
        expected = reward_model.prefer(prompt, a, b)
        assert found[name]["preferred"] == expected.preferred
        assert found[name]["margin"] == pytest.approx(expected.margin, abs=1e-4)
        assert found[name]["a"] == pytest.approx(texts.expected[name][0], abs=1e-5)


def test_conversations_are_read_as_the_library_reads_them(client, reward_models):
    name, reward_model = next(iter(reward_models[0].items()))
    prompt = [{"role": "user", "content": "tell me about the mill"}]
    response = [{"role": "assistant", "content": "the mill is old"}]
    body = {"items": [{"prompt": prompt, "response": response}], "criteria": [name]}
    found = client().post("/v1/score", json=body).json()["results"][0][name]["reward"]
    assert found == pytest.approx(float(reward_model.score([prompt], [response])[0]), abs=1e-5)


def test_what_is_served_is_described(client, reward_models):
    found = {one["name"]: one for one in strict(client().get("/v1/reward-models"))["reward_models"]}
    for name, reward_model in reward_models[0].items():
        assert found[name]["criterion"] == name
        assert found[name]["heads"] == [list(head) for head in reward_model.heads.to_list()]
        assert (found[name]["model"], found[name]["dtype"]) == (reward_model.info.name, "float32")
    assert len({one["digest"] for one in found.values()}) == len(found)
    assert len({one["fingerprint"] for one in found.values()}) == 1


def test_health_metrics_and_pages(client, texts):
    one = client()
    one.post("/v1/score", json={"items": [item(text) for text in texts.texts[:3]]})
    one.get("/strangers/path")
    assert one.get("/health").json() == {"status": "ok", "waiting": 0}
    text = one.get("/metrics").text
    assert 'arm_lens_requests_total{path="/v1/score",status="200"} 1.0' in text
    assert 'arm_lens_requests_total{path="other",status="404"} 1.0' in text
    assert f"arm_lens_batch_questions_sum {3.0 * len(texts.expected)}" in text
    assert "arm_lens_queue_questions 0.0" in text
    for path in ("/", "/docs"):
        page = one.get(path)
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")
    assert "/v1/score" in one.get("/docs").text
    described = one.get("/openapi.json").json()["paths"]["/v1/score"]["post"]["responses"]["200"]
    assert described["content"]["application/json"]["schema"]["$ref"].endswith("/ScoreResponse")


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "items", "required"),
        ({"items": []}, "items", "at least 1"),
        ({"items": [{"prompt": "a"}]}, "items.0.response", "required"),
        ({"items": [{"prompt": "a", "response": 3}]}, "items.0.response", "string"),
        ({"items": [{"prompt": "a", "response": "\ud800"}]}, "items.0.response", "half of a character"),
        ({"items": [{"prompt": [{"role": "user"}], "response": "b"}]}, "items.0.prompt", "content"),
        ({"items": [{"prompt": "a", "response": "b", "responce": "c"}]}, "items.0.responce", "not a known field"),
        ({"items": [{"prompt": [{"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]}], "response": "b"}]},
         "items.0.prompt", "image"),
        ({"items": [{"prompt": "a", "response": "b"}], "criteria": ["kind"]}, "criteria.0", "'kind' is not served"),
        ({"items": [{"prompt": "a", "response": "b"}], "criteria": []}, "criteria", "at least 1"),
        ({"items": [{"prompt": "a", "response": "b"}] * 65}, "items", "at most 64"),
        ({"items": [{"prompt": "a", "response": "b"}, {"prompt": "x" * 20_001, "response": "b"}]}, "items.1.prompt", "20001"),
        ({"items": [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": "c " * 600}]}, "items.1", "context 512"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(client, body, field, message):
    content = json.dumps(body)
    answer = client().post("/v1/score", content=content, headers={"content-type": "application/json"})
    assert message in refused(answer, 422, field)


def test_each_wrong_item_is_named_and_what_is_too_long_has_a_clients_remedy(client):
    items = [{"prompt": "a", "response": text} for text in ("b", "c " * 600, "d", "e " * 700)]
    answer = client().post("/v1/score", json={"items": items})
    assert [one["field"] for one in answer.json()["errors"]] == ["items.1", "items.3"]
    assert refused(answer, 422, "items.1").endswith("send shorter texts")


@pytest.mark.parametrize("content", [b"{", b"[" * 50_000, b"\xff\xfe", b'{"items": NaN}', b"", b"null", b'"items"'])
def test_malformed_bodies_are_refused(client, content):
    answer = client().post("/v1/score", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert strict(answer)["errors"]


def test_other_methods_and_paths_are_refused_in_json(client):
    one = client()
    refused(one.put("/v1/score"), 405, "method")
    refused(one.get("/nothing"), 404, "path")


def test_a_large_body_is_refused_also_without_its_length(client):
    one = client(max_body=2000)
    assert "larger than 2000 bytes" in refused(one.post("/v1/score", content=b" " * 2001), 413, "body")

    def parts():
        yield from [b" " * 500] * 5

    refused(one.post("/v1/score", content=parts()), 413, "body")


def test_without_the_token_nothing_is_told(client, texts):
    one = client(token="correct horse".replace(" ", "-"))
    body = {"items": [item(texts.texts[0])]}
    for path in ("/v1/score", "/v1/compare"):
        assert "missing" in refused(one.post(path, json=body), 401, "Authorization")
    for wrong in ("Bearer wrong", "Bearer ", "correct-horse", "Basic correct-horse"):
        answer = one.post("/v1/score", json=body, headers={"authorization": wrong})
        assert "not the service's token" in refused(answer, 401, "Authorization")
    for path in ("/v1/reward-models", "/metrics"):
        assert one.get(path).status_code == 401
    right = {"authorization": "Bearer correct-horse"}
    assert one.post("/v1/score", json=body, headers=right).status_code == 200
    assert one.get("/health").status_code == one.get("/").status_code == 200


def test_other_names_of_this_machine_need_a_token_or_an_open_service(client):
    assert "machine" in refused(client().get("/health", headers={"host": "evil.example"}), 421, "Host")
    for host in ("127.0.0.1:8000", "[::1]:8000", "localhost:1", "LOCALHOST"):
        assert client().get("/health", headers={"host": host}).status_code == 200
    assert client(token="t").get("/health", headers={"host": "example.org"}).status_code == 200
    assert client(local=False).get("/health", headers={"host": "example.org"}).status_code == 200


def test_a_full_queue_is_429_with_the_seconds_to_wait(client, texts, monkeypatch):
    one = client(queue=256)
    one.service.batcher.reserve(253)
    answer = one.post("/v1/score", json={"items": [item(texts.texts[0])]})
    assert "253 questions wait and 4 more" in refused(answer, 429, "items")
    assert int(answer.headers["retry-after"]) >= 1
    one.service.batcher.release(1)
    assert one.post("/v1/score", json={"items": [item(texts.texts[0])]}).status_code == 200
    assert one.service.batcher.waiting == 252
    one.post("/v1/score", json={"items": [{"prompt": "a", "response": "c " * 600}]})
    assert one.service.batcher.waiting == 252  # what is refused gives its room back
    one.service.batcher.release(252)


def test_a_queue_that_no_large_request_fits_into_is_refused(served_judges):
    with pytest.raises(ValueError, match="queue=256"):
        Service(served_judges, ServiceOptions(queue=255))


def test_a_score_that_is_not_a_number_is_named_and_a_defect_is_500(client, monkeypatch, texts):
    one = client()

    def answered_by(error):
        future = Future()
        future.set_result([error])
        monkeypatch.setattr(one.service.batcher, "submit", lambda questions: future)
        return one.post("/v1/score", json={"items": [item(texts.texts[0])], "criteria": [next(iter(texts.expected))]})

    assert "NaN" in refused(answered_by(NotFiniteError("NaN")), 422, "items.0")
    assert answered_by(KeyError("a defect")).status_code == 500


def test_hosts_and_tokens_are_checked_before_anything_is_loaded():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.0.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "example.org", "::", "")))
    with pytest.raises(ValueError, match="--token-env"):
        check_host("0.0.0.0", None, False)
    check_host("0.0.0.0", "token", False)
    check_host("0.0.0.0", None, True)
    assert token_of("") is None
    assert token_of("T", {"T": "secret"}) == "secret"
    for environment in ({}, {"T": ""}, {"T": "two words"}, {"T": "schlüssel"}):
        with pytest.raises(ValueError, match="T"):
            token_of("T", environment)
