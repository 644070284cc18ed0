"""Voting: the share of k sampled verdicts that are positive, with or without a rationale before each.

Without a rationale a verdict is sampled from the next-token distribution, which is known, so that k verdicts cost one
pass. With one, the model first writes down reasons, which differ from sample to sample, and the verdict follows them
(self-consistency, arXiv 2203.11171). A sampled token that is neither verdict is no vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from arm_lens.engine.finite import naming_examples
from arm_lens.engine.language_model import ModelLike
from arm_lens.engine.sampling import sample_tokens
from arm_lens.engine.tokens import PromptError, PromptTooLongError, chunks, continuation, pad
from arm_lens.engine.verdict_tokens import VerdictTokens, resolve_verdicts, verdict_scores
from arm_lens.judges.artefact import QuestionRecord, check_tensors
from arm_lens.judges.base import FittedJudge, ScoreKind
from arm_lens.judges.chat import ends_of_turn
from arm_lens.judges.checks import Texts, checked, scores_of_rest
from arm_lens.judges.controls import uniform_of
from arm_lens.judges.generative import GenerativeJudge, GenerativeOptions, shows_demonstrations
from arm_lens.judges.options import QuestionOptions, ReadingOptions, seeds_of
from arm_lens.judges.questions import Question, questions_of, render_question
from arm_lens.preferences import Preference
from arm_lens.registry import JudgeSpec, OptionsModel, Style, always

MOST_VOTES = 10_000
"""Votes per question."""
REASONS = "It is so"
"""What stands before the cue of a verdict when its tokens are looked up."""


class Rationale(OptionsModel):
    """How the model is asked for reasons."""

    max_tokens: int = 96
    request: str = " First explain in a few sentences, then answer."
    """Added to a chat model's question."""
    cue: str = "\nReasons:"
    """What a base model reads in place of the cue of its verdict."""
    stop: str = "\n"
    """Every token that contains it ends a base model's reasons; if empty, only the end of the text does."""
    then: str = "\nSo the answer is"
    """Between a chat model's reasons and its verdict. A base model reads its usual cue."""


class VotingRecord(QuestionRecord):
    """What is saved of a voting judge."""

    votes: Annotated[int, Field(ge=1, le=MOST_VOTES)]
    temperature: Annotated[float, Field(gt=0)]
    rationale: Rationale | None
    seed: int


class VotingJudge(FittedJudge):
    """Asks the same question k times; the reward is the share of Yes.

    Args:
        judge: how the question is asked, scalar; with demonstrations or without.
        votes: k.
        temperature: of every sampled token.
        rationale: have reasons written before each verdict.
        seed: the same seed gives the same votes on the same texts.
    """

    kind: ClassVar[str] = "voting judge"

    def __init__(
        self,
        judge: GenerativeJudge,
        *,
        votes: int = 8,
        temperature: float = 1.0,
        rationale: Rationale | None = None,
        seed: int = 0,
    ) -> None:
        if judge.layout != "scalar":
            raise ValueError("voting counts verdicts on single responses; its judge must be scalar")
        if votes < 1 or temperature <= 0:
            raise ValueError(f"voting needs at least one vote and a temperature above 0, not {votes} and {temperature}")
        if votes > MOST_VOTES:
            raise ValueError(f"voting takes at most {MOST_VOTES} votes on a question, not {votes}")
        self.judge, self.votes, self.temperature = judge, votes, temperature
        self.rationale, self.seed, self.model = rationale, seed, judge.model

    @classmethod
    def fit(
        cls,
        model: ModelLike,
        examples: Sequence[Preference],
        *,
        question: QuestionOptions | str | None = None,
        reading: ReadingOptions | None = None,
        votes: int = 8,
        temperature: float = 1.0,
        rationale: Rationale | None = None,
        seed: int | None = None,
        progress: bool = False,
    ) -> VotingJudge:
        """A few-shot judge that votes, its demonstrations taken from labelled preferences; see `GenerativeJudge.fit`.

        ``seed`` is that of the votes, by default the reading's; the other options are those of the class.
        """
        reading = reading or ReadingOptions()
        read, own = seeds_of(reading, seed)
        reading = reading.model_copy(update={"seed": read})
        judge = GenerativeJudge.fit(model, examples, question=question, reading=reading)
        return cls(judge, votes=votes, temperature=temperature, rationale=rationale, seed=own)

    def fitted_among(self, examples: Sequence[Preference]) -> tuple[str, ...]:
        """The ids of the examples that are among the demonstrations."""
        return self.judge.fitted_among(examples)

    @property
    def states_probability(self) -> bool:
        """The share of votes counts as a probability."""
        return True

    def too_long(self, prompts: Texts, responses: Texts) -> dict[int, str]:
        """The examples, by number, that exceed the model's context, each with the error; reasons count."""
        found = self.judge.too_long(prompts, responses)
        if self.rationale is None:
            return found
        for number, question in enumerate(self.judge.scalar_questions(prompts, responses)):
            if number not in found:
                try:
                    self.reason_prompts([question], self.rationale)
                except PromptError as error:
                    found[number] = str(error)
        return found

    def score(
        self, prompts: Texts, responses: Texts, *, kind: ScoreKind = "reward", progress: bool = False
    ) -> Float[Tensor, " example"]:
        """The share of positive verdicts among the votes for each response, of either kind; 0.5 without a vote.

        Otherwise as `Judge.score`; reasons count towards the length of the prompt, and are not clipped.
        """
        self.check_kind(kind)
        skip = self.judge.question.on_too_long == "skip"
        left_out = self.too_long(prompts, responses) if skip else {}

        def shares(prompts: Texts, responses: Texts) -> Tensor:
            return self._shares(self.judge.scalar_questions(prompts, responses), progress)

        return scores_of_rest(prompts, responses, left_out, shares)

    def prompt_of(self, example: Preference) -> str:
        """The first question about an example as the model reads it, and what follows it."""
        if self.rationale is None:
            return self.judge.prompt_of(example)
        questions = questions_of([example], self.judge.template, self.judge.layout)[:1]
        [tokens] = self.reason_prompts(questions, self.rationale)
        text = self.judge.model.decode(tokens)
        return f"{text}\n{len(tokens)} tokens; the model's reasons follow, and then its verdict"

    def _shares(self, questions: Sequence[Question], progress: bool) -> Float[Tensor, " example"]:
        if self.rationale is None:
            verdict = self.judge.verdict(questions, temperature=self.temperature, progress=progress)
            self.judge.verdict_mass.add(verdict)
            chances = torch.stack([verdict.log_positive.exp(), verdict.log_negative.exp()], dim=-1)
            chances = chances[:, None].expand(-1, self.votes, -1)
        else:
            chances = self._after_reasons(questions, self.rationale, progress)
        checked(chances, [question.name for question in questions])
        uniforms = torch.tensor([[self.uniform(one, vote, -1) for vote in range(self.votes)] for one in questions])
        positive = (uniforms < chances[..., 0]).sum(dim=1)
        either = (uniforms < chances.sum(dim=-1)).sum(dim=1)
        return torch.where(either > 0, positive / either.clamp(min=1), 0.5).float()

    def _artefact(self) -> tuple[ModelLike, dict[str, Tensor], dict[str, Any]]:
        record = {
            **self.judge.record(),
            "votes": self.votes,
            "temperature": self.temperature,
            "rationale": self.rationale and self.rationale.model_dump(),
            "seed": self.seed,
        }
        return self.model, {}, record

    @classmethod
    def _from_artefact(cls, model: ModelLike, tensors: dict[str, Tensor], record: dict[str, Any]) -> VotingJudge:
        check_tensors(tensors, {})
        found = VotingRecord.parse(record)
        own = {name: getattr(found, name) for name in ("votes", "temperature", "rationale", "seed")}
        return cls(GenerativeJudge.of_record(model, found), **own)

    def __repr__(self) -> str:
        reasons = "" if self.rationale is None else " after reasons"
        return f"VotingJudge({self.votes} votes{reasons}, seed {self.seed}, {self.judge!r})"

    def uniform(self, question: Question, vote: int, step: int) -> float:
        """The random number in [0, 1) by which a token of a vote is sampled; -1 is the step of the verdict."""
        return uniform_of(self.seed, question.text, vote, step)

    def _after_reasons(
        self, questions: Sequence[Question], rationale: Rationale, progress: bool
    ) -> Float[Tensor, "example vote verdict"]:
        """The probabilities of the two verdicts after each vote's own reasons."""
        judge = self.judge
        if not questions:
            raise ValueError("there is nothing to judge")
        rows = [(number, vote) for number in range(len(questions)) for vote in range(self.votes)]
        sequences, (after, verdicts) = self.reason_prompts(questions, rationale), self.ending(rationale)
        stop = self.stop_tokens(rationale)
        chances = torch.empty(len(rows), 2)
        spans = list(chunks(len(rows), judge.batch_size))
        for span in tqdm(spans, desc="reasoning", unit="batch", disable=not progress, leave=False):
            here = rows[span]
            uniforms = torch.tensor(
                [[self.uniform(questions[n], v, step) for step in range(rationale.max_tokens)] for n, v in here],
                dtype=torch.float64,
            )
            before = [sequences[number] for number, _ in here]
            with naming_examples([questions[number].name for number, _ in here]):
                reasons = sample_tokens(judge.model, before, uniforms, temperature=self.temperature, stop=stop)
                whole = [[*one, *reason, *after] for one, reason in zip(before, reasons, strict=True)]
                logits = judge.model.last_logits(pad(whole, device=judge.model.device))
            scores = verdict_scores(logits.float() / self.temperature, verdicts)
            judge.verdict_mass.add(scores)
            chances[span] = torch.stack([scores.log_positive, scores.log_negative], dim=-1).exp().cpu()
        return rearrange(chances, "(example vote) verdict -> example vote verdict", vote=self.votes)

    @property
    def _is_chat(self) -> bool:
        return self.judge.template.is_chat(self.judge.model.tokenizer)

    def stop_tokens(self, rationale: Rationale) -> set[int]:
        """The tokens that end the reasons."""
        question, tokenizer = self.judge.question, self.judge.model.tokenizer
        if self._is_chat:
            return ends_of_turn(tokenizer, kwargs=question.chat_template_kwargs, date=question.date)
        return _tokens_with(tokenizer, rationale.stop)

    def ending(self, rationale: Rationale) -> tuple[list[int], VerdictTokens]:
        """The tokens between the reasons and the verdict, and the verdict's tokens after them."""
        template, tokenizer = self.judge.template, self.judge.model.tokenizer
        cue = rationale.then if self._is_chat else template.cue
        verdicts = resolve_verdicts(tokenizer, template.yes, template.no, before=REASONS + cue)
        return continuation(tokenizer, REASONS, cue.removesuffix(verdicts.overlap))[1], verdicts

    def reason_prompts(self, questions: Sequence[Question], rationale: Rationale) -> list[list[int]]:
        """Token ids of the prompts up to where the reasons begin; demonstrations keep their plain verdicts.

        Raises:
            PromptTooLongError: naming the question after which reasons and verdict may exceed the context.
        """
        judge, template, model = self.judge, self.judge.template, self.judge.model
        if self._is_chat:
            requests = [replace(one, text=one.text + rationale.request) for one in questions]
            sequences = judge.encode(requests, [judge.demonstrations] * len(questions))
        else:
            # The cue is replaced in the text: a token may span the end of the question and its beginning.
            texts = [render_question(model.tokenizer, judge.question, one, judge.demonstrations) for one in questions]
            texts = [one.between(0, len(one) - len(template.cue)) + rationale.cue for one in texts]
            sequences = model.encode(texts, chat=False, names=[one.name for one in questions])
        more = rationale.max_tokens + len(self.ending(rationale)[0])
        for question, sequence in zip(questions, sequences, strict=True):
            if len(sequence) + more > model.n_ctx:
                raise PromptTooLongError(
                    f"{question.name}: question, reasons and cue may take {len(sequence) + more} tokens, the model's context "
                    f"{model.n_ctx}"
                )
        return sequences


def _tokens_with(tokenizer: PreTrainedTokenizerBase, text: str) -> set[int]:
    """The tokens that contain ``text``, and the one that ends everything."""
    found = {token for token in range(len(tokenizer)) if text in tokenizer.decode([token])} if text else set()
    return found | ({tokenizer.eos_token_id} - {None})


class VotingOptions(GenerativeOptions):
    """Options of the voting judge."""

    votes: int = 8
    temperature: float = 1.0
    rationale: Rationale | None = None


SPEC = JudgeSpec(
    name="voting",
    judge=VotingJudge,
    options=VotingOptions,
    fit=lambda context, options: context.fit(VotingJudge, options, seed=context.seed),
    summary="The share of positive verdicts among sampled ones, demonstrations in the prompt.",
    style=Style(label="Voting", color="#00507c", symbol="x", group="Asking the model"),
    random=always,
    reads_examples=shows_demonstrations,
    prompt=lambda context, options, example: context.fit(VotingJudge, options, seed=context.seed).prompt_of(example),
    place=310,
)
SPECS = (
    SPEC,
    SPEC.preset(
        "voting_rationale",
        {"rationale": {}, "votes": 4, "demonstrations": 0},
        summary="The share of positive verdicts among sampled ones, each after reasons that the model writes.",
        label="Voting with rationale",
        color="#00507c",
        symbol="x-open",
    ),
)
