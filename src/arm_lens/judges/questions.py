"""From labelled preferences to the questions that a judge is asked, with or without demonstrations in front.

In the scalar layout a pair gives two questions (the chosen response meets the criterion, the rejected one does not); in
the ranked layout it gives one, whose two responses stand in a seeded random order. Either way a question has a right
verdict, and everything after this module is the same for both layouts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.judges.options import Layout
from arm_lens.judges.template import NO_RANKED_QUESTION, JudgeTemplate
from arm_lens.preferences import LabelledResponse, Preference, text_of, unpair


@dataclass(frozen=True)
class Question:
    """A question to a judge, and its right answer."""

    text: str
    positive: bool
    """Whether the right verdict is Yes (scalar) or A (ranked)."""
    name: str
    """What errors call it: the id of its example."""


def questions_of(
    examples: Sequence[Preference], template: JudgeTemplate, layout: Layout = "scalar", *, seed: int = 0
) -> list[Question]:
    """The questions that labelled preferences give: pairs, or in the scalar layout labelled responses too.

    In the ranked layout the seed decides in which order the two responses stand; each order comes equally often.

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
    # Half of the pairs, up to one, have the chosen response first.
    chosen_first = [number % 2 == 0 for number in range(len(examples))]
    random.Random(seed).shuffle(chosen_first)
    found = []
    for number, (pair, in_order) in enumerate(zip(examples, chosen_first, strict=True)):
        name = pair.id or f"example {number}"
        if isinstance(pair, LabelledResponse):
            raise ValueError(f"{name} is a single labelled response; the ranked layout needs pairs")
        first, second = (pair.chosen, pair.rejected) if in_order else (pair.rejected, pair.chosen)
        found.append(Question(template.ranked_question(pair.prompt, first, second), in_order, name))
    return found


def prompts_behind(examples: Sequence[Preference], layout: Layout = "scalar") -> list[str]:
    """The prompt behind each question of `questions_of`, as text; questions about the same prompt form a cluster."""
    return [text_of(one.prompt) for one in (unpair(examples) if layout == "scalar" else examples)]


def verdicts_of(template: JudgeTemplate, layout: Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The spellings of the positive and the negative verdict in a layout.

    Raises:
        ValueError: if the layout is ranked and the template has no ranked question.
    """
    if layout == "ranked" and template.ranked is None:
        raise ValueError(NO_RANKED_QUESTION)
    return (template.yes, template.no) if layout == "scalar" else (template.first, template.second)


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

    The model gives tokenizer and context length, and the layout decides the verdicts in ``demonstrations``, which stand in
    front of each question; by default none. ``criterion_text`` may be empty.

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
    """For each question, demonstrations sampled from the pool without replacement, never the question itself.

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
