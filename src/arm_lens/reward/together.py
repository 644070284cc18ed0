"""Many reward models of one language model, asked at once: each distinct prompt is read once, whoever asks about it.

Reward models differ in their heads, means, injections, and often in their questions, but not in the language model. So the
questions of all of them go into the same passes: all tokens of a prompt except the last are read once, and the last token
is read once for each reward model that asks about it, with that reward model's means at that reward model's heads
(`arm_lens.engine.variants`). The rewards are those of `ActivationRewardModel.score`, up to rounding. If the replay is not
exact for a model, each prompt is read in full for each reward model that asks about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from arm_lens.engine.finite import naming_examples
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.replay import Replay
from arm_lens.engine.steering import Injection
from arm_lens.engine.variants import Change, Piece, pieces
from arm_lens.engine.verdict_tokens import VerdictScores, VerdictTokens
from arm_lens.heads import HeadSet
from arm_lens.judges.base import ScoreKind, of_kind
from arm_lens.judges.checks import checked, checked_text, scattered_verdicts, warn_of_skipped
from arm_lens.judges.questions import Question, encode_questions
from arm_lens.preferences import Prompt
from arm_lens.reward.model import ActivationRewardModel


@dataclass(frozen=True, eq=False)
class Asked:
    """A question to a reward model, as the language model reads it."""

    reward_model: ActivationRewardModel
    name: str
    """What errors call it."""
    tokens: tuple[int, ...]


def encoded(questions: Sequence[tuple[ActivationRewardModel, Question]]) -> list[Asked]:
    """Questions to reward models as token ids; what several reward models ask in the same words is encoded once.

    Raises:
        PromptTooLongError: naming the question, if its prompt exceeds the model's context and is not to be clipped.
        ChatTemplateError: if the chat template leaves something out, or does not end where a verdict is due.
    """
    known: dict[object, tuple[int, ...]] = {}
    asked = []
    for reward_model, question in questions:
        judge = reward_model.judge
        key = (judge.question, judge.demonstrations, question.text, question.given)
        if key not in known:
            [tokens] = encode_questions(judge.model, judge.question, [question], demonstrations=[judge.demonstrations])
            known[key] = tuple(tokens)
        asked.append(Asked(reward_model, question.name, known[key]))
    return asked


def score_together(
    requests: Sequence[tuple[ActivationRewardModel, Prompt, Prompt]],
    *,
    kind: ScoreKind = "reward",
    progress: bool = False,
) -> Float[Tensor, " request"]:
    """The reward of each response by the reward model that it is paired with, in as few passes as possible.

    Args:
        requests: a reward model, a prompt and a response each; all reward models are of one language model.
        kind: which score, as in `ActivationRewardModel.score`.
        progress: show a progress bar.

    Raises:
        ValueError: naming the request, if a reward model only compares, a text is not one, or another language model is used.
        PromptTooLongError: naming the request; a reward model with ``on_too_long="skip"`` gives NaN and a warning instead.
        NotFiniteError: naming the request whose score is not a number.
    """
    questions, left_out = [], {}
    for number, (reward_model, *texts) in enumerate(requests):
        reward_model.check_kind(kind)
        name = f"request {number}"
        prompt, response = (
            checked_text(one, f"{name}: the {field}") for one, field in zip(texts, ("prompt", "response"), strict=True)
        )
        question = replace(reward_model.scalar_questions([prompt], [response])[0], name=name)
        if reward_model.question.on_too_long == "skip" and (reasons := reward_model.too_long_questions([question])):
            left_out[number] = reasons[0]
        else:
            questions.append((reward_model, question))
    if left_out:
        warn_of_skipped({f"request {number}": reason for number, reason in left_out.items()})
    found = verdicts_together(encoded(questions), progress=progress) if questions else None
    return of_kind(scattered_verdicts(found, len(requests), left_out), kind)


@torch.inference_mode()
def verdicts_together(asked: Sequence[Asked], *, progress: bool = False) -> VerdictScores:
    """The verdict on each question by its own reward model, ``[question]``; at least one question.

    Raises:
        ValueError: if the reward models are of several language models.
        WrongModelError: if the model's weights have changed since a reward model was fitted or loaded.
        NotFiniteError: naming the question whose verdict is not a number.
    """
    writing = _Writing.of([one.reward_model for one in asked])
    # The reward models that ask about each prompt stand side by side, as its variants.
    variants: dict[tuple[int, ...], dict[int, int]] = {}
    names: dict[tuple[int, ...], str] = {}
    places = []
    for one in asked:
        asking = variants.setdefault(one.tokens, {})
        names.setdefault(one.tokens, one.name)
        variant = asking.setdefault(writing.number[id(one.reward_model)], len(asking))
        places.append((one.tokens, variant))
    numbers = {tokens: number for number, tokens in enumerate(variants)}
    count = max(map(len, variants.values()))
    whose = torch.tensor([[*asking, *[next(iter(asking))] * (count - len(asking))] for asking in variants.values()])
    # Prompts without demonstrations are several times shorter than those that batch_size was chosen for.
    prompts_per_pass = max(one.reward_model.judge.batch_size for one in asked) * 4
    logs, gaps = torch.empty(len(variants), count, 2), torch.empty(len(variants), count)
    with naming_examples(list(names.values())):
        replay = Replay(
            writing.model, list(variants), writing.every_token, batch_size=prompts_per_pass, progress=progress
        )
        for piece in pieces(replay, count, vocabulary=True):
            here = whose[piece.examples][:, piece.variants]
            logs[piece.examples, piece.variants], gaps[piece.examples, piece.variants] = writing.verdicts(piece, here)
    index = tuple(torch.tensor([(numbers[tokens], variant) for tokens, variant in places]).T)
    positive, negative = logs[index].unbind(dim=-1)
    found = VerdictScores.of(positive, negative, gaps[index])
    for values in (found.gap, found.probability):
        checked(values, [one.name for one in asked])
    _count_mass(asked, found)
    return found


def _count_mass(asked: Sequence[Asked], found: VerdictScores) -> None:
    """Add verdicts to each reward model's own `VerdictMass`, which warns if the model would rather write something else."""
    rows: dict[int, list[int]] = {}
    for number, one in enumerate(asked):
        rows.setdefault(id(one.reward_model), []).append(number)
    for mine in rows.values():
        asked[mine[0]].reward_model.verdict_mass.add(
            VerdictScores.of(found.log_positive[mine], found.log_negative[mine])
        )


@dataclass(frozen=True, eq=False)
class _Writing:
    """What several reward models write into the model, and by which tokens they read its verdicts."""

    model: LanguageModel
    number: dict[int, int]
    """The number of each reward model, by its id."""
    chosen: Bool[Tensor, "judge layer head"] | Float[Tensor, "judge layer head"]
    values: Float[Tensor, "judge layer head d_head"]
    injections: list[tuple[Injection, Bool[Tensor, " judge"]]]
    """Each way of writing, and which reward models write so."""
    tokens: list[tuple[VerdictTokens, Bool[Tensor, " judge"]]]
    """Each choice of verdict tokens, and which reward models make it."""

    @classmethod
    def of(cls, reward_models: Sequence[ActivationRewardModel]) -> _Writing:
        judges = list({id(one): one for one in reward_models}.values())
        for one in judges:
            one.judge.check_weights()
        model = judges[0].model
        for other in judges:
            if other.model is not model:
                raise ValueError(
                    f"{other.__name__!r} is on another language model ({other.info.name}) than {judges[0].__name__!r} "
                    f"({model.info.name}): load both onto one, ActivationRewardModel.load(folder, model)"
                )
        chosen = [one.chosen.mask if isinstance(one.chosen, HeadSet) else one.chosen for one in judges]
        if any(one.is_floating_point() for one in chosen):
            chosen = [one.float() for one in chosen]
        injections, tokens = [one.injection for one in judges], [one.judge.verdict_tokens for one in judges]
        return cls(
            model,
            {id(one): number for number, one in enumerate(judges)},
            torch.stack(chosen).to(model.device),
            torch.stack([one.means.values for one in judges]).to(model.device, model.dtype),
            [(one, torch.tensor([one == own for own in injections])) for one in dict.fromkeys(injections)],
            [(one, torch.tensor([one == own for own in tokens])) for one in dict.fromkeys(tokens)],
        )

    @property
    def every_token(self) -> VerdictTokens:
        """All tokens by which any of the reward models reads a verdict."""
        every = dict.fromkeys(token for one, _ in self.tokens for token in (*one.positive, *one.negative))
        return VerdictTokens(tuple(every), ())

    def verdicts(
        self, piece: Piece, whose: Int[Tensor, "prompt variant"]
    ) -> tuple[Float[Tensor, "prompt variant verdict"], Float[Tensor, "prompt variant"]]:
        """The log-probabilities of the two verdicts in one pass, and their gaps."""
        touched = self.chosen.any(dim=-1).any(dim=0).tolist()
        changes = {layer: self._change(layer, whose) for layer, touches in enumerate(touched) if touches}
        logits = piece.logits(changes)
        logs = self._sums(logits, whose) - logits.logsumexp(dim=-1, keepdim=True).cpu()
        if self.model.dtype is torch.float32:
            return logs, logs[..., 0] - logs[..., 1]
        # Half precision has too few digits for the gap of two logits; the verdicts' alone are multiplied in float32.
        rows = self.every_token.rows()
        sums = self._sums(piece.logits(changes, rows=rows), whose, {int(row): place for place, row in enumerate(rows)})
        return logs, sums[..., 0] - sums[..., 1]

    def _change(self, layer: int, whose: Int[Tensor, "prompt variant"]) -> Change:
        whose = whose.to(self.chosen.device)
        chosen, values = self.chosen[whose, layer], self.values[whose, layer]

        def write(z: Tensor) -> Tensor:
            for injection, writes in self.injections:
                here = writes.to(chosen.device)[whose][..., None]
                z = injection.apply(z, values.to(z), (chosen * here).to(z.device))
            return z

        return write

    def _sums(
        self, logits: Tensor, whose: Int[Tensor, "prompt variant"], columns: dict[int, int] | None = None
    ) -> Float[Tensor, "prompt variant verdict"]:
        """The logits of each reward model's two verdicts; ``columns`` say where each token's logit is."""
        found = torch.empty(*whose.shape, 2)
        for tokens, reads in self.tokens:
            positive, negative = (
                tuple(columns[one] if columns else one for one in side) for side in (tokens.positive, tokens.negative)
            )
            here = reads[whose]
            found[here] = VerdictTokens(positive, negative).sums(logits)[here.to(logits.device)].cpu()
        return found
