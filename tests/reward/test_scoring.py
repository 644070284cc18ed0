"""Scoring a file: the same bytes whatever happened on the way, and never another reward model's rewards."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from killing import KILLS, Victims
from PIL import Image
from typer.testing import CliRunner

from arm_lens import ActivationRewardModel, HeadSet, LabelledResponse
from arm_lens.cli import app
from arm_lens.engine.images import NoImagesError
from arm_lens.judges.artefact import ArtefactError
from arm_lens.judges.options import ReadingOptions
from arm_lens.reward import scoring
from arm_lens.reward.scoring import AT_A_TIME, score_file
from arm_lens.storage import DamagedFileError, StoreBusyError, growing

WORDS = "garden school river bridge market museum castle village library station harbor forest".split()


@pytest.fixture(scope="module")
def reward(model_of):
    examples = [LabelledResponse(one, "warm" if i % 2 else "cold", bool(i % 2)) for i, one in enumerate(WORDS)]
    heads = HeadSet.of(3, 4, [(0, 1), (2, 3)])
    return ActivationRewardModel.fit(
        model_of("llama"), examples, selector=heads, reading=ReadingOptions(readings=4, demonstrations=1)
    )


@pytest.fixture
def saved(reward, tmp_path):
    return reward.save(tmp_path / "rm")


@pytest.fixture
def load(model_of):
    return lambda folder: ActivationRewardModel.load(folder, model_of("llama"))


def rows(count):
    """Of lengths so different that a row's neighbours in a batch show in its last digits."""
    return [
        {"id": number, "prompt": WORDS[number % 12], "response": " ".join(WORDS[: 1 + number * 7 % 12]) + f" {number}"}
        for number in range(count)
    ]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(3 * AT_A_TIME + 10)))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


FILES = ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet"]


@pytest.fixture(scope="module")
def expected(reward):
    """The scores of 70 rows, by the name of their column."""
    frame, kinds = pd.DataFrame(rows(70)), {"reward": "probability", "two_way": "two_way", "gap": "gap"}
    texts = frame["prompt"].tolist(), frame["response"].tolist()
    return {name: reward.score(*texts, kind=kind).double() for name, kind in kinds.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "target"),
    [*((source, "x.jsonl") for source in FILES), *(("x.csv", target) for target in [*FILES[1:], "x.csv.gz"])],
)
def test_every_row_gets_its_reward_and_keeps_its_cells(saved, expected, load, tmp_path, source, target):
    frame, path, out = pd.DataFrame(rows(70)), tmp_path / source, tmp_path / f"out-{target}"
    frame = frame.rename(columns={"prompt": "question", "response": "completion"})
    write_table(frame, path)
    assert score_file(saved, path, out, columns={"prompt": "question"}, load=load) == 70
    found = read_table(out)
    assert list(found.columns) == ["id", "question", "completion", "reward", "two_way", "gap"]
    assert [str(one) for one in found["id"]] == [str(number) for number in range(70)]
    assert found[["question", "completion"]].equals(frame[["question", "completion"]].astype(found["question"].dtype))
    for name, scores in expected.items():
        torch.testing.assert_close(torch.tensor(found[name].astype(float)), scores, atol=1e-5, rtol=1e-4)
    before = out.read_bytes()
    score_file(saved, path, out, columns={"prompt": "question"}, load=lambda folder: pytest.fail("loaded"))
    assert out.read_bytes() == before


def test_a_kind_of_score_alone_in_a_column_of_its_name(saved, reward, load, tmp_path):
    pd.DataFrame(rows(5)).to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    prompts, responses = ([row[name] for row in rows(5)] for name in ("prompt", "response"))
    for kind in ("reward", "probability", "two_way", "gap"):
        out = tmp_path / f"{kind}.jsonl"
        score_file(saved, tmp_path / "x.jsonl", out, score_kind=kind, load=load)
        found = lines(out)
        assert [list(row) for row in found] == [["id", "prompt", "response", kind]] * 5
        expected = reward.score(prompts, responses, kind=kind)
        torch.testing.assert_close(torch.tensor([row[kind] for row in found]), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="scores"):
        score_file(saved, tmp_path / "x.jsonl", out, load=load)


def test_a_row_that_is_too_long_has_no_score_if_it_is_skipped(saved, reward, load, tmp_path):
    some = rows(3)
    some[1]["response"] = "garden " * 2000
    for name in ("x.jsonl", "x.csv"):
        write_table(pd.DataFrame(some), tmp_path / name)
        with pytest.raises(ValueError, match="example 1"):
            score_file(saved, tmp_path / name, tmp_path / f"raise-{name}", load=load)
        with pytest.warns(UserWarning, match="no score"):
            score_file(
                saved, tmp_path / name, tmp_path / f"skip-{name}", load=lambda one: load(one).asking(on_too_long="skip")
            )
        found = read_table(tmp_path / f"skip-{name}")
        assert found["reward"].replace("", None).isna().tolist() == [False, True, False]
        clipped = load(saved).asking(on_too_long="skip", batch_size=3)
        assert clipped.question.batch_size == 3 and reward.question.on_too_long == "raise"


@pytest.mark.slow
def test_messages_get_the_same_reward_from_every_file_and_ids_stay_exact(saved, reward, load, tmp_path):
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is the garden warm?"}]
    row = {"id": 9007199254740993, "prompt": prompt, "response": [{"role": "assistant", "content": "It is warm."}]}
    text = {key: json.dumps(cell) if isinstance(cell, list) else cell for key, cell in row.items()}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    for suffix in (".csv", ".tsv", ".parquet"):
        write_table(pd.DataFrame([text]), tmp_path / f"x{suffix}")
    pd.DataFrame([row]).to_parquet(tmp_path / "y.parquet")
    expected = reward.score([tuple(prompt)], [tuple(row["response"])]).item()
    for name in ("x.jsonl", "x.csv", "x.tsv", "x.parquet", "y.parquet"):
        out = tmp_path / f"{name}.jsonl"
        score_file(saved, tmp_path / name, out, load=load)
        (found,) = lines(out)
        assert found["reward"] == expected
        assert str(found["id"]) == "9007199254740993"
        assert found["prompt"] == (prompt if name in ("x.jsonl", "y.parquet") else json.dumps(prompt))


def write_table(frame, path):
    if path.suffix in (".json", ".jsonl"):
        frame.to_json(path, orient="records", lines=path.suffix == ".jsonl")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


def read_table(path):
    """The cells as other programs read them."""
    if ".json" in path.name:
        text = path.read_text()
        return pd.DataFrame(json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines()))
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, dtype=str, sep="\t" if ".tsv" in path.name else ",")


SCORES = """
import sys, torch
torch.set_num_threads(1)
from arm_lens import ActivationRewardModel, load_model
from arm_lens.reward.scoring import score_file
model = load_model(sys.argv[1])
def victim(folder, data, out):
    score_file(folder, data, out, load=lambda path: ActivationRewardModel.load(path, model))
"""


@pytest.mark.slow
def test_kills_leave_no_trace(folder_of, saved, data, tmp_path):
    whole, out, lengths = tmp_path / "whole.jsonl", tmp_path / "out.jsonl", set()
    victims = Victims(SCORES, str(folder_of("llama")))

    def size():
        return out.stat().st_size if out.exists() else 0

    try:
        outputs = [whole, tmp_path / "again.jsonl"]  # the first takes longer than all after it
        seconds = min([victims.run(str(saved), str(data), str(one)) for one in outputs])
        for _ in victims.kill_at_random(KILLS, 0.6 * seconds, str(saved), str(data), str(out), state=size):
            lengths.add(size())
        victims.run(str(saved), str(data), str(out))
    finally:
        victims.close()
    assert out.read_bytes() == whole.read_bytes() and len(lines(out)) == 3 * AT_A_TIME + 10
    assert len(lengths) > 1, "the kills came too early or too late to tell anything"


@pytest.mark.slow
def test_what_is_there_is_not_scored_again_and_what_is_half_there_is(saved, data, load, tmp_path):
    out, loaded = tmp_path / "out.jsonl", []

    def counted(folder):
        loaded.append(folder)
        return load(folder)

    score_file(saved, data, out, load=counted)
    whole = out.read_bytes()
    out.write_bytes(whole + b'{"id": "half a li')
    score_file(saved, data, out, load=counted)
    assert out.read_bytes() == whole and len(loaded) == 1


@pytest.mark.slow
def test_an_output_of_other_inputs_is_refused_and_left_alone(saved, reward, data, load, tmp_path):
    out = tmp_path / "out.jsonl"
    score_file(saved, data, out, load=load, options={"dtype": "float32"})
    before, options = out.read_bytes(), {"dtype": "float32"}

    def refused(reason, folder=saved, data=data, **changes):
        with pytest.raises(ValueError, match=rf"out\.jsonl was made of something else \({reason}\)"):
            score_file(folder, data, out, load=load, **{"options": options} | changes)
        assert out.read_bytes() == before

    refused("options", options={"dtype": "bfloat16"})
    refused("columns", columns={"response": "prompt", "prompt": "response"})
    refused("rows", limit=3)
    other_heads = reward.with_heads(HeadSet.of(3, 4, [(1, 3)])).save(tmp_path / "elsewhere" / "rm")
    refused("reward_model", other_heads)
    copy = shutil.copy(data, tmp_path / "copy.jsonl")
    score_file(saved, copy, out, load=load, options=options)  # the same, wherever it lies
    copy.write_text(copy.read_text().replace("garden", "meadow"))
    refused("data", data=copy)
    reward.with_heads(HeadSet.of(3, 4, [(1, 3)])).save(saved)  # another one where the first was
    refused("reward_model")
    out.unlink()
    score_file(saved, data, out, load=load, options=options)
    assert lines(out)[0]["gap"] != json.loads(before.splitlines()[0])["gap"]


def test_a_changed_output_is_refused(saved, data, load, tmp_path):
    out = tmp_path / "out.jsonl"
    score_file(saved, data, out, load=load)
    out.write_bytes(out.read_bytes().replace(b'"reward": 0', b'"reward": 1', 1))
    with pytest.raises(DamagedFileError, match=r"out\.jsonl was changed"):
        score_file(saved, data, out, load=load)


@pytest.mark.parametrize("name", ["rows.parquet", "x.json", "x.csv.gz", "x.jsonl"])
def test_a_file_that_is_somebody_elses_is_not_overwritten(saved, tmp_path, name):
    write_table(pd.DataFrame(rows(3)), tmp_path / "rows.parquet")
    if name != "rows.parquet":
        (tmp_path / name).write_bytes(b"mine")
    before = {path: path.read_bytes() for path in tmp_path.glob("[!.]*.*")}
    with pytest.raises(FileExistsError, match="was not written by this program"):
        score_file(saved, tmp_path / "rows.parquet", tmp_path / name, load=lambda folder: pytest.fail("loaded"))
    assert {path: path.read_bytes() for path in tmp_path.glob("[!.]*.*")} == before


@pytest.mark.slow
def test_a_changed_output_of_a_format_that_cannot_grow_is_refused(saved, load, tmp_path):
    write_table(pd.DataFrame(rows(3)), tmp_path / "rows.parquet")
    score_file(saved, tmp_path / "rows.parquet", tmp_path / "out.json", load=load)
    (tmp_path / "out.json").write_bytes(b"mine")
    with pytest.raises(DamagedFileError, match=r"out\.json was changed"):
        score_file(saved, tmp_path / "rows.parquet", tmp_path / "out.json", load=load)
    assert (tmp_path / "out.json").read_bytes() == b"mine"


def test_a_reward_model_that_is_replaced_meanwhile_is_not_mixed_in(saved, reward, data, load, tmp_path):
    def overtaken(folder):
        reward.with_heads(HeadSet.of(3, 4, [(1, 3)])).save(folder)
        return load(folder)

    with pytest.raises(ArtefactError, match="replaced while it was being read"):
        score_file(saved, data, tmp_path / "out.jsonl", load=overtaken)
    assert not (tmp_path / "out.jsonl").read_bytes()


def test_a_second_writer_is_kept_out(saved, data, load, tmp_path):
    with growing(tmp_path / "out.jsonl", {}), pytest.raises(StoreBusyError, match=r"out\.jsonl"):
        score_file(saved, data, tmp_path / "out.jsonl", load=load)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.csv", "prompt,response\nhello,hi\nagain,\n", r"x\.csv, row 2, field response: is missing"),
        ("x.csv", "prompt,response\nhello,hi\n,ho\n", r"x\.csv, row 2, field prompt: is missing"),
        ("x.csv", "prompt,answer\nhello,hi\n", r"x\.csv: has no column 'response'; it has prompt, answer"),
        ("x.csv", "prompt,response\nhello,hi,a note\n", r"x\.csv, row 1: has 3 cells, but the header has 2"),
        ("x.csv", "prompt,response,gap\nhello,hi,1\n", r"x\.csv has a column 'gap' already"),
        ("x.txt", "hello", r"x\.txt: files with the extension '\.txt' cannot be read"),
    ],
)
def test_rows_that_cannot_be_scored_are_named_before_anything_is_loaded(saved, tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=reason):
        score_file(saved, tmp_path / name, tmp_path / "out.jsonl", load=lambda folder: pytest.fail("loaded"))
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "reason"), [("o1", None), ("x.jsonl.out", None), ("x.xlsx", "can only be written to")]
)
def test_an_output_whose_name_says_no_format_has_lines_of_json(saved, load, tmp_path, name, reason):
    (tmp_path / "x.csv").write_text("prompt,response\nhello,hi\n")
    if reason:
        with pytest.raises(ValueError, match=reason):
            score_file(saved, tmp_path / "x.csv", tmp_path / name, load=lambda folder: pytest.fail("loaded"))
        return
    assert score_file(saved, tmp_path / "x.csv", tmp_path / name, load=load) == 1
    assert lines(tmp_path / name)[0]["response"] == "hi"


def test_no_rows_give_an_empty_file(saved, tmp_path):
    (tmp_path / "x.csv").write_text("prompt,response\n")
    assert score_file(saved, tmp_path / "x.csv", tmp_path / "out.jsonl", load=lambda folder: None) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.slow
def test_the_command_line_says_what_was_made_and_refuses_another_reward_model(reward, saved, data, tmp_path):
    out = str(tmp_path / "out.jsonl")
    said = CliRunner().invoke(app, ["score", str(saved), str(data), "--out", out, "--device", "cpu"])
    assert said.exit_code == 0 and f"{3 * AT_A_TIME + 10} rewards in" in said.output
    other = reward.with_heads(HeadSet.none(3, 4)).save(tmp_path / "other")
    refused = CliRunner().invoke(app, ["score", str(other), str(data), "--out", out, "--device", "cpu"])
    assert refused.exit_code == 1 and "made of something else (reward_model)" in str(refused.exception)


@pytest.mark.slow
def test_rows_are_scored_in_the_company_they_had(saved, data, load, tmp_path, monkeypatch):
    calls, scored = [], scoring._scored

    def noted(reward, table, which, kinds):
        calls.append([table.rows[index]["id"] for index in which])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return scored(reward, table, which, kinds)

    monkeypatch.setattr(scoring, "_scored", noted)
    with pytest.raises(KeyboardInterrupt):
        score_file(saved, data, tmp_path / "out.jsonl", load=load)
    score_file(saved, data, tmp_path / "out.jsonl", load=load)
    assert calls[2] == calls[3] == list(range(2 * AT_A_TIME, 3 * AT_A_TIME)) and len(calls) == 5


def test_conversations_in_parquet_are_scored_and_every_other_column_stays_as_it_was(saved, reward, load, tmp_path):
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    prompts = [
        [{"role": "system", "content": "be warm"}, {"role": "user", "content": word}] if i % 2
        else [{"role": "user", "content": word}]
        for i, word in enumerate(WORDS[:5])
    ]  # fmt: skip
    responses = [[{"role": "assistant", "content": f"{word} is warm"}] for word in WORDS[:5]]
    table = pa.table({
        "turns": pa.array([[1, None], [], None, [2], [3]], pa.list_(pa.int16())),
        "prompt": pa.array(prompts, pa.list_(message)),
        "when": pa.array([0, 1, None, 3, 4], pa.timestamp("ns", tz="UTC")),
        "response": pa.array(responses, pa.list_(message)),
        "raw": pa.array([b"\x00\xff", None, b"", b"a", b"b"], pa.binary()),
        "half": pa.array([0.1, float("nan"), None, -0.0, 1e-9], pa.float32()),
        "kind": pa.array(["x", "y", "x", None, "y"]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "data.parquet")
    assert score_file(saved, tmp_path / "data.parquet", tmp_path / "out.parquet", load=load) == 5
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == [*table.column_names, "reward", "two_way", "gap"]
    for name in table.column_names:
        before, after = (one[name].combine_chunks() for one in (table, found))
        assert after.type == before.type, name
        assert after.to_pylist() == before.to_pylist() or name == "half"
    assert found["half"].to_numpy().tobytes() == table["half"].to_numpy().tobytes()
    expected = reward.score(prompts, responses, kind="gap")
    torch.testing.assert_close(torch.tensor(found["gap"].to_pylist()), expected, atol=1e-5, rtol=1e-4)


def test_rows_are_named_by_their_number_in_the_file_and_images_are_refused_before_the_first(
    saved, load, tmp_path, monkeypatch
):
    monkeypatch.setattr("arm_lens.reward.scoring.AT_A_TIME", 2)
    some = rows(3)
    some[2]["response"] = "garden " * 2000
    pd.DataFrame(some).to_json(tmp_path / "long.jsonl", orient="records", lines=True)
    with pytest.raises(ValueError, match="example 2: the prompt has"):
        score_file(saved, tmp_path / "long.jsonl", tmp_path / "long-out.jsonl", load=load)
    assert len(lines(tmp_path / "long-out.jsonl")) == 2

    Image.new("RGB", (4, 4)).save(tmp_path / "red.png")
    some[2] |= {"response": "fine", "image": "red.png"}
    pd.DataFrame(some).to_json(tmp_path / "seen.jsonl", orient="records", lines=True)
    with pytest.raises(NoImagesError, match="example 2 has an image in it"):
        score_file(saved, tmp_path / "seen.jsonl", tmp_path / "seen-out.jsonl", load=load)
    assert not (tmp_path / "seen-out.jsonl").exists() or not lines(tmp_path / "seen-out.jsonl")
