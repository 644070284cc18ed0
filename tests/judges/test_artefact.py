"""Fitted judges on disk: old or new and never both, as they were or refused, and of nobody's steering."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from killing import KILLS, Victims
from safetensors.torch import load_file, save_file

from arm_lens import ActivationRewardModel, HeadSet, LabelledResponse, steer
from arm_lens.judges import artefact, load_judge
from arm_lens.judges.artefact import ArtefactError, read_artefact, write_artefact
from arm_lens.judges.fingerprint import fingerprint_of
from arm_lens.judges.model_card import CARD
from arm_lens.judges.options import ReadingOptions
from arm_lens.storage import LOCK, digest_of, digest_of_bytes

pytestmark = pytest.mark.tl4

KIND = "reward model"


def fitted(model, criterion, heads):
    words = ["garden", "river", "mill", "church", "hotel", "farm"]
    examples = [LabelledResponse(f"{criterion} {one}", f"{one} it is", bool(i % 2)) for i, one in enumerate(words)]
    return ActivationRewardModel.fit(
        model,
        examples,
        criterion=criterion,
        selector=HeadSet.of(3, 4, heads),
        reading=ReadingOptions(readings=3, demonstrations=1),
    )


@pytest.fixture
def saved(model_of, tmp_path):
    return fitted(model_of("llama"), "warm", [(0, 1)]).save(tmp_path / "warm")


def files(folder):
    return sorted(one.name for one in folder.iterdir())


# ------------------------------------------------------------------------------------------ old or new

SAVES = """
import os, sys, torch
torch.set_num_threads(1)
from arm_lens import load_model
from arm_lens.judges import artefact, load_judge
model = load_model(sys.argv[1])
known = artefact.fingerprint_of(model)
artefact.fingerprint_of = lambda model: known  # most kills are to come while files are written
def victim(folder):
    for number in range(os.getpid(), 10**9):  # heads and means that tell of each other
        record = {"heads": [[0, number % 4]], "criterion": str(number)}
        artefact.write_artefact(folder, "reward model", model, {"means": torch.full((3, 4, 12), float(number))}, record)
"""


@pytest.mark.any_tl
@pytest.mark.slow
def test_saving_over_an_older_one_may_be_killed_at_any_moment(folder_of, model_of, tmp_path):
    victims, folder, seen = Victims(SAVES, str(folder_of("llama"))), tmp_path / "rm", []
    try:
        write_artefact(
            folder, KIND, model_of("llama"), {"means": torch.full((3, 4, 12), -1.0)}, {"heads": [], "criterion": "-1"}
        )
        for number in victims.kill_at_random(4 * KILLS, 0.12, str(folder), state=(folder / artefact.RECORD).read_bytes):
            _, record, tensors = artefact._whole(folder, KIND)
            assert (tensors["means"] == float(record["criterion"])).all(), f"kill {number}"
            if record["criterion"] != "-1":
                assert record["heads"] == [[0, int(record["criterion"]) % 4]]
            seen.append(record["criterion"])
    finally:
        victims.close()
    assert len(set(seen)) > 3, "the kills changed nothing"
    read_artefact(folder, KIND, model_of("llama"))
    write_artefact(folder, KIND, model_of("llama"), {"means": torch.ones(3, 4, 12)}, {})
    assert len(files(folder)) == 4  # with the lock and the card; what the killed left is gone


@pytest.mark.any_tl
@pytest.mark.slow
@pytest.mark.parametrize("at", ["fsync", "replace", "unlink"])
def test_an_older_one_survives_every_step_of_a_save_that_fails(model_of, tmp_path, monkeypatch, at):
    model = model_of("llama")
    one, two = fitted(model, "warm", [(0, 1)]), fitted(model, "a list", [(1, 2), (1, 3)])
    one.save(tmp_path)
    for step in range(8):
        calls = []

        class Died(BaseException):
            pass

        real = getattr(os, at)

        def dies(*arguments, real=real, calls=calls, step=step, Died=Died, **options):
            calls.append(1)
            if len(calls) > step:
                raise Died
            return real(*arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(os, at, dies)
            try:
                two.save(tmp_path)
            except Died:
                pass
            else:
                assert len(calls) <= step
        loaded = ActivationRewardModel.load(tmp_path, model)
        expected = {"warm": one, "a list": two}[loaded.record.criterion]
        assert loaded.heads == expected.heads and torch.equal(loaded.means.values, expected.means.values)
        one.save(tmp_path)
        assert len(files(tmp_path)) == 4


def test_a_reader_that_is_overtaken_reads_the_new_one(model_of, tmp_path, monkeypatch):
    model = model_of("llama")
    one, two = fitted(model, "warm", [(0, 1)]), fitted(model, "a list", [(1, 2)])
    one.save(tmp_path)
    read, overtaken = artefact._record, []

    def overtakes(folder, kind):
        record = read(folder, kind)
        if not overtaken:
            overtaken.append(two.save(tmp_path))
        return record

    monkeypatch.setattr(artefact, "_record", overtakes)
    loaded = ActivationRewardModel.load(tmp_path, model)
    assert loaded.record.criterion == "a list" and torch.equal(loaded.means.values, two.means.values)


@pytest.mark.any_tl
def test_readers_beside_a_writer_never_see_a_mixture(model_of, tmp_path):
    model, stop = model_of("llama"), threading.Event()
    both = [fitted(model, "warm", [(0, 1)]), fitted(model, "a list", [(1, 2)])]
    both[0].save(tmp_path)

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            both[number % 2].save(tmp_path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            _, record, tensors = artefact._whole(tmp_path, KIND)
            expected = next(one for one in both if one.record.criterion == record["fit"]["criterion"])
            assert record["heads"] == expected.heads.to_list() and torch.equal(tensors["means"], expected.means.values)
    finally:
        stop.set()
        writer.join()


def test_the_same_judge_has_the_same_files(model_of, tmp_path):
    one = fitted(model_of("llama"), "warm", [(0, 1)])
    first, second = one.save(tmp_path / "a"), one.save(tmp_path / "b")
    one.save(tmp_path / "b")
    names = files(first)
    assert names == files(second) and names[:3] == [LOCK, CARD, "judge.json"] and len(names) == 4
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    (tensors,) = first.glob("tensors-*.safetensors")
    assert tensors.stem.removeprefix("tensors-") == digest_of_bytes(tensors.read_bytes())[:16]


# ------------------------------------------------------------------------------------------ as it was, or refused


@pytest.mark.any_tl
def test_no_changed_or_missing_byte_passes(model_of, saved, generator):
    model, whole = model_of("llama"), ActivationRewardModel.load(saved, model_of("llama"))
    refused = 0
    for path in (one for one in saved.iterdir() if one.name not in (LOCK, CARD)):
        content = path.read_bytes()
        places = torch.randint(len(content), (40,), generator=generator).tolist()
        changes = [
            content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :] for place in places
        ]
        for damaged in [*changes, *(content[:place] for place in places[:10]), b"", content + b"x"]:
            path.write_bytes(damaged)
            try:
                again = ActivationRewardModel.load(saved, model)
            except ArtefactError as error:
                assert str(path) in str(error)
                refused += 1
            else:  # white space between the words of JSON says nothing
                assert path.suffix == ".json" and json.loads(damaged) == json.loads(content)
                assert again.record == whole.record and torch.equal(again.means.values, whole.means.values)
        path.write_bytes(content)
    assert refused > 90
    ActivationRewardModel.load(saved, model)


MISSING = object()


def forged(folder, **changes):
    """The record with other values, as somebody would write it who knows the format; MISSING takes a key away."""
    record = json.loads((folder / "judge.json").read_text()) | changes
    record = {key: value for key, value in record.items() if value is not MISSING and key != "digest"}
    (folder / "judge.json").write_text(json.dumps(record | {"digest": digest_of(record)}))


@pytest.mark.any_tl
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("not JSON {", "is damaged, or no JSON"),
        ("[" * 100_000, "is damaged, or no JSON"),
        (b"\xff\xfe\x00", "is damaged, or no JSON"),
        ("[1, 2]", "is no record of a fitted judge"),
        ("{}", "is no record of a fitted judge"),
        ('{"format": 99}', "has format 99 \\(int\\); this arm_lens reads formats 4 to 6; upgrade arm_lens"),
        ('{"format": 3}', "has format 3 .*fit and save the judge again"),
        ('{"format": 6.0}', "has format 6.0"),
        ('{"format": true}', "has format True"),
        ('{"format": 6}', "was changed or damaged"),
        ('{"format": 4, "digest": [1]}', "was changed or damaged"),
    ],
    ids=["text", "nested", "bytes", "list", "empty", "newer", "older", "float", "truth", "no digest", "odd digest"],
)
def test_a_record_that_is_none_is_one_error_that_names_the_file(model_of, saved, content, reason):
    (saved / "judge.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArtefactError, match=rf"judge\.json {reason}"):
        ActivationRewardModel.load(saved, model_of("llama"))


@pytest.mark.any_tl
@pytest.mark.parametrize(
    "changes",
    [
        *({key: MISSING} for key in ("kind", "model", "fingerprint", "heads", "fit", "injection", "question", "search")),
        {"heads": [[9, 9]]}, {"heads": 3}, {"heads": [1]}, {"heads": [[0, 1.0]]}, {"model": []}, {"fit": {"seed": 1}},
        {"injection": {"mode": "x"}}, {"template": {"unknown": 1}}, {"tensors": "0" * 64}, {"means_count": True},
        {"means_count": 0}, {"kind": "reward model\x1b[2J"}, {"search": {"scores": "x", "history": {}}}, {"hook": None},
    ],
    ids=lambda one: str(one).replace(str(MISSING), "missing")[:40],
)  # fmt: skip
def test_a_record_of_an_unknown_writer_is_one_error_that_names_the_folder(model_of, saved, changes):
    forged(saved, **changes)
    with pytest.raises(ArtefactError, match=str(saved)):
        ActivationRewardModel.load(saved, model_of("llama"))


@pytest.mark.any_tl
@pytest.mark.parametrize("what", ["no tensors", "other shape", "no means"])
def test_tensors_that_do_not_fit_are_one_error_and_are_never_broadcast(model_of, saved, what):
    (path,) = saved.glob("tensors-*")
    tensors = load_file(path)
    path.unlink()
    if what == "other shape":
        save_file(tensors | {"means": tensors["means"][..., :1].contiguous()}, path)
    elif what == "no means":
        save_file({name: one for name, one in tensors.items() if name != "means"}, path)
    if what != "no tensors":
        content = path.read_bytes()
        path.rename(path.with_name(f"tensors-{digest_of_bytes(content)[:16]}.safetensors"))
        forged(saved, tensors=digest_of_bytes(content))
    with pytest.raises(ArtefactError, match=str(saved)):
        ActivationRewardModel.load(saved, model_of("llama"))


def test_another_kind_of_judge_is_refused_and_named(model_of, tmp_path):
    write_artefact(tmp_path, "probe", model_of("llama"), {}, {})
    with pytest.raises(ArtefactError, match="holds a probe, not a reward model"):
        ActivationRewardModel.load(tmp_path, model_of("llama"))
    with pytest.raises(FileNotFoundError, match="elsewhere is not a folder"):
        ActivationRewardModel.load(tmp_path / "elsewhere", model_of("llama"))
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no reward model \(judge\.json is missing\)"):
        ActivationRewardModel.load(tmp_path / "elsewhere", model_of("llama"))


# ------------------------------------------------------------------------------------------ nobody's steering


def test_a_fingerprint_is_of_the_model_itself_while_it_is_steered(model_of, model_class, tmp_path):
    model = model_of("llama", model_class)
    reward, plain = fitted(model, "warm", [(0, 1), (1, 2)]), fingerprint_of(model).digest
    with steer(model, HeadSet.all(3, 4), torch.full((3, 4, 12), 3.0)):
        assert fingerprint_of(model).digest == plain
        folder = reward.save(tmp_path / "rm")
        ActivationRewardModel.load(folder, model)
    ActivationRewardModel.load(folder, model)
    assert fingerprint_of(model).digest == plain


@pytest.mark.slow
def test_saving_beside_scoring_in_another_thread_harms_neither(model_of, tmp_path):
    model = model_of("llama")
    reward, plain = fitted(model, "warm", [(0, 1), (1, 2)]), fingerprint_of(model).digest
    prompts, responses = ["garden"] * 3, ["warm", "it is cold", "noisy"]
    expected, stop, found = reward.score(prompts, responses), threading.Event(), []

    def score():
        while not stop.is_set():
            found.append(reward.score(prompts, responses))

    other = threading.Thread(target=score)
    other.start()
    try:
        prints = [fingerprint_of(model).digest for _ in range(20)]
    finally:
        stop.set()
        other.join()
    assert found and set(prints) == {plain}
    assert all(torch.equal(one, expected) for one in found)


# ------------------------------------------------------------------------------------------ older formats

OLDER = Path(__file__).with_name("format_4")
"""Folders that the last arm_lens of format 4 wrote, on the bundled model, and the scores that it gave."""


@pytest.mark.any_tl
@pytest.mark.parametrize("name", ["reward_model", "vectors"])
def test_a_folder_of_the_older_format_is_read_as_it_was(judge, name, tmp_path):
    prompts = ["Tell me about the garden."] * 2
    responses = ["Thank you for asking. The garden is lovely.", "Get lost. The garden is lovely."]
    loaded = load_judge(OLDER / name, judge)
    expected = json.loads((OLDER / "scores.json").read_text())[name]
    assert loaded.score(prompts, responses).tolist() == pytest.approx(expected, abs=1e-5) and loaded.metrics.empty
    again = load_judge(loaded.save(tmp_path), judge)
    assert torch.equal(again.score(prompts, responses), loaded.score(prompts, responses))
    assert json.loads((tmp_path / "judge.json").read_text())["format"] == 6


@pytest.mark.any_tl
@pytest.mark.parametrize("field", ["metrics", "verdict_tokens"])
def test_a_record_of_the_older_format_with_a_newer_field_is_refused(judge, tmp_path, field):
    folder = shutil.copytree(OLDER / "vectors", tmp_path / "vectors")
    forged(folder, **{field: None if field == "verdict_tokens" else []})
    with pytest.raises(ArtefactError, match=f"{field} is a field of a later format"):
        load_judge(folder, judge)
