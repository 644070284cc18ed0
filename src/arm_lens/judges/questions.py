"""From labelled preferences to the questions a judge is asked, with or without demonstrations in front.

In the scalar layout a pair gives two questions (the chosen response meets the criterion, the rejected one does not); in
the ranked layout it gives one, whose two responses stand in a seeded random order. Either way a question has a verdict
that is right, and everything after this module is the same for both layouts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.verdict_tokens import VerdictTokens, resolve_verdicts
from arm_lens.judges.options import Layout
from arm_lens.judges.template import NO_RANKED_QUESTION, JudgeTemplate
from arm_lens.preferences import LabelledResponse, Preference, PreferencePair, Prompt, text_of, unpair


@dataclass(frozen=True)
class Question:
    """A question to a judge, and its right answer."""

    text: str
    positive: bool
    """Whether the right verdict is Yes (scalar) or A (ranked)."""
    name: str
    """What to call it in an error: the id of the example it was made from."""


def questions_of(
    examples: Sequence[Preference], template: JudgeTemplate, layout: Layout = "scalar", *, seed: int = 0
) -> list[Question]:
    """The questions that labelled preferences give.

    Args:
        examples: pairs, or (in the scalar layout) labelled responses too.
        template: the wording.
        layout: scalar or ranked.
        seed: for the order of the two responses in the ranked layout; each order comes equally often.

    Raises:
        ValueError: naming the example, if a single labelled response is to be ranked.
    """
    if layout == "scalar":
        return [
            Question(template.question(one.prompt, one.response), one.label, one.id or f"example {number}")
            for number, one in enumerate(unpair(examples))
        ]
    if layout != "ranked":
        raise ValueError(f"the layout is 'scalar' or 'ranked', not {layout!r}")
    # Half of the pairs, up to one, show the chosen response first.
    order = [number % 2 == 0 for number in range(len(examples))]
    random.Random(seed).shuffle(order)
    found = []
    for number, pair in enumerate(examples):
        name = pair.id or f"example {number}"
        if isinstance(pair, LabelledResponse):
            raise ValueError(f"{name} is a single labelled response; the ranked layout needs pairs")
        found.append(_ranked(pair, template, order[number], name))
    return found


def prompts_behind(examples: Sequence[Preference], layout: Layout = "scalar") -> list[str]:
    """The prompt behind each of `questions_of`'s questions, as text: what questions with the same one have in common."""
    return [text_of(one.prompt) for one in (unpair(examples) if layout == "scalar" else examples)]


def question_record(question: Question) -> dict[str, Any]:
    """A question for JSON."""
    return asdict(question)


def read_question_record(record: Mapping[str, Any]) -> Question:
    """What `question_record` made."""
    return Question(str(record["text"]), bool(record["positive"]), str(record["name"]))


def scalar_questions(
    template: JudgeTemplate, prompts: Sequence[Prompt], responses: Sequence[Prompt], *, layout: Layout = "scalar"
) -> list[Question]:
    """The scalar question about each response. Its right verdict is not known, and taken to be the positive one.

    Raises:
        ValueError: if the layout is ranked, or there are not as many prompts as responses.
    """
    if layout == "ranked":
        raise ValueError("a ranked judge compares two responses and has no score of one; use prefer")
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses")
    return [
        Question(template.question(prompt, response), True, f"example {number}")
        for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]


def _ranked(pair: PreferencePair, template: JudgeTemplate, chosen_first: bool, name: str) -> Question:
    two = (pair.chosen, pair.rejected) if chosen_first else (pair.rejected, pair.chosen)
    return Question(template.ranked_question(pair.prompt, *two), chosen_first, name)


def verdicts_of(template: JudgeTemplate, layout: Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The spellings of the positive and the negative verdict in a layout.

    Raises:
        ValueError: if the layout is ranked and the template has no ranked question.
    """
    if layout == "ranked" and template.ranked is None:
        raise ValueError(NO_RANKED_QUESTION)
    return (template.yes, template.no) if layout == "scalar" else (template.first, template.second)


def verdict_tokens(tokenizer: PreTrainedTokenizerBase, template: JudgeTemplate, layout: Layout) -> VerdictTokens:
    """The tokens of the two verdicts of a layout."""
    return resolve_verdicts(tokenizer, *verdicts_of(template, layout))


def encode_questions(
    model: ModelLike,
    template: JudgeTemplate,
    questions: Sequence[Question],
    *,
    layout: Layout = "scalar",
    criterion_text: str = "",
    demonstrations: Sequence[Sequence[Question]] | None = None,
) -> list[list[int]]:
    """The token ids of whole prompts, one per question, each ending where the verdict is due.

    Args:
        model: its tokenizer and context length are used.
        template: the wording of everything around the questions.
        questions: the questions.
        layout: which verdicts the demonstrations show.
        criterion_text: the criterion in words, or empty.
        demonstrations: the demonstrations in front of each question; by default none.

    Raises:
        PromptTooLongError: naming the question whose prompt exceeds the context.
    """
    model = language_model(model)
    positive, negative = verdicts_of(template, layout)
    texts = [
        template.render(
            model.tokenizer,
            question.text,
            examples=[(one.text, positive[0] if one.positive else negative[0]) for one in examples],
            criterion=criterion_text,
        )
        for question, examples in zip(questions, demonstrations or [()] * len(questions), strict=True)
    ]
    chat = template.is_chat(model.tokenizer)
    return model.encode(texts, chat=chat, names=[question.name for question in questions])


def sample_demonstrations(
    pool: Sequence[Question], questions: Sequence[Question], demonstrations: int, *, seed: int
) -> list[tuple[Question, ...]]:
    """For each question, demonstrations drawn from the pool without replacement, never the question itself.

    Raises:
        ValueError: if the pool is too small.
    """
    order = random.Random(seed)
    contexts = []
    for question in questions:
        others = [one for one in pool if one is not question]
        if len(others) < demonstrations:
            raise ValueError(
                f"{demonstrations} demonstrations are wanted for {question.name}, but there are {len(others)} others"
            )
        contexts.append(tuple(order.sample(others, demonstrations)))
    return contexts
