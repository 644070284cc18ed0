"""The page, in a browser, against a service with a token."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import uvicorn
from service.browser import Browser

from arm_lens.service.app import Service

HOSTILE = "<img src=x onerror=\"document.title='taken over'\">"


@pytest.fixture
def address(served_judges):
    """A service with a token, in a thread; one of its reward models has a hostile name."""
    judges = [replace(served_judges[0], name=HOSTILE), *served_judges[1:]]
    server = uvicorn.Server(uvicorn.Config(Service(judges, token="open-sesame").app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_two_responses_are_compared_by_every_criterion(address, chromium, texts, reward_models, served_judges, width):
    (prompt, a), (_, b) = texts.texts[:2]
    with Browser(chromium) as browser:
        browser.open(address, width=width)
        browser.until("document.getElementById('model').innerText.includes('token')")
        for element, text in {"prompt": prompt, "a": a, "b": b}.items():
            browser.type_into(element, text)
        browser.value("document.getElementById('go').click()")
        browser.until("document.getElementById('error').innerText.includes('Authorization')")
        browser.console.clear()  # of the answers of 401
        browser.type_into("token", "open-sesame")
        browser.value("document.getElementById('go').click()")
        browser.until("document.querySelectorAll('.criterion').length > 0")
        assert browser.value("document.getElementById('error').innerText") == ""
        names = browser.value("[...document.querySelectorAll('.criterion h3')].map((one) => one.textContent)")
        assert names == [HOSTILE, *[one.name for one in served_judges[1:]]]
        shown = browser.value("[...document.querySelectorAll('.criterion')].map((one) => one.innerText)")
        heads = browser.value(
            "[...document.querySelectorAll('.heads svg')].map((one) => [...one.querySelectorAll('.on title')]"
            ".map((title) => title.textContent))"
        )
        for text, on, reward_model in zip(shown, heads, reward_models[0].values(), strict=True):
            expected = reward_model.prefer(prompt, a, b)
            assert f"{expected.preferred.upper()}preferred" in "".join(text.split())
            assert f"{reward_model.verdicts([prompt], [a]).two_way[0]:.3f}" in text
            assert set(on) == {str(head) for head in reward_model.heads}
        assert browser.value("document.title") == "Reward models"
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.console == []
        browser.open(address + "/docs", width=width)
        assert "POST /v1/score" in browser.value("document.body.innerText")
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.console == []
