"""A service on a model that reads images: answers, refusals, and nothing that stays in memory."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient
from vision_examples import EXAMPLES, OPTIONS, arm, asked
from vision_models import picture

from arm_lens import GenerativeJudge, SparseAttentionVectors
from arm_lens.judges.options import ReadingOptions
from arm_lens.preferences.marks import KNOWN
from arm_lens.service.app import Service
from arm_lens.service.options import ServiceOptions
from arm_lens.service.served import Served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judges(seeing_of):
    model = seeing_of("llava").model
    few_shot = GenerativeJudge.fit(model, EXAMPLES, question=OPTIONS, reading=ReadingOptions(demonstrations=2))
    sav = SparseAttentionVectors.fit(model, EXAMPLES, question=OPTIONS, heads=3)
    return {"seen": arm(model), "few-shot": few_shot, "sav": sav}


@pytest.fixture
def client(judges):
    served = [Served(name, judge, "digest", "fingerprint") for name, judge in judges.items()]
    service = Service(served, ServiceOptions(max_images=2))
    with TestClient(service.app, base_url="http://localhost", raise_server_exceptions=False) as made:
        yield made


def sent(number, text="What is it?"):
    out = io.BytesIO()
    picture(number).save(out, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def test_answers_are_those_of_direct_scoring_and_images_are_forgotten(client, judges):
    before = dict(KNOWN)
    numbers = [101, 102, 103, 101]  # and 0, which a demonstration has too

    def one(number):
        return client.post("/v1/score", json={"items": [{"prompt": sent(number), "response": "a cat"}]})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, [*numbers, 0]))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert dict(KNOWN) == before
    for answer, number in zip(answers, [*numbers, 0], strict=True):
        for name, judge in judges.items():
            expected = judge.score([asked(number)], ["a cat"])
            assert answer.json()["results"][0][name]["reward"] == pytest.approx(float(expected), abs=1e-5)
    known = set(judges["seen"].model.images._placed.values())
    compared = client.post("/v1/compare", json={"prompt": sent(110), "a": "a cat", "b": "a dog"})
    assert compared.status_code == 200
    assert set(judges["seen"].model.images._placed.values()) == known
    assert client.get("/v1/reward-models").json()["reads_images"] is True


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "image", "image": "/etc/passwd"}, "which is not read here: pass its bytes"),
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "is on the web"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "is not an image"),
    ],
)
def test_what_is_not_an_image_that_was_sent_is_refused(part, reason, client):
    before = dict(KNOWN)
    prompt = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
    answer = client.post("/v1/score", json={"items": [{"prompt": prompt, "response": "b"}]})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == "items.0.prompt" and reason in error["message"]
    assert dict(KNOWN) == before


def test_too_many_images_are_refused_and_none_stays(client):
    before = dict(KNOWN)
    items = [{"prompt": sent(number), "response": "b"} for number in (120, 121, 122)]
    answer = client.post("/v1/score", json={"items": items})
    assert answer.status_code == 422 and "the 2 images that a request may have" in answer.text
    assert dict(KNOWN) == before
