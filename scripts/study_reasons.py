"""Where to steer if the model gives reasons first: `python scripts/study_reasons.py --data DIR --out DIR`.

An Activation Reward Model is fitted on the bare question, where the verdict is due at once. Here the model samples reasons
before its verdict on held-out tweets (joy or anger), and the fitted means are written at the same heads:

- ``none``: nowhere;
- ``verdict``: at the verdict's token after the reasons, which are the same as those of ``none``;
- ``last prompt token``: where the reasons begin, and nowhere else;
- ``every token``: at the last token of the prompt, at each token of the reasons, and up to the verdict.

Reasons are sampled with the same random numbers in every case. A text's reward is the mean over its reasons of
P(Yes) / (P(Yes) + P(No)). For comparison the verdicts without reasons, steered (the Activation Reward Model itself) and not.
Intervals are of 95 %, over tweets and over fits on other examples. (docs/real_models.md says where the tweets come from.)

Writes study_reasons.json and study_reasons.png. A stopped run goes on where it stopped: what is done lies in DIR/parts.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import torch
from measuring import kept
from study_turns import CRITERION, arguments, by_measure, estimates, material
from torch import Tensor
from tqdm import tqdm

from arm_lens import ActivationRewardModel, GenerativeJudge, LabelledResponse, split_preferences, steer
from arm_lens.engine.kv_segments import NewTokens
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.sampling import choose_tokens
from arm_lens.engine.tokens import pad
from arm_lens.engine.verdict_tokens import verdict_scores
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import questions_of
from arm_lens.judges.voting import Rationale, VotingJudge
from arm_lens.plots import save_figure
from arm_lens.storage import write_text

PLACES = ("none", "verdict", "last prompt token", "every token")
AT_A_TIME = 5
"""Tweets in a part that is stored."""


@torch.inference_mode()
def reasons(
    reward: ActivationRewardModel, prompts: Sequence[list[int]], uniforms: Tensor, place: str, stop: set[int]
) -> list[list[int]]:
    """Sampled reasons after each prompt, while the model is steered where ``place`` says."""
    model, first = reward.model, True
    before, new = pad([list(one) for one in prompts], device=model.device).last_apart()
    past, written, going = [model.prefill(before)], [list[int]() for _ in prompts], [True] * len(prompts)
    for step in range(uniforms.shape[1]):
        here = place == "every token" or (place == "last prompt token" and first)
        with steer(model, reward.chosen, reward.means.values) if here else contextlib.nullcontext():
            logits = model.extend(NewTokens.following(new, past), keep=past)[:, -1]
        first = False
        tokens = choose_tokens(logits.float(), uniforms[:, step]).tolist()
        going = [one and token not in stop for one, token in zip(going, tokens, strict=True)]
        for row, token in enumerate(tokens):
            if going[row]:
                written[row].append(token)
        if not any(going):
            break
        new = pad([[token] for token in tokens], device=model.device)
    return written


@contextlib.contextmanager
def steered_at(reward: ActivationRewardModel, places: Tensor) -> Iterator[None]:
    """Write the means at all the places, ``[row, position]``."""

    def writing(layer: int) -> Any:
        chosen, value = reward.heads.mask[layer], reward.means.values[layer]

        def write(z: Tensor) -> Tensor:
            return torch.where((places[..., None] & chosen)[..., None].to(z.device), value.to(z), z)

        return write

    layers = [layer for layer in range(reward.model.n_layers) if bool(reward.heads.mask[layer].any())]
    with reward.model.hooked({layer: writing(layer) for layer in layers}):
        yield


def sampled(reward: ActivationRewardModel, voting: VotingJudge, some: list[Any], place: str) -> list[list[int]]:
    """The tokens of the reasons of each vote on each tweet."""
    prompts, rationale, uniforms = reason_prompts(voting, some), voting.rationale, []
    assert rationale is not None
    for one in questions_of(some, voting.judge.template):
        for vote in range(voting.votes):
            uniforms.append([voting.uniform(one, vote, step) for step in range(rationale.max_tokens)])
    return reasons(reward, prompts, torch.tensor(uniforms, dtype=torch.float64), place, voting.stop_tokens(rationale))


def reason_prompts(voting: VotingJudge, some: list[Any]) -> list[list[int]]:
    """The prompt of each vote on each tweet."""
    assert voting.rationale is not None
    questions = questions_of(some, voting.judge.template)
    return [one for one in voting.reason_prompts(questions, voting.rationale) for _ in range(voting.votes)]


def verdicts(
    reward: ActivationRewardModel, voting: VotingJudge, some: list[Any], written: list[list[int]], place: str
) -> dict[str, Any]:
    """The two-way probability of Yes after the reasons of each vote on each tweet; the mass of the verdicts; lengths."""
    judge, prompts = voting.judge, reason_prompts(voting, some)
    assert voting.rationale is not None
    after, tokens = voting.ending(voting.rationale)
    whole = pad(
        [[*prompt, *reason, *after] for prompt, reason in zip(prompts, written, strict=True)],
        device=reward.model.device,
    )
    position = torch.arange(whole.tokens.shape[1]).expand(whole.tokens.shape)
    last = torch.full((len(prompts), 1), whole.tokens.shape[1] - 1)  # padded on the left
    begin = last - torch.tensor([[len(reason) + len(after)] for reason in written])
    places = {
        "none": torch.zeros_like(position, dtype=torch.bool), "verdict": position == last,
        "last prompt token": position == begin, "every token": position >= begin,
    }[place]  # fmt: skip
    with steered_at(reward, places):
        scores = verdict_scores(reward.model.last_logits(whole).float(), tokens)
    return {
        "two_way": scores.two_way.reshape(-1, voting.votes).tolist(), "mass": float(scores.mass.mean()),
        "length": float(np.mean([len(one) for one in written])),
        "example": str(judge.model.tokenizer.decode(written[0])),
    }  # fmt: skip


def fitted(model: LanguageModel, few: list[LabelledResponse], draw: int, selector: str) -> ActivationRewardModel:
    """The reward model of a draw."""
    question = QuestionOptions(criterion_text=CRITERION, batch_size=4)
    return ActivationRewardModel.fit(
        model, few, criterion="joy", question=question, selector=selector, seed=draw, progress=True
    )


def main() -> None:
    """Command line."""
    parser = arguments(__doc__)
    parser.add_argument("--votes", type=int, default=4, help="reasons for each tweet")
    parser.add_argument("--max-tokens", type=int, default=48, help="of the reasons")
    options = parser.parse_args()
    model, train, many, meta = material(options)
    labels = np.array([one.label for one in many])
    rationale = Rationale(max_tokens=options.max_tokens)
    found: dict[str, list[list[float]]] = {}
    facts: dict[str, list[dict[str, Any]]] = {}
    for draw in range(options.draws):
        few = split_preferences(train, {"few": options.examples}, seed=draw)["few"]
        fit = functools.cache(functools.partial(fitted, model, few, draw, options.selector))  # if needed

        def direct(some: list[Any], fit: Any = fit) -> dict[str, list[float]]:
            texts = [one.prompt for one in some], [one.response for one in some]
            plain = GenerativeJudge(model, question=fit().question)
            return {
                "none, no reasons": plain.score(*texts, kind="two_way").tolist(),
                "verdict, no reasons": fit().score(*texts, kind="two_way").tolist(),
            }

        rewards: dict[str, list[float]] = {}
        for start in tqdm(range(0, len(many), AT_A_TIME), desc=f"fit {draw}"):
            some, name = many[start : start + AT_A_TIME], f"{draw} {start} of {options.held_out}"
            for key, values in kept(options.out, f"{name} no reasons", lambda s=some, d=direct: d(s)).items():
                rewards.setdefault(key, []).extend(values)
            for place in PLACES:
                begun = "none" if place == "verdict" else place  # the reasons are the same

                def judged(some: list[Any] = some, begun: str = begun, place: str = place, fit: Any = fit,
                           many: str = f"{name} {options.votes} x {options.max_tokens}") -> dict[str, Any]:  # fmt: skip
                    plain = GenerativeJudge(model, question=fit().question)
                    voting = VotingJudge(plain, votes=options.votes, rationale=rationale)
                    written = kept(options.out, f"{many} reasons {begun}", lambda: sampled(fit(), voting, some, begun))
                    return verdicts(fit(), voting, some, written, place)

                part = kept(options.out, f"{name} {options.votes} x {options.max_tokens} {place}", judged)
                rewards.setdefault(place, []).extend(np.mean(part["two_way"], axis=1).tolist())
                facts.setdefault(place, []).append(part)
        for key, values in rewards.items():
            found.setdefault(key, []).append(values)
    rows = []
    for place, values in found.items():
        row: dict[str, Any] = {"steered at": place, "n": len(labels), "draws": options.draws}
        for measure, estimate in estimates(np.array(values) - 0.5, labels).items():
            row |= estimate.columns(measure)
        if place in facts:
            row |= {name: float(np.mean([one[name] for one in facts[place]])) for name in ("mass", "length")}
            row["example"] = facts[place][0]["example"]
        rows.append(row)
    table = pd.DataFrame(rows)
    print(table.drop(columns="example").to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    meta["votes"] = options.votes
    content = json.dumps({"meta": meta, "rows": rows}, indent=1).replace("NaN", "null")
    write_text(options.out / "study_reasons.json", content + "\n")
    long = by_measure(table)
    figure = px.scatter(
        long, x="value", y="steered at", error_x="up", error_x_minus="down", facet_col="measure",
        template="plotly_white", labels={"value": "held-out tweets", "steered at": ""},
    )  # fmt: skip
    figure.update_traces(marker_size=10)
    figure.add_vline(0.5, line_dash="dot")
    figure.for_each_annotation(lambda one: one.update(text=one.text.removeprefix("measure=")))
    save_figure(figure, options.out / "study_reasons.png")


if __name__ == "__main__":
    main()
