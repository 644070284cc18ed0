"""Images in messages, rows, files and benchmarks: each ends in the text that it is part of, or in an error about its row."""

from __future__ import annotations

import base64
import io
import json
import pickle
import subprocess
import sys
import warnings
from collections import Counter

import pandas as pd
import pytest
from PIL import Image as Pillow

from arm_lens.preferences import (
    LabelledResponse,
    PreferenceDataError,
    PreferenceDataWarning,
    PreferenceFieldError,
    PreferencePair,
    TiedPair,
    check_overlap,
    clusters,
    find_overlap,
    marks,
    read_preferences,
    read_responses,
    split_preferences,
    text_of,
    unpair,
    write_preferences,
)
from arm_lens.preferences.formats.rows import Table
from arm_lens.preferences.images import as_image, images_in
from arm_lens.preferences.overlap import data_digest, text_digests
from arm_lens.preferences.sources import image_reader
from arm_lens.preferences.tables import encoded


def png(colour: str, size: tuple[int, int] = (4, 3)) -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def uri(colour: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(colour)).decode()}"


def user(*content):
    return [{"role": "user", "content": list(content)}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


RED, BLUE, GREEN = (as_image(png(colour)) for colour in ("red", "blue", "green"))
TEXT = {"type": "text", "text": "What is it?"}
PLACE = {"type": "image"}


@pytest.fixture
def folder(tmp_path):
    """A folder with images of three colours."""
    (tmp_path / "images").mkdir()
    for colour in ("red", "blue", "green"):
        (tmp_path / "images" / f"{colour}.png").write_bytes(png(colour))
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def problem_of(source, **options):
    with pytest.raises(PreferenceDataError) as caught:
        read_preferences(source, **options)
    (problem,) = caught.value.problems
    return problem


# Messages


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": RED},
        {"type": "image", "image": png("red")},
        {"type": "image", "image": Pillow.open(io.BytesIO(png("red")))},
        {"type": "image", "url": uri("red")},
        {"type": "image", "base64": base64.b64encode(png("red")).decode()},
        {"type": "image_url", "image_url": {"url": uri("red"), "detail": "high"}},
        {"type": "input_image", "image_url": uri("red")},
        {"type": "image", "image": {"bytes": png("red"), "path": None}, "text": None},
    ],
)
def test_an_image_of_a_message_is_its_mark_between_the_texts(part):
    example = LabelledResponse(user(TEXT, part, {"type": "text", "text": "Say."}), assistant("A red box."), True)
    picture = images_in(text_of(example.prompt))[0]
    assert text_of(example.prompt) == f"What is it?\n{picture.mark}\nSay."
    assert picture.open().getpixel((0, 0)) == (255, 0, 0)


def test_a_path_in_code_is_relative_to_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for path in ("images/red.png", str(folder / "images" / "red.png"), folder / "images" / "red.png"):
        example = LabelledResponse(user({"type": "image", "image": path}, TEXT), "A red box.", True)
        assert text_of(example.prompt) == f"{RED.mark}\nWhat is it?"


def test_an_image_may_be_in_an_answer_and_alone_in_a_message():
    pair = PreferencePair(
        "Draw.", assistant([{"type": "image", "image": RED}]), assistant([{"type": "image", "image": BLUE}])
    )
    assert (text_of(pair.chosen), text_of(pair.rejected)) == (RED.mark, BLUE.mark)
    with pytest.raises(PreferenceFieldError, match=r"rejected is the same as chosen: \[\{'role': 'assistant'"):
        PreferencePair("Draw.", pair.chosen, list(pair.chosen))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (PLACE, "has a place for an image in message 1, but no image"),
        (
            {"type": "image", "image": "no.png"},
            "has an image in message 1 that names an image that is missing: 'no.png'",
        ),
        ({"type": "image", "image": RED, "url": uri("red")}, "not one of image, image_url, url, path, base64"),
        ({"type": "image", "image": RED, "mask": "x"}, "not one of image, image_url, url, path, base64"),
        ({"type": "image", "base64": "@"}, "has an image in message 1 that is not base64"),
        ({"type": "image_url", "image_url": {"url": "https://host/a.png"}}, "pass allow_urls=True"),
        ({"type": "video", "video": "a.mp4"}, "part of type 'video'"),
    ],
)
def test_an_image_that_cannot_be_read_is_named_with_its_message(part, reason):
    with pytest.raises(PreferenceFieldError) as caught:
        LabelledResponse(user(part, TEXT), "r", True)
    assert caught.value.field == "prompt" and reason in caught.value.reason


def test_texts_for_people_describe_images():
    pair = PreferencePair(user({"type": "image", "image": RED}, TEXT), "a", "b", id="1")
    assert f"[image {RED.digest[:8]}, 4 x 3]" in repr(pair) and "ufdd0" not in repr(pair)
    with pytest.raises(PreferenceFieldError) as caught:
        LabelledResponse([{"role": "user", "content": RED.mark, "name": "x"}], "r", True)
    with pytest.raises(PreferenceFieldError) as other:
        PreferencePair("p", RED.mark, RED.mark)
    assert "ufdd0" not in str(other.value) and str(RED) in str(other.value)
    assert "ufdd0" not in str(caught.value)


@pytest.mark.slow
def test_examples_carry_their_images_to_another_process(tmp_path):
    examples = [
        PreferencePair(user({"type": "image", "image": as_image(png("teal"))}, TEXT), "a", "b"),
        LabelledResponse("p", as_image(png("navy")).mark, True),
        TiedPair(as_image(png("olive")).mark, "a", "b"),
    ]
    (tmp_path / "examples.pickle").write_bytes(pickle.dumps(examples))
    script = (
        "import pickle, sys; from arm_lens.preferences.images import images_in; from arm_lens.preferences import text_of\n"
        "a, b, c = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(*[images_in(text_of(t))[0].open().getpixel((0, 0)) for t in (a.prompt, b.response, c.prompt)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "examples.pickle"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(0, 128, 128) (0, 0, 128) (128, 128, 0)"


# Rows: TRL's layout


ROWS = [
    # plain texts: the images stand at the beginning of the prompt
    ({"prompt": "What is it?", "image": "images/red.png"}, f"{RED.mark}\nWhat is it?"),
    ({"prompt": "Differ?", "images": ["images/red.png", "images/blue.png"]}, f"{RED.mark}\n{BLUE.mark}\nDiffer?"),
    ({"prompt": "What is it?", "images": '["images/red.png"]'}, f"{RED.mark}\nWhat is it?"),
    # messages without places: at the beginning of the first message of the user
    (
        {
            "prompt": [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *user(TEXT)],
            "images": ["images/red.png"],
        },
        f"System: Be brief.\n\nUser: {RED.mark}\nWhat is it?",
    ),
    # places are filled in order
    (
        {"prompt": user(PLACE, TEXT, PLACE), "images": ["images/blue.png", "images/red.png"]},
        f"{BLUE.mark}\nWhat is it?\n{RED.mark}",
    ),
    (
        {
            "prompt": [*user({"type": "image", "text": None, "index": 0}, TEXT)],
            "images": [{"bytes": png("red"), "path": "x"}],
        },
        f"{RED.mark}\nWhat is it?",
    ),
    # messages as JSON text
    ({"prompt": json.dumps(user(PLACE, TEXT)), "image": uri("red")}, f"{RED.mark}\nWhat is it?"),
    # images in the parts, repeated in the column or not
    ({"prompt": user({"type": "image", "path": "images/red.png"}, TEXT)}, f"{RED.mark}\nWhat is it?"),
    (
        {"prompt": user({"type": "image", "path": "images/red.png"}, TEXT), "images": ["images/red.png"]},
        f"{RED.mark}\nWhat is it?",
    ),
    ({"prompt": "What is it?", "images": []}, "What is it?"),
    ({"prompt": "What is it?", "image": None}, "What is it?"),
]


@pytest.mark.parametrize(("row", "prompt"), ROWS)
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.parquet"])
def test_images_of_a_row_are_in_its_prompt(row, prompt, name, folder):
    row = row | {"chosen": "A red box.", "rejected": "A cat."}
    has_bytes = any(isinstance(image, dict) for image in row.get("images") or [])
    if has_bytes and name != "x.parquet":
        row = row | {"images": [uri("red")]}
    path = folder / name
    if name.endswith(".csv"):
        cells = {
            key: value if isinstance(value, str) or value is None else json.dumps(value) for key, value in row.items()
        }
        pd.DataFrame([cells]).to_csv(path, index=False)
    elif name.endswith(".parquet"):
        pd.DataFrame([row]).to_parquet(path)
    else:
        path.write_text(json.dumps(row if name.endswith("l") else [row]))
    (pair,) = read_preferences(path)
    assert text_of(pair.prompt) == prompt
    assert (pair.chosen, pair.rejected, pair.metadata) == ("A red box.", "A cat.", {})
    if not has_bytes:
        rest = {"response": "A red box."} | {key: row[key] for key in row if key not in ("chosen", "rejected")}
        table = read_responses(write(folder / "y.jsonl", [rest]))
        assert (text_of(table.prompts[0]), table.rows[0]) == (prompt, {k: v for k, v in rest.items()})


def test_conversations_that_begin_with_the_prompt_have_the_images_in_it(folder):
    first, second = ([*user(PLACE, TEXT), *assistant(text)] for text in ("A red box.", "A cat."))
    plain = [[{"role": "user", "content": "What is it?"}, *assistant(text)] for text in ("A red box.", "A cat.")]
    rows = [
        {"chosen": first, "rejected": second, "images": ["images/red.png"]},
        {"chosen": plain[0], "rejected": plain[1], "images": ["images/red.png"]},
        {"prompt": "What is it?", "chosen": plain[0], "rejected": plain[1], "images": ["images/red.png"]},
        {"prompt": user(PLACE, TEXT), "chosen": first, "rejected": second, "images": ["images/red.png"]},
    ]
    for pair in read_preferences(write(folder / "x.jsonl", rows)):
        assert text_of(pair.prompt) == f"{RED.mark}\nWhat is it?"
        assert (text_of(pair.chosen), text_of(pair.rejected)) == ("A red box.", "A cat.")


def test_places_in_answers_follow_those_of_the_prompt(folder):
    row = {
        "prompt": user(PLACE, TEXT),
        "chosen": assistant([PLACE, {"type": "text", "text": "This."}]),
        "rejected": assistant([{"type": "text", "text": "That."}, PLACE]),
        "images": ["images/red.png", "images/blue.png"],
    }
    (pair,) = read_preferences(write(folder / "x.jsonl", [row]))
    assert text_of(pair.prompt) == f"{RED.mark}\nWhat is it?"
    assert text_of(pair.chosen) == f"{BLUE.mark}\nThis." and text_of(pair.rejected) == f"That.\n{BLUE.mark}"


def test_an_image_alone_is_the_prompt_of_texts_that_are_classified(folder):
    rows = [
        {"image": f"images/{colour}.png", "text": "a red box", "label": colour == "red"} for colour in ("red", "blue")
    ]
    first, second = read_preferences(write(folder / "x.jsonl", rows))
    assert (first.prompt, second.prompt, first.response) == (RED.mark, BLUE.mark, "a red box")
    problem = problem_of(write(folder / "y.jsonl", [*rows, {"text": "a cat", "label": True}]))
    assert (problem.row, problem.field, problem.message) == (3, "image", "is missing")
    compared = [{"image": row["image"], "response_a": "red", "response_b": "blue", "winner": "A"} for row in rows]
    assert [pair.prompt for pair in read_preferences(write(folder / "z.jsonl", compared))] == [RED.mark, BLUE.mark]


PAIR = {"chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"prompt": "p", "image": "images/no.png"}, "image", "names an image that is missing: 'images/no.png'"),
        (
            {"prompt": "p", "image": "../x.png"},
            "image",
            "leads out of the folder of the data: '../x.png'; pass allow_any",
        ),
        (
            {"prompt": "p", "image": "https://host/a.png?key=1"},
            "image",
            "is on the web, which is not opened: 'https://host/a.png'",
        ),
        ({"prompt": "p", "images": ["images/red.png", 7]}, "images[2]", "is 7 (int), not an image"),
        (
            {"prompt": "p", "images": ["images/red.png"], "image": "images/red.png"},
            "image",
            "is given as well as images",
        ),
        (
            {"prompt": user(PLACE, TEXT), "images": ["images/red.png"] * 2},
            "images",
            "has 2 images for 1 place in prompt",
        ),
        (
            {"prompt": user(PLACE, PLACE), "image": "images/red.png"},
            "image",
            "has 1 image for 2 places in prompt",
        ),
        ({"prompt": user(PLACE, TEXT)}, "prompt", "has a place for an image in message 1, but no image"),
        (
            {"prompt": user({"type": "image", "index": 1}), "image": "images/red.png"},
            "image",
            "is to be filled in order, but place 0",
        ),
        (
            {"prompt": user({"type": "image", "image": uri("blue")}), "image": "images/red.png"},
            "image",
            "has other images than",
        ),
        (
            {"prompt": [{"role": "system", "content": "p"}], "image": "images/red.png"},
            "prompt",
            "has no message from the user",
        ),
        ({"prompt": "p", "image": "[broken"}, "image", "looks like a list of images, but is not JSON"),
        ({"prompt": f"p {chr(0xFDD0)}"}, "prompt", "has U+FDD0 at character 3, which is not text"),
    ],
)
def test_an_image_at_fault_is_a_problem_of_its_row(row, field, message, folder):
    problem = problem_of(write(folder / "x.jsonl", [PAIR | {"prompt": "p", "id": "1"}, PAIR | row]))
    assert (problem.row, problem.field) == (2, field)
    assert problem.message.startswith(message)


def test_transcripts_and_images_are_refused(folder):
    row = {key: f"\n\nHuman: Hi\n\nAssistant: {text}" for key, text in PAIR.items()} | {"image": "images/red.png"}
    assert "write the turns as messages" in problem_of(write(folder / "x.jsonl", [row])).message


def test_a_column_that_looks_like_images_is_declared(folder):
    path = write(folder / "x.jsonl", [PAIR | {"prompt": "p", "Picture": "images/red.png"}])
    problem = problem_of(path)
    assert problem.row is None
    assert (
        "has no images, but a column 'Picture' that looks like them. Pass columns={..., 'image': 'Picture'}"
        in problem.message
    )
    assert images_in(text_of(read_preferences(path, columns={"image": "Picture"})[0].prompt)) == [RED]
    assert read_preferences(path, columns={"metadata": "Picture"})[0].prompt == "p"
    path = write(folder / "y.jsonl", [{"prompt": "p", "response": "r", "photo": "images/red.png"}])
    with pytest.raises(PreferenceDataError, match="has no images, but a column 'photo'"):
        read_responses(path)


def test_paths_are_those_of_the_data_and_lead_out_only_if_allowed(folder, tmp_path_factory, monkeypatch):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "red.png").write_bytes(png("red"))
    rows = [PAIR | {"prompt": "p", "image": str(outside / "red.png")}]
    for source in (write(folder / "x.jsonl", rows), rows):
        assert "pass allow_any_path=True" in problem_of(source).message
        assert images_in(read_preferences(source, allow_any_path=True)[0].prompt) == [RED]
    monkeypatch.chdir(folder)
    assert images_in(read_preferences([PAIR | {"prompt": "p", "image": "images/red.png"}])[0].prompt) == [RED]
    in_a_message = [PAIR | {"prompt": user({"type": "image", "path": str(outside / "red.png")}, TEXT)}]
    assert "leads out of the folder" in problem_of(in_a_message).message
    mixed = [PAIR | {"prompt": [*in_a_message[0]["prompt"], "not a message"]}]
    assert "leads out of the folder" in problem_of(mixed).message


def test_rows_without_their_images_are_counted_and_left_out(folder):
    rows = [PAIR | {"prompt": "p", "image": f"images/{name}.png"} for name in ("red", "no", "blue", "nor")]
    path = write(folder / "x.jsonl", rows)
    with pytest.raises(
        PreferenceDataError, match="2 of 4 rows could not be read, 2 of them because an image is missing"
    ):
        read_preferences(path)
    with pytest.warns(
        PreferenceDataWarning, match=r"(?s)2 of them because an image is missing.*row 2.*row 4.*'images/nor.png'"
    ):
        pairs = read_preferences(path, on_error="skip")
    assert [images_in(pair.prompt) for pair in pairs] == [[RED], [BLUE]]


def test_a_data_set_of_hugging_face_gives_the_bytes_of_its_images(folder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "prompt": datasets.Value("string"),
            "chosen": datasets.Value("string"),
            "rejected": datasets.Value("string"),
            "images": datasets.List(datasets.Image()),
        }
    )
    rows = [
        PAIR | {"prompt": "p", "images": [{"bytes": png("red"), "path": None}, {"bytes": png("blue"), "path": "x"}]}
    ]
    data = datasets.Dataset.from_list(rows, features=features)
    (pair,) = read_preferences(data)
    assert images_in(pair.prompt) == [RED, BLUE]
    single = (
        data.remove_columns("images").add_column("image", [rows[0]["images"][0]]).cast_column("image", datasets.Image())
    )
    assert images_in(read_preferences(single)[0].prompt) == [RED]


def test_a_data_set_on_the_hub_names_no_files_of_this_machine(folder, monkeypatch):
    monkeypatch.chdir(folder)
    table = Table(name="hf://owner/name, split train", rows=[])
    with pytest.raises(PreferenceFieldError, match=r"names the file 'images/red\.png', which is not read"):
        image_reader(table, allow_urls=False, allow_any_path=False)("images/red.png")
    assert image_reader(table, allow_urls=False, allow_any_path=True)("images/red.png") == RED


@pytest.mark.slow
def test_texts_without_images_need_no_pillow(tmp_path):
    write(tmp_path / "x.jsonl", [PAIR | {"prompt": user(TEXT)}])
    script = (
        "import sys; sys.modules['PIL'] = None\n"
        "from arm_lens.preferences import read_preferences; read_preferences(sys.argv[1])\n"
        "try:\n    read_preferences([{'prompt': 'p', 'chosen': 'a', 'rejected': 'b', 'image': sys.argv[2]}])\n"
        "except ImportError as error:\n    print(error)"
    )
    arguments = [sys.executable, "-c", script, tmp_path / "x.jsonl", uri("red")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout == "images need Pillow, which is not installed: pip install 'arm-lens[vision]'\n"


# Benchmarks


MULTIMODAL = {
    "ID": "nocaps_1",
    "Category": "open_generation/correctness_task",
    "Text": "Describe it.",
    "Image": "images/red.png",
}
MULTIMODAL |= {"Output1": "a", "Output2": "b", "Better": "Output2"}


def test_multimodal_rewardbench_is_read_with_its_images_and_the_published_categories(folder):
    kinds = {
        "nocaps_1": ("open_generation/correctness_task", "open_generation/correctness_task"),
        "mathvista_1": ("reasoning", "reasoning/math"),
        "EMMA-Coding_1": ("reasoning", "reasoning/coding"),
        "PAIRS_1": ("safety", "safety/bias"),
        "hateful_1": ("safety", "safety/toxicity"),
        "MMBench_1": ("vqa", "vqa"),
    }
    rows = [MULTIMODAL | {"ID": id, "Category": category} for id, (category, _) in kinds.items()]
    (folder / "all_data.json").write_text(json.dumps(rows))
    pairs = read_preferences(folder / "all_data.json")
    assert [pair.metadata["subset"] for pair in pairs] == [subset for _, subset in kinds.values()]
    metadata = {
        "format": "multimodal-rewardbench",
        "subset": "open_generation/correctness_task",
        "image": "images/red.png",
    }
    expected = PreferencePair(
        f"{RED.mark}\nDescribe it.", "b", "a", id="nocaps_1", metadata=metadata | {"Better": "Output2"}
    )
    assert pairs[0] == expected
    rows[1]["Image"] = "images/no.png"
    (folder / "all_data.json").write_text(json.dumps(rows))
    with pytest.warns(
        PreferenceDataWarning, match="1 of 6 rows could not be read, 1 of them because an image is missing"
    ):
        assert len(read_preferences(folder / "all_data.json", on_error="skip")) == 5
    problem = problem_of([{name: cell for name, cell in MULTIMODAL.items() if name != "Image"}])
    assert (problem.field, problem.message) == ("Image", "is missing")


VL = {"query": "<image>\nWhat is it?", "response": ["a", "b"], "models": ["x", "y"], "judge": "human"}
VL |= {
    "rationale": None,
    "query_source": "COCO",
    "ground_truth": None,
    "meta": "{}",
    "human_error_analysis": ["counting"],
}


def test_vl_rewardbench_is_read_from_both_of_its_published_forms(folder):
    groups = {
        "RLAIF-V-14": "hallucination",
        "RLHF-V-2": "hallucination",
        "hallucination_pair-3": "hallucination",
        "mathverse_15": "reasoning",
        "mmmu_pro-1": "reasoning",
        "wildvision-battle-5": "general",
        "LRVInstruction-000000007746": "general",
    }
    rows = [VL | {"id": id, "image": {"bytes": png("red"), "path": "1.png"}, "human_ranking": [1, 0]} for id in groups]
    pd.DataFrame(rows).to_parquet(folder / "test.parquet")
    pairs = read_preferences(folder / "test.parquet")
    assert [pair.metadata["subset"] for pair in pairs] == list(groups.values())
    assert (pairs[0].prompt, pairs[0].chosen, pairs[0].rejected) == (f"{RED.mark}\nWhat is it?", "b", "a")
    assert pairs[0].id == "RLAIF-V-14:1" and pairs[0].metadata["format"] == "vl-rewardbench"
    assert "image" not in pairs[0].metadata
    folders = {
        "vlfeedback": "general",
        "povid": "hallucination",
        "reasoning_tasks": "reasoning",
        "rlhf-v": "hallucination",
    }
    lines = []
    for number, name in enumerate(folders):
        (folder / "images" / name).mkdir()
        (folder / "images" / name / "1.png").write_bytes(png("blue"))
        lines.append(VL | {"id": str(number), "image_path": f"images/{name}/1.png", "human_ranking": [0, 1]})
    pairs = read_preferences(write(folder / "data.jsonl", lines))
    assert [pair.metadata["subset"] for pair in pairs] == list(folders.values())
    assert (images_in(pairs[0].prompt), pairs[0].chosen) == ([BLUE], "a")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"human_ranking": [0, 0]}, "human_ranking"),
        ({"human_ranking": [0, 1, 2]}, "human_ranking"),
        ({"response": ["a"]}, "response"),
        ({"image": None}, "image_path"),
    ],
)
def test_a_row_of_vl_rewardbench_at_fault_is_named(change, field):
    problem = problem_of(
        [VL | {"id": "1", "image": uri("red"), "human_ranking": [0, 1]} | change], format="vl-rewardbench"
    )
    assert (problem.row, problem.field) == (1, field)


# Everything that is said of examples holds for images


def about(image, text="What is it?", response="A box.", label=True, id=""):
    return LabelledResponse(
        user({"type": "image", "image": image}, {"type": "text", "text": text}), response, label, id=id
    )


def test_the_same_image_under_another_name_is_the_same_prompt_and_another_image_is_another(folder):
    path = folder / "images" / "copy.png"
    path.write_bytes(png("red"))
    same, other = about(path), about(BLUE)
    assert about(RED) == same and hash(about(RED)) == hash(same) and same != other
    assert find_overlap([about(RED)], [same]) and not find_overlap([about(RED)], [other])
    with pytest.raises(ValueError, match="also among the examples"):
        check_overlap([about(RED, id="1"), about(GREEN)], [about(path, id="2")])
    assert data_digest([same]) == data_digest([about(RED)]) != data_digest([other])
    assert text_digests([same]) == text_digests([about(RED)]) and not {*text_digests([same])} & {*text_digests([other])}


def test_images_divide_examples_as_prompts_do():
    colours = [(number * 20, 40, 80) for number in range(10)]
    pictures = [as_image(Pillow.new("RGB", (2, 2), colour)) for colour in colours]
    examples = [about(image, response=text, label=text == "a") for image in pictures for text in ("a", "b")]
    assert Counter(clusters(examples)).most_common(1)[0][1] == 2 and len(set(clusters(examples))) == 10
    parts = split_preferences(examples, {"train": 0.5, "test": 0.5}, seed=0)
    prompts = [{text_of(example.prompt) for example in part} for part in parts.values()]
    assert not prompts[0] & prompts[1] and len(prompts[0]) == len(prompts[1]) == 5


def test_unpaired_examples_have_the_images():
    pair = PreferencePair(user({"type": "image", "image": RED}, TEXT), "a", "b")
    assert {images_in(text_of(single.prompt))[0] for single in unpair([pair])} == {RED}


# What is written


WRITTEN = [
    PreferencePair(f"{RED.mark}\nWhat is it?", "A red box.", "A cat.", id="1"),
    PreferencePair(f"{RED.mark}\n{BLUE.mark}\nDiffer?", "Yes.", "No.", id="2"),
    PreferencePair("No image.", "Yes.", "No.", id="3"),
    PreferencePair(f"Is {RED.mark} like {BLUE.mark}{BLUE.mark}?", "Yes.", f"No, like {GREEN.mark}.", id="4"),
    PreferencePair(RED.mark, "Yes.", "No.", id="5"),
]
MESSAGES = [
    PreferencePair(user({"type": "image", "image": RED}, TEXT), "A red box.", "A cat.", id="1"),
    PreferencePair(user(TEXT, {"type": "image", "image": RED}), assistant("A red box."), assistant("A cat."), id="2"),
    PreferencePair(user({"type": "image", "image": RED}), assistant(BLUE.mark), assistant("A cat."), id="3"),
]
SINGLES = [
    LabelledResponse(RED.mark, "A red box.", True, id="1"),
    LabelledResponse(BLUE.mark, "A red box.", False, id="2", metadata={"source": "x"}),
]


@pytest.fixture
def known():
    """The images that are known now, and again after the test."""
    before = dict(marks.KNOWN)
    yield before
    marks.KNOWN.update(before)


@pytest.mark.parametrize("examples", [WRITTEN, MESSAGES, SINGLES])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet", "x.jsonl.gz"])
def test_what_is_written_is_read_as_equal_examples_in_another_process(examples, name, tmp_path, known):
    (tmp_path / "out").mkdir()
    write_preferences(examples, tmp_path / "out" / name)
    (tmp_path / "out").rename(tmp_path / "moved")
    marks.KNOWN.clear()  # as in a process that has read nothing
    again = read_preferences(tmp_path / "moved" / name)
    assert again == examples
    for example in again:
        for image in images_in(text_of(example.prompt)):
            assert image.content == known[image.digest].content
    beside = sorted(path.name for path in (tmp_path / "moved").glob("*/*"))
    used = {image.digest for example in examples for text in _texts(example) for image in images_in(text)}
    assert beside == ([] if name.endswith(".parquet") else sorted(f"{digest}.png" for digest in used))


def _texts(example):
    responses = [example.response] if isinstance(example, LabelledResponse) else [example.chosen, example.rejected]
    return [text_of(text) for text in (example.prompt, *responses)]


def test_other_tools_find_trls_layout(tmp_path):
    write_preferences(WRITTEN[:2], tmp_path / "x.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["What is it?", "Differ?"]
    assert rows[1]["images"] == [f"x.images/{image.digest}.png" for image in (RED, BLUE)]
    write_preferences(WRITTEN[:2], tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert [[cell["bytes"] for cell in cells] for cells in frame["images"]] == [[png("red")], [png("red"), png("blue")]]


@pytest.mark.parametrize("extension", [".jsonl", ".json", ".csv", ".parquet"])
def test_cells_with_the_bytes_of_images_are_written_in_every_format(extension, tmp_path):
    rows = [{"prompt": "p", "response": "r", "images": [{"bytes": png(one), "path": None}]} for one in ("red", "blue")]
    pd.DataFrame(rows).to_parquet(tmp_path / "x.parquet")
    table = read_responses(tmp_path / "x.parquet")
    path = tmp_path / f"y{extension}"
    path.write_bytes(encoded(table.rows, table.columns, extension, schema=table.schema))
    assert read_responses(path).prompts == table.prompts
    pd.DataFrame([{"prompt": "p", "response": "r", "image": png("red")}]).to_parquet(tmp_path / "x.parquet")
    table = read_responses(tmp_path / "x.parquet")
    path.write_bytes(encoded(table.rows, table.columns, extension, schema=table.schema))
    assert read_responses(path).prompts == table.prompts == (f"{RED.mark}\np",)


def test_texts_without_images_are_written_as_before(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_preferences([PreferencePair("p", "a", "b", id="1")], tmp_path / "x.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
    assert json.loads((tmp_path / "x.jsonl").read_text()) == {"id": "1", "prompt": "p", "chosen": "a", "rejected": "b"}
