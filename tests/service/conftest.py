"""Reward models behind HTTP, as a process and as an application. Not a test file."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="package")
def reward_models(tmp_path_factory):
    """Four reward models on the bundled model by criterion, and the folder in which each has its own."""
    from bench_service import made_reward_models

    folder = tmp_path_factory.mktemp("reward-models")
    return made_reward_models(folder), folder


@pytest.fixture(scope="package")
def texts(reward_models):
    """Texts with the scores that each reward model gives them alone."""
    from bench_service import Texts

    return Texts.of(reward_models[0], 40)


@pytest.fixture(scope="package")
def served_judges(reward_models):
    """The same reward models as a service loads them."""
    from arm_lens.service.served import load_served

    found, folder = reward_models
    return load_served([str(folder / name) for name in found])


@pytest.fixture
def process(reward_models):
    """process(*options, **environment): ``arm-lens serve`` with the reward models, in a process of its own."""
    from bench_service import Served

    found, folder = reward_models

    def start(*options: str, **environment: str) -> Served:
        return Served(*(str(folder / name) for name in found), *options, environment={**os.environ, **environment})

    return start
