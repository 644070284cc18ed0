"""``arm-lens serve`` as a process with many clients, and what it refuses to serve."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest
from bench_service import load, stopped_under_load
from typer.testing import CliRunner

from arm_lens.cli import app
from arm_lens.judges.artefact import WrongModelError
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.service.run import run
from arm_lens.service.served import load_served, named_folders


@pytest.mark.slow
def test_no_answer_to_50_clients_is_lost_or_swapped_and_sigterm_loses_nothing(process, texts):
    with process("--token-env", "TOKEN_OF_TEST", TOKEN_OF_TEST="secret") as service:
        address = (service.host, service.port)
        tally = asyncio.run(load(address, texts, 50, 4.0, token="secret"))
        assert tally.seconds
        assert (tally.wrong, tally.lost, tally.refused) == ([], 0, 0)
        last, (status, answered, accepted) = asyncio.run(stopped_under_load(service, texts, 50, token="secret"))
    assert status == 0
    assert last.wrong == []
    assert last.refused == 0
    assert answered == accepted == len(tally.seconds) + len(last.seconds)


def test_folders_have_names_and_each_name_is_one_reward_models(reward_models, tmp_path):
    found, folder = reward_models
    first, second = list(found)[:2]
    served = load_served([f"mine={folder / first}", str(folder / second)])
    assert [one.name for one in served] == ["mine", second]
    assert served[0].judge.model is served[1].judge.model
    with pytest.raises(ValueError, match=f"both called '{first}'; name one, NAME="):
        load_served([str(folder / first), str(folder / first)])
    with pytest.raises(ValueError, match="two folders are to be called 'x'"):
        named_folders(["x=a", "x=b"])
    (tmp_path / "a=b").mkdir()
    assert list(named_folders([str(tmp_path / "a=b")]).values()) == [str(tmp_path / "a=b")]
    with pytest.raises(FileNotFoundError, match="missing"):
        load_served([str(folder / first), str(folder / "missing")])


@pytest.mark.slow
def test_reward_models_of_another_language_model_are_refused_by_name(reward_models, model_of, tmp_path):
    found, folder = reward_models
    name, one = next(iter(found.items()))
    with pytest.raises(WrongModelError, match=rf"{name} was fitted on 'arm_lens judge model'.*random-llama"):
        load_served([str(folder / name)], model_of("llama"))
    assert isinstance(load_served([str(folder / name)], one.model)[0].judge, ActivationRewardModel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "no token"),
        (["--token-env", "NOT_SET_HERE"], "NOT_SET_HERE is not set"),
        (["--queue", "3"], "queue=256"),
    ],
)
def test_a_service_that_would_be_open_or_useless_is_refused(reward_models, arguments, message):
    found, folder = reward_models
    done = CliRunner().invoke(app, ["serve", *(str(folder / name) for name in found), *arguments])
    assert isinstance(done.exception, ValueError)
    assert message in str(done.exception)


def test_without_the_extra_the_error_names_it(reward_models, monkeypatch):
    monkeypatch.delitem(sys.modules, "arm_lens.service.app")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = CliRunner().invoke(app, ["serve", str(reward_models[1] / next(iter(reward_models[0])))])
    assert isinstance(done.exception, ImportError)
    assert "pip install 'arm-lens[serve]'" in str(done.exception)


def test_an_address_in_use_is_an_error(served_judges):
    from arm_lens.service.app import Service

    service = Service(served_judges)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        run(service, "127.0.0.1", other.getsockname()[1], started=lambda address: None)
    service.close()
