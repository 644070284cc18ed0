"""docs/sharing.md: a reader has reward models of one language model, and an account on the hub."""

from __future__ import annotations

from docs.setups import _small
from hub_server import HubServer, pointed_at

from arm_lens import load_model

GIVEN = ("model", "reward", "test", "polite", "long")


def prepare(page):
    """Fit the reward models and start a hub; give what stands for the name of the model."""
    model = load_model(folder := _small.chat_model(page.cache))
    polite = _small.reward_model(page.folder, model)
    long = _small.reward_model(page.folder, model, criterion="long", first=2000)
    test = _small.examples(page.folder, 8, first=500)
    page.names |= {"model": model, "reward": polite, "test": test, "polite": polite, "long": long}
    pointed_at(page.monkeypatch, page.enter_context(HubServer()), page.folder / "hub")
    page.monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return {"meta-llama/Llama-3.2-1B-Instruct": folder}
