"""Does a criterion hold later in a conversation? `python scripts/study_turns.py --data DIR --out DIR`.

Judges are fitted on short prompts: a request, and a tweet of joy or anger as its response. Then the same held-out tweets are
judged as the last turn of conversations: at turn 1, 3 and 8, and after 64 to 4,096 tokens of earlier turns, which are the
same request with other tweets, as often joyful as angry. A longer conversation ends in the shorter one. Accuracy and AUC of
an Activation Reward Model, of Sparse Attention Vectors and of the model itself, with 95 % intervals over tweets and over fits
on other examples. (docs/real_models.md says where the tweets come from.)

Writes study_turns.json and study_turns.png. A stopped run goes on where it stopped: what is done lies in DIR/parts.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
from measuring import claim, digest_of_files, kept, machine
from tqdm import tqdm

from arm_lens import (
    ActivationRewardModel,
    GenerativeJudge,
    LabelledResponse,
    SparseAttentionVectors,
    load_model,
    read_preferences,
    split_preferences,
)
from arm_lens.benchmark import real_model
from arm_lens.benchmark.parts import name_of_weights
from arm_lens.engine.language_model import language_model
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.sharing import shared_readings
from arm_lens.evaluation.statistics import Estimate, accuracy
from arm_lens.evaluation.statistics.intervals import ClusterBootstrap
from arm_lens.evaluation.statistics.ranking import roc_area
from arm_lens.judges.base import Judge
from arm_lens.judges.options import QuestionOptions
from arm_lens.plots import save_figure
from arm_lens.storage import write_text

REQUEST = "Write a tweet."
CRITERION = "The tweet expresses joy."
TURNS = (1, 3, 8)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096)
AT_A_TIME = 10
"""Tweets in a part that is stored."""
ALONE = 600
"""With more tokens before it than this, a tweet is judged and stored alone, which takes less memory."""

LONG = 2048
"""After more tokens than this fewer tweets may be judged, since time grows faster than the number of tokens."""


def tweets(data: Path, part: str) -> list[LabelledResponse]:
    """Tweets of joy (the label is true) and anger, as responses to the request."""
    read = read_preferences(
        data / "tweets" / f"emotion_{part}.jsonl", labels={"joy": True, "anger": False}, criterion="joy"
    )
    return [LabelledResponse(REQUEST, one.response, one.label, id=one.id, criterion="joy") for one in read]


def conversation(
    model: LanguageModel, judged: LabelledResponse, pool: list[LabelledResponse], *, turns: int = 0, tokens: int = 0
) -> tuple[list[dict[str, str]], int]:
    """The messages before a tweet, with as many turns in all or at most as many tokens before the last request.

    Returns the messages and the number of tokens before the last request. Tweets of either kind alternate.
    """
    sample = random.Random(f"turns {judged.id}")
    sides = [[one for one in pool if one.label is label] for label in (True, False)]
    for side in sides:
        sample.shuffle(side)
    request = {"role": "user", "content": REQUEST}
    earlier: list[dict[str, str]] = []
    used = 0
    for number, one in enumerate(one for pair in zip(*sides, strict=False) for one in pair):
        turn = [request, {"role": "assistant", "content": one.response}]
        length = len(
            model.tokenizer(f"User: {REQUEST}\n\nAssistant: {one.response}\n\n", add_special_tokens=False).input_ids
        )
        if number + 2 > turns if turns else used + length > tokens:
            break
        earlier, used = [*turn, *earlier], used + length
    else:
        raise SystemExit(f"there are too few tweets for {tokens} tokens of earlier turns")
    return [*earlier, request], used


def judges_of(model: LanguageModel, few: list[LabelledResponse], draw: int, selector: str) -> dict[str, Judge]:
    """The judges that are compared, fitted on short prompts."""
    question = QuestionOptions(criterion_text=CRITERION, batch_size=4)
    fit = functools.partial(ActivationRewardModel.fit, model, few, criterion="joy", question=question)
    return {
        "Activation Reward Model": fit(selector=selector, seed=draw, progress=True),
        "SAV": SparseAttentionVectors.fit(model, few, question=question),
        "Zero-shot": GenerativeJudge(model, question=question),
    }


def rewards(judges: dict[str, Judge], prompts: list[Any], responses: list[Any], alone: bool) -> dict[str, list[float]]:
    """What each judge says, positive for joy; the model itself and the steered one share the reading of all but one token."""
    found: dict[str, list[float]] = {name: [] for name in judges}
    spans = [slice(i, i + 1) for i in range(len(prompts))] if alone else [slice(None)]
    for span in spans:
        with shared_readings():
            for name, judge in judges.items():
                gaps = judge.score(prompts[span], responses[span], kind="gap")
                found[name] += (gaps - (0.5 if name == "SAV" else 0.0)).tolist()
    return found


def estimates(table: np.ndarray, labels: np.ndarray) -> dict[str, Estimate]:
    """Accuracy and AUC of ``[draw, item]``, with intervals over both."""
    right = np.where(table == 0, 0.5, (table > 0) == labels)
    clusters = ClusterBootstrap(np.arange(len(labels)))
    return {"accuracy": accuracy(right), "AUC": roc_area(table[:, None], labels, clusters)}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options of a study."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the tweets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=None, help="hub name, folder or GGUF file; by default SmolLM2-135M-Instruct")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--draws", type=int, default=2, help="fits on other examples")
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--held-out", type=int, default=100)
    parser.add_argument("--selector", default="reinforce")
    return parser


def material(
    options: argparse.Namespace,
) -> tuple[LanguageModel, list[LabelledResponse], list[LabelledResponse], dict[str, Any]]:
    """The model, the tweets to fit on and the held-out ones, and what a study ran on; the folder is its own from here on."""
    model = language_model(load_model(options.model or real_model(), dtype=options.dtype))
    meta = machine(str(model.device), str(model.dtype).removeprefix("torch."))
    data = {
        "data": digest_of_files(options.data / "tweets"),
        "examples": options.examples,
        "held_out": options.held_out,
    }
    claim(options.out, {**meta, "weights": name_of_weights(model), "selector": options.selector, **data})
    many = split_preferences(tweets(options.data, "test"), {"many": options.held_out}, seed=0)["many"]
    return model, tweets(options.data, "train"), many, meta


def by_measure(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each measure of each row, with its value and how far its interval reaches up and down."""
    return pd.concat([
        table.assign(measure=name, value=table[name], up=table[f"{name}_high"] - table[name],
                     down=table[name] - table[f"{name}_low"])
        for name in ("accuracy", "AUC")
    ])  # fmt: skip


def main() -> None:
    """Command line."""
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, nargs="*", default=list(TURNS))
    parser.add_argument("--long-held-out", type=int, help=f"tweets after more than {LONG:,} tokens; by default all")
    parser.add_argument("--tokens", type=int, nargs="*", default=list(TOKENS))
    options = parser.parse_args()
    model, train, many, meta = material(options)
    labels = np.array([one.label for one in many])
    conditions = [{"turns": one} for one in options.turns] + [{"tokens": one} for one in options.tokens]
    rows, found = [], {}
    for draw in range(options.draws):
        few = split_preferences(train, {"few": options.examples}, seed=draw)["few"]
        names = {one.id for one in few}
        pool = [one for one in train if one.id not in names]
        judges = functools.cache(functools.partial(judges_of, model, few, draw, options.selector))  # fitted if needed
        for condition in conditions:
            [(kind, size)] = condition.items()
            at_a_time = 1 if kind == "tokens" and size > ALONE else AT_A_TIME
            these = many[: options.long_held_out] if kind == "tokens" and size > LONG else many
            for start in tqdm(range(0, len(these), at_a_time), desc=f"fit {draw}, {size} {kind}"):
                some = these[start : start + at_a_time]

                def judged(some: list[Any] = some, kind: str = kind, size: int = size, judges: Any = judges,
                           pool: Any = pool) -> dict[str, Any]:  # fmt: skip
                    started = time.perf_counter()
                    whole = [conversation(model, one, pool, **{kind: size}) for one in some]
                    texts = [messages for messages, _ in whole], [one.response for one in some]
                    scores = rewards(judges(), *texts, alone=max(used for _, used in whole) > ALONE)
                    return {
                        "rewards": scores,
                        "used": [used for _, used in whole],
                        "seconds": time.perf_counter() - started,
                    }

                part = kept(options.out, f"{draw} {size} {kind} {start} of {options.held_out}", judged)
                for name, values in part["rewards"].items():
                    found.setdefault((kind, size, name), {}).setdefault(draw, []).extend(values)
                found.setdefault((kind, size), []).extend(part["used"])
    for (kind, size, name), draws in ((key, value) for key, value in found.items() if len(key) == 3):
        table = np.array([draws[draw] for draw in sorted(draws)])
        n = table.shape[1]
        row = {"kind": kind, "size": size, "tokens": float(np.mean(found[kind, size])), "judge": name, "n": n}
        for measure, estimate in estimates(table, labels[:n]).items():
            row |= estimate.columns(measure)
        rows.append(row)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    meta["draws"] = options.draws
    write_text(options.out / "study_turns.json", json.dumps({"meta": meta, "rows": rows}, indent=1) + "\n")
    long = by_measure(table)
    beside = {name: 0.92 + 0.08 * number for number, name in enumerate(dict.fromkeys(table["judge"]))}
    long["size"] *= long["judge"].map(beside)  # so that no interval hides another
    figure = px.line(
        long[long["kind"] == "tokens"], x="size", y="value", error_y="up", error_y_minus="down", color="judge",
        facet_col="measure", markers=True, log_x=True, template="plotly_white",
        labels={"size": "tokens of earlier turns", "value": "held-out tweets", "judge": ""},
    )  # fmt: skip
    figure.add_hline(0.5, line_dash="dot")
    figure.update_layout(legend={"orientation": "h", "y": 1.12})
    figure.update_xaxes(tickvals=options.tokens, ticktext=[f"{one:,}" for one in options.tokens], tickangle=0)
    figure.for_each_annotation(lambda one: one.update(text=one.text.removeprefix("measure=")))
    save_figure(figure, options.out / "study_turns.png")


if __name__ == "__main__":
    main()
