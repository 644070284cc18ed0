"""A saved judge answers as it did, or is refused with an error that says what differs, whatever was changed."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import transformer_lens
import transformers
from safetensors.torch import load, save

import arm_lens
from arm_lens import (
    ActivationRewardModel,
    GenerativeJudge,
    HeadSet,
    LabelledResponse,
    load_model,
    steer,
)
from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.judges import load_judge
from arm_lens.judges.artefact import RECORD, ArtefactError, HooksNotSavedWarning, WrongModelError
from arm_lens.judges.fingerprint import fingerprint_of
from arm_lens.judges.options import ReadingOptions
from arm_lens.judges.probe import HeadProbe
from arm_lens.judges.sav import SparseAttentionVectors
from arm_lens.judges.template import JudgeTemplate
from arm_lens.judges.voting import Rationale, VotingJudge
from arm_lens.selection import Reinforce, SoftGate
from arm_lens.storage import digest_of, digest_of_bytes

pytestmark = pytest.mark.tl4

MUTATIONS = int(os.environ.get("ARM_LENS_MUTATIONS", "105"))
"""How many damaged artefacts are tried."""
TEMPLATE = JudgeTemplate(scalar="request: {prompt} reply: {response}", cue=" verdict:", yes=("yes",), no=("no",))
WORDS = ["garden", "river", "mill", "church", "hotel", "farm"]
EXAMPLES = [LabelledResponse(f"the {one}", f"{one} it is", bool(i % 2), id=one) for i, one in enumerate(WORDS)]
PROMPTS, RESPONSES = ["the garden", "a mill"], ["it is warm", "cold ."]
READING = ReadingOptions(readings=3, demonstrations=1)
CHAT = "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}verdict :{% endif %}"


@pytest.fixture
def folder(folder_of, tmp_path) -> Path:
    """A model of which every file may be changed; its tokenizer has a chat template."""
    folder = tmp_path / "model"
    shutil.copytree(folder_of("llama"), folder)
    (folder / "judge_template.json").write_text(json.dumps(asdict(TEMPLATE)), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    return folder


def reward_on(model, **options) -> ActivationRewardModel:
    options = {"selector": HeadSet.of(3, 4, [(0, 1), (1, 2)]), "criterion": "warm", "reading": READING} | options
    return ActivationRewardModel.fit(model, EXAMPLES, **options)


# ------------------------------------------------------------------------------------------ another model


def other_weights(*modules: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            for name in modules:
                model.get_submodule(name).weight.mul_(-2)
        model.save_pretrained(folder)

    return change


def other_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("system : be kind\n" + CHAT, encoding="utf-8")


def no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def other_tokenizer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["river"], vocabulary["hotel"] = vocabulary["hotel"], vocabulary["river"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_chat_template, "its chat template differs"),
        (no_chat_template, "its chat template differs"),
        (other_tokenizer, "its tokenizer differs"),
        (other_weights("model.layers.0.self_attn.v_proj"), "computes other activations"),
        (other_weights("lm_head"), "computes other verdicts from the same activations"),
        (other_weights("model.norm"), "computes other verdicts from the same activations"),
        (other_weights("model.layers.2.mlp.down_proj"), "computes other verdicts from the same activations"),
    ],
    ids=["template", "no template", "tokenizer", "attention", "unembedding", "final norm", "last MLP"],
)
def test_a_folder_whose_model_was_changed_is_refused_and_the_error_says_in_what(folder, tmp_path, change, reason):
    reward = reward_on(load_model(folder))
    saved = reward.save(tmp_path / "rm")
    again = ActivationRewardModel.load(saved)
    assert torch.equal(again.score(PROMPTS, RESPONSES), reward.score(PROMPTS, RESPONSES))
    change(folder)
    with pytest.raises(WrongModelError, match=reason) as error:
        ActivationRewardModel.load(saved)
    assert str(saved) in str(error.value)


def lightly_tuned(folder: Path) -> None:
    """A fine-tune as small as rounding in half precision."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.002)
    model.save_pretrained(folder)


def other_embedding_of_one_word(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    word = transformers.AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("church")
    with torch.no_grad():
        model.get_input_embeddings().weight[word] *= -2
    model.save_pretrained(folder)


def other_words(folder: Path) -> None:
    """Two words that are in no fixed text have each other's number."""
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["mill"], vocabulary["church"] = vocabulary["church"], vocabulary["mill"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("change", [lightly_tuned, other_embedding_of_one_word, other_words])
def test_what_a_few_texts_do_not_show_is_refused_too(folder, tmp_path, change, dtype):
    judge = GenerativeJudge(load_model(folder, dtype=dtype))
    before = judge.score(["the mill"], ["a church"], kind="gap")
    saved = judge.save(tmp_path / "judge")
    GenerativeJudge.load(saved)
    change(folder)
    assert not torch.equal(
        GenerativeJudge(load_model(folder, dtype=dtype)).score(["the mill"], ["a church"], kind="gap"), before
    )
    with pytest.raises(
        WrongModelError, match=r"its tokenizer differs|has other weights, though similar ones|computes other"
    ):
        GenerativeJudge.load(saved)


def test_a_folder_whose_model_is_gone_is_refused_in_our_words(folder, tmp_path):
    saved = reward_on(load_model(folder)).save(tmp_path / "rm")
    shutil.rmtree(folder)
    with pytest.raises(WrongModelError, match=r"cannot be loaded here; load that model yourself and pass it as model="):
        ActivationRewardModel.load(saved)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_is_fitted_in_a_dtype_can_be_loaded_in_it_with_another_number_of_threads(folder, tmp_path, dtype):
    reward = reward_on(load_model(folder, dtype=dtype))
    saved, threads = reward.save(tmp_path / "rm"), torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads == 1 else 1)
        again = ActivationRewardModel.load(saved)
        assert again.model.dtype == dtype
        torch.testing.assert_close(again.score(PROMPTS, RESPONSES), reward.score(PROMPTS, RESPONSES), atol=2e-2, rtol=0)
    finally:
        torch.set_num_threads(threads)


def test_a_fingerprint_is_of_nobodys_steering_hooks_or_mode(folder):
    raw = load_model(folder)
    plain = fingerprint_of(raw)
    point = raw.blocks[1].attn.hook_z
    point.add_hook(lambda z, hook: 2 * z)
    raw.train()
    with steer(raw, HeadSet.all(3, 4), torch.ones(3, 4, 12)):
        assert fingerprint_of(raw).digest == plain.digest
    assert raw.training and len(point.fwd_hooks) == 1
    raw.eval()


def test_hooks_of_others_are_not_saved_which_is_said_and_no_checkpoint_is_taken_for_that_of_a_fit_without_them(
    folder, tmp_path
):
    raw = load_model(folder)
    judge, options = GenerativeJudge(raw), {"selector": "top_effect", "checkpoint": tmp_path / "kept"}
    reward_on(raw, **options)
    handle = raw.original_model.get_output_embeddings().register_forward_hook(lambda module, args, logits: 2 * logits)
    with pytest.warns(HooksNotSavedWarning, match="generative judge: loaded, it answers as the model without them"):
        judge.save(tmp_path / "judge")
    with pytest.raises(ValueError, match="fit without a checkpoint"):
        reward_on(raw, **options)
    handle.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error", HooksNotSavedWarning)
        judge.save(tmp_path / "judge")
        with steer(raw, HeadSet.all(3, 4), torch.ones(3, 4, 12)):
            judge.save(tmp_path / "judge")


@pytest.mark.slow
def test_saving_while_other_threads_score_writes_the_models_own_fingerprint(folder, tmp_path):
    model = load_model(folder)
    rewards = [reward_on(model), reward_on(model, selector=HeadSet.of(3, 4, [(2, 3)]))]
    expected, stop, wrong = [one.score(PROMPTS, RESPONSES) for one in rewards], threading.Event(), []

    def score(number: int) -> None:
        while not stop.is_set():
            if not torch.equal(rewards[number].score(PROMPTS, RESPONSES), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=score, args=(number,)) for number in range(2)]
    for one in threads:
        one.start()
    try:
        saved = [rewards[number % 2].save(tmp_path / str(number)) for number in range(6)]
    finally:
        stop.set()
        for one in threads:
            one.join()
    assert not wrong
    for number, one in enumerate(saved):
        again = ActivationRewardModel.load(one, model)
        assert torch.equal(again.score(PROMPTS, RESPONSES), expected[number % 2])


# ------------------------------------------------------------------------------------------ another file


@pytest.mark.slow
@pytest.mark.parametrize("name", [RECORD, "tensors"])
@pytest.mark.parametrize("what", ["folder", "pipe", "broken link", "device", "empty"])
def test_a_file_of_another_kind_is_one_error_that_names_it(folder, tmp_path, name, what):
    model = load_model(folder)
    saved = reward_on(model).save(tmp_path / "rm")
    path = saved / RECORD if name == RECORD else next(saved.glob("tensors-*"))
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "empty":
        path.touch()
    else:
        path.symlink_to("/dev/zero" if what == "device" else tmp_path / "nothing")
    with pytest.raises(ArtefactError, match=str(path)):
        ActivationRewardModel.load(saved, model)


@pytest.mark.slow
def test_links_to_files_are_followed(folder, tmp_path):
    model = load_model(folder)
    saved = reward_on(model).save(tmp_path / "rm")
    (tmp_path / "links").mkdir()
    for path in saved.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    assert ActivationRewardModel.load(tmp_path / "links", model).heads == HeadSet.of(3, 4, [(0, 1), (1, 2)])


def test_saving_leaves_other_peoples_files_in_the_folder(folder, tmp_path):
    model = load_model(folder)
    others = [
        "tensors-epoch1.safetensors",
        "tensors-.safetensors",
        "model.safetensors",
        "tensors-0123456789abcdeX.safetensors",
    ]
    for name in others:
        (tmp_path / name).write_text("dear to somebody", encoding="utf-8")
    first = {path.name for path in reward_on(model).save(tmp_path).glob("tensors-*")}
    second = {path.name for path in reward_on(model, selector=HeadSet.all(3, 4)).save(tmp_path).glob("tensors-*")}
    assert len(first) == len(second) == len(others)  # three of others, and one of the judge
    assert all((tmp_path / name).read_text(encoding="utf-8") == "dear to somebody" for name in others)


@pytest.fixture(scope="module")
def every_kind(folder_of, tmp_path_factory):
    """A model, and folders with judges of every kind that can be saved, with their answers."""
    folder = tmp_path_factory.mktemp("kinds") / "model"
    shutil.copytree(folder_of("llama"), folder)
    (folder / "judge_template.json").write_text(json.dumps(asdict(TEMPLATE)), encoding="utf-8")
    model = load_model(folder)
    quick = Reinforce(steps=3, masks=4)
    judges = {
        "given heads": reward_on(model),
        "searched heads": reward_on(model, selector=quick),
        "gates": reward_on(model, selector=SoftGate(steps=2)),
        "few-shot": GenerativeJudge(model, examples=EXAMPLES[:2]),
        "voting": VotingJudge.fit(model, EXAMPLES, reading=READING, votes=2, rationale=Rationale(max_tokens=2)),
        "vectors": SparseAttentionVectors.fit(model, EXAMPLES, heads=3),
        "probe": HeadProbe.fit(model, EXAMPLES),
        "sum": 2 * reward_on(model) - 0.5 * reward_on(model, selector=HeadSet.of(3, 4, [(2, 3)])),
        "threshold": reward_on(model).with_threshold(0.7),
    }
    metrics = [{"metric": "accuracy", "value": 0.5, "low": 0.25, "high": 0.75, "n": 8}]
    saved = {name: judge.save(folder.parent / name, metrics=metrics) for name, judge in judges.items()}
    judges["format 4"] = judges["given heads"]
    saved["format 4"] = shutil.copytree(saved["given heads"], folder.parent / "format 4")
    record = json.loads((saved["format 4"] / RECORD).read_bytes())
    for newer in ("digest", "metrics", "verdict_tokens"):
        del record[newer]
    del record["fit"]["data"]
    record["format"] = 4
    (saved["format 4"] / RECORD).write_text(json.dumps(record | {"digest": digest_of(record)}))
    return model, saved, {name: judge.score(PROMPTS, RESPONSES) for name, judge in judges.items()}


VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 7, 10**15, 10**30, 10**400, -0.0, 0.5, 1e308, "", "x", "\x00", "\x1b[2J", "\ud800",
    "x" * 5000, "../../judge", "/etc/passwd", "..\\..\\x",
    [], {}, [[]], [0], {"a": 1}, [[0, 1]], [None], "float32", "yes", ["yes"], [3, 3],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated_json(record: dict[str, Any], order: random.Random) -> bytes:
    """A record with one thing changed, and a digest that fits."""
    record = copy.deepcopy(record)
    record.pop("digest")
    *way, last = order.choice(list(places(record)))
    parent = record
    for key in way:
        parent = parent[key]
    kind = order.choice(["replace", "replace", "delete", "add", "repeat", "nest", "nan"])
    if kind == "replace":
        parent[last] = order.choice(VALUES)
    elif kind == "delete":
        del parent[last]
    elif kind == "add" and isinstance(parent, dict):
        parent["x" + str(last)] = order.choice(VALUES)
    elif kind == "repeat" and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    elif kind == "nest":
        for _ in range(order.choice([1, 3, 200])):
            parent[last] = [parent[last]]
    elif kind == "nan":
        parent[last] = order.choice([float("nan"), float("inf"), -float("inf")])
    text = json.dumps(record | {"digest": digest_of(record)})
    if order.random() < 0.1:  # a key twice
        key = order.choice(list(record))
        text = text[:-1] + f", {json.dumps(key)}: {json.dumps(order.choice(VALUES[:6]))}" + "}"
    return text.encode("utf-8", "surrogatepass")


def mutated_bytes(content: bytes, order: random.Random) -> bytes:
    start = order.randrange(len(content))
    length = order.choice([1, 1, 1, 4, 100])
    return order.choice(
        [
            content[:start] + bytes([content[start] ^ 1 << order.randrange(8)]) + content[start + 1 :],
            content[:start],
            content[:start] + content[start + length :],
            content[:start] + order.randbytes(length) + content[start:],
            content[:start] + content[start : start + length] * 2 + content[start + length :],
        ]
    )


def mutated_tensors(content: bytes, order: random.Random) -> bytes:
    """A file of tensors with one of them changed, or a changed header."""
    tensors = load(content)
    name = order.choice(sorted(tensors))
    one = tensors[name]
    kind = order.choice(
        [
            "nan",
            "inf",
            "shape",
            "dtype",
            "drop",
            "add",
            "transpose",
            "scalar",
            "bytes",
            "size",
            "swap",
            "name",
            "header",
        ]
    )
    if kind in ("nan", "inf"):
        one.reshape(-1)[order.randrange(one.numel())] = float(kind)
    elif kind == "shape":
        tensors[name] = one[..., :1].contiguous()
    elif kind == "transpose":
        tensors[name] = one.transpose(0, -1).contiguous()
    elif kind == "dtype":
        tensors[name] = one.to(
            order.choice([torch.float16, torch.int64, torch.float64, torch.bool, torch.float8_e4m3fn])
        )
    elif kind == "drop":
        del tensors[name]
    elif kind == "add":
        tensors["more"] = torch.ones(1)
    elif kind == "swap":
        other = order.choice(sorted(tensors))
        tensors[name], tensors[other] = tensors[other].clone(), one.clone()
    elif kind == "name":
        tensors[order.choice(["../", "/", "0.", "x" * 10_000]) + name] = tensors.pop(name)
    elif kind == "header":
        length = order.choice([0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
        return length.to_bytes(8, "little") + (b" " * 2**20 if length == 2**20 else b"") + content[8:]
    elif kind == "scalar":
        tensors[name] = torch.tensor(1.0)
    elif kind == "size":
        tensors[name] = torch.empty(0, *one.shape[1:])
    return mutated_bytes(content, order) if kind == "bytes" else save(tensors)


OPENED: list[str] | None = None
"""The files that are opened while a judge is loaded."""


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is not None and event == "pickle.find_class":
        OPENED.append("a pickle")
    if OPENED is not None and event in ("open", "os.remove", "os.rename", "os.mkdir"):
        OPENED.extend(str(one) for one in arguments[: 2 if event == "os.rename" else 1] if isinstance(one, (str, Path)))


@pytest.fixture
def opened():
    """A context within which the names of opened and changed files are recorded, except Python's own."""
    sys.addaudithook(watch)  # which stays, and does nothing outside of the context
    packages = (
        Path(transformer_lens.__file__).parents[1],
        Path(arm_lens.__file__).parent,
    )  # one may be outside of sys.prefix
    own = tuple(map(str, (sys.prefix, sys.base_prefix, *packages, "/proc", "/sys", "/dev")))

    @contextlib.contextmanager
    def record() -> Iterator[list[str]]:
        global OPENED
        OPENED, found = [], []
        try:
            yield found
        finally:
            found += [one for one in OPENED if not one.startswith(own)]
            OPENED = None

    return record


def mutate(folder: Path, others: Path, order: random.Random) -> str:
    """Damage or forge what is in a folder; what was done."""
    (tensors,) = folder.glob("tensors-*")
    record, content = json.loads((folder / RECORD).read_bytes()), tensors.read_bytes()
    kinds = [
        "bytes of the record",
        "bytes of the tensors",
        "record",
        "record",
        "tensors",
        "another's tensors",
        "format",
    ]
    kind = order.choice(kinds)
    if kind == "bytes of the record":
        (folder / RECORD).write_bytes(mutated_bytes((folder / RECORD).read_bytes(), order))
    elif kind == "bytes of the tensors":
        tensors.write_bytes(mutated_bytes(content, order))
    elif kind == "record":
        (folder / RECORD).write_bytes(mutated_json(record, order))
    else:
        del record["digest"]
        if kind == "format":
            record["format"] = order.choice([0, 3, 4, 5, 6, 10**6, "5", 5.0, None, True, [5]])
        else:
            content = next(others.glob("tensors-*")).read_bytes() if kind.startswith("another") else content
            content = content if kind.startswith("another") else mutated_tensors(content, order)
            tensors.unlink()
            record["tensors"] = digest_of_bytes(content)
            (folder / f"tensors-{record['tensors'][:16]}.safetensors").write_bytes(content)
        (folder / RECORD).write_text(json.dumps(record | {"digest": digest_of(record)}))
    return kind


@pytest.mark.slow
def test_a_damaged_or_forged_artefact_gives_the_right_answers_or_one_of_two_errors(every_kind, tmp_path, opened):
    model, saved, expected = every_kind
    refused = 0
    for number in range(MUTATIONS):
        order = random.Random(number)
        name = sorted(saved)[number % len(saved)]
        folder = tmp_path / str(number)
        shutil.copytree(saved[name], folder)
        kind = mutate(folder, saved[order.choice(sorted(saved))], order)
        before = {one.name: one.read_bytes() for one in folder.iterdir()}
        try:
            with opened() as files:
                judge = load_judge(folder, model)
            scores = judge.score(PROMPTS, RESPONSES)
        except (ArtefactError, WrongModelError) as error:
            refused += 1
            assert str(folder) in str(error), (number, kind)
            assert str(error).isprintable(), (number, kind, str(error))
        except PromptTooLongError:  # a stranger may forge a question of any length
            assert kind == "record"
        except Exception as error:
            raise AssertionError(f"mutation {number} of {kind} of {name}") from error
        else:
            assert scores.isfinite().all(), (number, kind)
            if kind.startswith("bytes"):
                assert torch.equal(scores, expected[name]), (number, kind)
        # A question without a template has that of the model that was handed over.
        others = {Path(one) for one in files} - {saved[name].parent / "model" / "judge_template.json"}
        assert {one.parent for one in others} <= {folder}, (number, kind, files)
        assert {one.name: one.read_bytes() for one in folder.iterdir()} == before
        shutil.rmtree(folder)
    assert refused > MUTATIONS / 2
