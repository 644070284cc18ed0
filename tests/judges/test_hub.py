"""Judges on the hub: pushed and loaded byte for byte, pinned, checked, and with no model that nobody named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from hub_server import HubServer, pointed_at
from typer.testing import CliRunner

from arm_lens import ActivationRewardModel, GenerativeJudge, HeadSet, LabelledResponse
from arm_lens.cli.commands import app
from arm_lens.judges import NoPictureWarning, load_judge
from arm_lens.judges.artefact import ArtefactError, UnconfirmedModelError, WrongModelError
from arm_lens.judges.model_card import CARD
from arm_lens.judges.options import ReadingOptions
from arm_lens.service.served import load_served

PROMPTS, RESPONSES = ["the garden", "a mill"], ["it is warm", "cold ."]
NAME = "somebody/polite-judge"
EXAMPLES = [
    LabelledResponse(f"the {one}", f"{one} it is", bool(i % 2))
    for i, one in enumerate(["river", "mill", "hotel", "farm"])
]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        pointed_at(monkeypatch, server, tmp_path / "cache")
        yield server


@pytest.fixture
def judge(model_of):
    """A judge without heads, so that no picture is drawn."""
    return GenerativeJudge(model_of("llama"), question="is it warm?")


@pytest.fixture
def pushed(hub, judge):
    return judge.push_to_hub(NAME, token="hf_secret")


def files_of(hub, revision="main"):
    return hub.repositories[NAME].at(revision)[1]


def test_what_is_pushed_is_loaded_byte_for_byte_and_nothing_else_is_downloaded(hub, judge, model_of, tmp_path):
    saved = judge.save(tmp_path / "saved")
    commit = judge.push_to_hub(NAME, token="hf_secret")
    there, local = (
        files_of(hub),
        {one.name: one.read_bytes() for one in saved.iterdir() if not one.name.startswith(".")},
    )
    assert there.keys() == {*local, ".gitattributes"}
    assert all(there[name] == content for name, content in local.items() if name != CARD)
    hub.repositories[NAME].commit(
        "main", there | {"pytorch_model.bin": b"a pickle", "modeling.py": b"raise SystemExit"}
    )
    hub.requests.clear()
    for name in (NAME, f"hf://{NAME}"):
        loaded = load_judge(name, model_of("llama"))
        assert torch.equal(loaded.score(PROMPTS, RESPONSES), judge.score(PROMPTS, RESPONSES))
    assert sorted(hub.downloads()) == sorted(local)
    again = loaded.save(tmp_path / "again")
    assert {one.name: one.read_bytes() for one in again.iterdir() if not one.name.startswith(".")} == local
    assert hub.repositories[NAME].at(commit) is not None and hub.repositories[NAME].private is False


def test_a_revision_is_that_commit_and_the_tensors_of_older_judges_are_not_piled_up(hub, judge, model_of):
    first = judge.push_to_hub(NAME, token="hf_secret", private=True)
    other = GenerativeJudge.fit(model_of("llama"), EXAMPLES, reading=ReadingOptions(demonstrations=2))
    second = other.push_to_hub(NAME, token="hf_secret")
    branch = judge.push_to_hub(NAME, token="hf_secret", revision="first")
    assert len({first, second, branch}) == 3 and hub.repositories[NAME].private
    assert sum(name.startswith("tensors-") for name in files_of(hub)) == 1
    expected = {first: judge, second: other, "main": other, branch: judge, "first": judge}
    for revision, one in expected.items():
        loaded = GenerativeJudge.load(NAME, model_of("llama"), revision=revision, token="hf_secret")
        assert torch.equal(loaded.score(PROMPTS, RESPONSES), one.score(PROMPTS, RESPONSES)), revision


def test_a_token_goes_to_the_hub_and_nowhere_else(monkeypatch, tmp_path, judge, model_of):
    with HubServer() as files, HubServer(files_at=files.url) as hub:
        pointed_at(monkeypatch, hub, tmp_path / "cache")
        judge.push_to_hub(NAME, token="hf_secret", private=True)
        files.repositories[NAME] = hub.repositories[NAME]
        files.tokens = (None,)  # whoever has the link may read
        GenerativeJudge.load(NAME, model_of("llama"), token="hf_secret")
        assert set(files.downloads()) >= {"judge.json", CARD}
        assert {one.token for one in files.requests} == {None}
        # huggingface_hub may ask for things of its own, without a token
        about = [one for one in hub.requests if NAME in one.path or one.path == "/api/repos/create"]
        assert len(about) > 4 and {one.token for one in about} == {"hf_secret"}
        assert {one.token for one in hub.requests} <= {"hf_secret", None}
        with pytest.raises(
            FileNotFoundError, match="none that this token opens: check the name, log in with 'hf auth login'"
        ):
            GenerativeJudge.load(NAME, model_of("llama"), token=False)


def test_no_model_is_loaded_that_the_user_did_not_name(pushed, folder_of, model_of, judge):
    folder = str(folder_of("llama").resolve())
    for load in (load_judge, GenerativeJudge.load):
        with pytest.raises(UnconfirmedModelError, match=f"pass model='{folder}'") as error:
            load(NAME)
        assert NAME in str(error.value)
    loaded = load_judge(NAME, folder)
    assert torch.equal(loaded.score(PROMPTS, RESPONSES), judge.score(PROMPTS, RESPONSES))
    with pytest.raises(WrongModelError, match="was fitted on"):
        load_judge(NAME, str(folder_of("gpt2")))
    with pytest.raises(WrongModelError, match="cannot be loaded here"):
        load_judge(NAME, "./no-such-model")


@pytest.mark.filterwarnings("ignore::arm_lens.judges.head_picture.NoPictureWarning")
def test_commands_and_services_take_a_name_on_the_hub_and_load_no_model_that_the_user_did_not_name(
    hub, model_of, folder_of, tmp_path
):
    reward = ActivationRewardModel.fit(
        model_of("llama"), EXAMPLES, criterion="warm", selector=HeadSet.of(3, 4, [(0, 1), (2, 3)]),
        reading=ReadingOptions(readings=2, demonstrations=1),
    )  # fmt: skip
    reward.push_to_hub(NAME, token="hf_secret")
    data, out = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    rows = [{"prompt": one, "response": other} for one, other in zip(PROMPTS, RESPONSES, strict=True)]
    data.write_text("".join(json.dumps(one) + "\n" for one in rows))
    command = ["score", NAME, str(data), "--out", str(out)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code and isinstance(refused.exception, UnconfirmedModelError) and not out.read_bytes()
    done = CliRunner().invoke(app, [*command, "--model", str(folder_of("llama"))], catch_exceptions=False)
    assert not done.exit_code, done.output
    scored = [json.loads(line)["reward"] for line in out.read_text().splitlines()]
    assert scored == pytest.approx(reward.score(PROMPTS, RESPONSES).tolist(), abs=1e-5)

    with pytest.raises(UnconfirmedModelError, match=NAME):
        load_served([NAME])
    [served] = load_served([f"hf://{NAME}"], model_of("llama"))
    assert served.name == "warm"
    assert torch.equal(served.judge.score(PROMPTS, RESPONSES), reward.score(PROMPTS, RESPONSES))


@pytest.mark.slow
def test_the_bundled_model_needs_no_name(hub):
    from arm_lens import load_model

    judge = GenerativeJudge(load_model())
    judge.push_to_hub(NAME, token="hf_secret")
    assert torch.equal(load_judge(NAME).score(PROMPTS, RESPONSES), judge.score(PROMPTS, RESPONSES))


@pytest.mark.parametrize("name", ["judge.json", "tensors"])
@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "too large"])
def test_a_damaged_download_is_refused_and_the_repository_named(hub, pushed, model_of, name, how):
    there = dict(files_of(hub))
    file = next(one for one in there if one.startswith(name))
    if how == "missing":
        del there[file]
    elif how == "cut":
        there[file] = there[file][:-20]
    elif how == "flipped":
        there[file] = there[file][:-9] + bytes([there[file][-9] ^ 4]) + there[file][-8:]
    else:
        hub.sizes[file] = 2**40
    hub.repositories[NAME].commit("main", there)
    hub.requests.clear()
    expected = FileNotFoundError if (name, how) == ("judge.json", "missing") else ArtefactError
    with pytest.raises(expected, match=f"{NAME} on the hub"):
        load_judge(NAME, model_of("llama"))
    assert how != "too large" or not hub.downloads()


def test_without_a_network_the_cache_is_used_and_else_the_error_says_so(hub, pushed, model_of, monkeypatch, judge):
    from huggingface_hub import constants

    load_judge(NAME, model_of("llama"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert torch.equal(load_judge(NAME, model_of("llama")).score(PROMPTS, RESPONSES), judge.score(PROMPTS, RESPONSES))
    assert not hub.requests
    with pytest.raises(ConnectionError, match="somebody/other is not a folder here, the hub cannot be reached"):
        load_judge("somebody/other", model_of("llama"))
    with pytest.raises(ConnectionError, match="the hub cannot be reached for somebody/other"):
        judge.push_to_hub("somebody/other", token="hf_secret")


def test_what_is_not_there_or_not_allowed_is_said(hub, pushed, judge, model_of, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="somebody/nothing is not a folder here, and the hub has no such repository"
    ):
        load_judge("somebody/nothing")
    with pytest.raises(FileNotFoundError, match="has no revision 'v9'"):
        load_judge(NAME, revision="v9")
    with pytest.raises(PermissionError, match="the hub refuses access"):
        judge.push_to_hub(NAME, token="hf_other")
    with pytest.raises(ValueError, match="pass 'hf://owner/name'"):
        load_judge("hf://somebody")
    for name in ("polite", "../x/y", "a/b/c", "https://huggingface.co/a/b"):
        with pytest.raises(ValueError, match="is not the name of a repository; pass 'owner/name'"):
            judge.push_to_hub(name)
        with pytest.raises(FileNotFoundError, match="is not a folder"):
            load_judge(name)
    saved = judge.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="leave revision out"):
        load_judge(saved, revision="main")


def test_a_folder_that_exists_is_taken_before_the_hub(hub, pushed, judge, model_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    GenerativeJudge(model_of("llama"), question="another").save(tmp_path / NAME)
    hub.requests.clear()
    assert load_judge(NAME).criterion_text == "another" and not hub.requests
    assert load_judge(f"hf://{NAME}", model_of("llama")).criterion_text == "is it warm?"


def test_a_card_that_was_edited_on_the_hub_stays(hub, pushed, judge):
    card = files_of(hub)[CARD]
    assert b"load_judge('somebody/polite-judge', model=" in card
    hub.repositories[NAME].commit("main", files_of(hub) | {CARD: card + b"By me.\n"})
    judge.push_to_hub(NAME, token="hf_secret")
    assert files_of(hub)[CARD] == card + b"By me.\n"
    hub.repositories[NAME].commit("main", files_of(hub) | {CARD: card.replace(b"## Use", b"## Usage")})
    judge.push_to_hub(NAME, token="hf_secret")
    assert b"## Usage" in files_of(hub)[CARD]
    hub.repositories[NAME].commit("main", files_of(hub) | {CARD: card})
    rows = [{"metric": "accuracy", "value": 0.75, "low": 0.5, "high": 0.9, "n": 20}]
    judge.push_to_hub(NAME, token="hf_secret", metrics=rows)
    assert b"| accuracy |  |  | 0.750 | 0.500 to 0.900 | 20 |" in files_of(hub)[CARD]


LOADS = """
import sys
from arm_lens import load_judge
judge = load_judge(sys.argv[1], model=sys.argv[2])
print(judge.score(["the garden", "a mill"], ["it is warm", "cold ."]).tolist())
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::arm_lens.judges.head_picture.NoPictureWarning")
def test_another_process_with_the_hubs_address_in_its_environment_loads_a_reward_model(
    hub, model_of, folder_of, tmp_path
):
    reward = ActivationRewardModel.fit(
        model_of("llama"), EXAMPLES, criterion="warm", selector=HeadSet.of(3, 4, [(0, 1), (2, 3)]),
        reading=ReadingOptions(readings=2, demonstrations=1),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoPictureWarning)
        reward.push_to_hub(NAME, token="hf_secret")
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", LOADS, NAME, str(folder_of("llama"))],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == pytest.approx(reward.score(PROMPTS, RESPONSES).tolist(), abs=1e-5)
