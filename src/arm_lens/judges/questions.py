"""From labelled preferences to the questions that a judge is asked, with or without demonstrations in front.

In the scalar layout a pair gives two questions (the chosen response meets the criterion, the rejected one does not); in
the ranked layout it gives one, whose two responses stand in a seeded random order. Either way a question has a right
verdict, and everything after this module is the same for both layouts.

All prompts are rendered and encoded here, and all that could make a verdict one on something else is found here: a question
that is among its own demonstrations, a prompt that is too long, a verdict that the tokenizer spells otherwise in its place.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from arm_lens.display.caution import caution
from arm_lens.engine.images import beyond_image
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.tokens import MarkedText, PromptError, PromptTooLongError, Span
from arm_lens.engine.verdict_tokens import VerdictTokens, resolve_verdicts
from arm_lens.judges.chat import template_key
from arm_lens.judges.options import Layout, QuestionOptions
from arm_lens.judges.template import NO_RANKED_QUESTION, JudgeTemplate, default_template
from arm_lens.preferences import LabelledResponse, Preference, PreferencePair, clusters, unpair

Fitting = TypeVar("Fitting")
MAX_NAMED = 5
"""How many questions a warning names."""
MOST_UNKNOWN = 0.05
"""The share of unknown tokens in prompts from which on a warning is due."""


class OwnAnswerWarning(UserWarning):
    """A question stands among its own demonstrations, with its answer, so that the verdict on it says nothing."""


class UnknownTokensWarning(UserWarning):
    """Prompts have words that the tokenizer replaces by its token for the unknown."""


class ClippedPromptWarning(UserWarning):
    """Prompts that exceed the model's context were shortened."""


@dataclass(frozen=True)
class Question:
    """A question to a judge, and its right answer."""

    text: str
    positive: bool
    """Whether the right verdict is Yes (scalar) or A (ranked)."""
    name: str
    """What errors call it: the id of its example."""
    given: tuple[Span, ...] | None = None
    """The parts of the text that were given; by default those of a `MarkedText`, or all of a plain ``str``."""

    def __post_init__(self) -> None:
        text = self.text if isinstance(self.text, MarkedText) else MarkedText.of("question", self.text)
        given = text.given if self.given is None else tuple(Span(*span) for span in self.given)
        object.__setattr__(self, "text", str(self.text))
        object.__setattr__(self, "given", given)

    @property
    def marked(self) -> MarkedText:
        """The text, with the parts that were given marked."""
        return MarkedText(self.text, self.given or ())

    @property
    def about(self) -> Hashable:
        """Equal for questions about the same prompt and response, or the same two in either order, except for white space."""
        text = self.marked
        responses = [self.text[one.start : one.end] for one in text.given if one.field.startswith("response")]
        if not responses:
            return " ".join(self.text.split())
        return " ".join(text.part("prompt").split()), tuple(sorted(" ".join(one.split()) for one in responses))


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


def clusters_behind(examples: Sequence[Preference], layout: Layout = "scalar") -> list[str]:
    """The cluster of each question of `questions_of`: its prompt, or its response (`arm_lens.preferences.clusters`)."""
    return [
        cluster
        for cluster, one in zip(clusters(examples), examples, strict=True)
        for _ in range(2 if layout == "scalar" and isinstance(one, PreferencePair) else 1)
    ]


def verdicts_of(template: JudgeTemplate, layout: Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The spellings of the positive and the negative verdict in a layout.

    Raises:
        ValueError: if the layout is ranked and the template has no ranked question.
    """
    if layout == "ranked" and template.ranked is None:
        raise ValueError(NO_RANKED_QUESTION)
    return (template.yes, template.no) if layout == "scalar" else (template.first, template.second)


def render_question(
    tokenizer: PreTrainedTokenizerBase,
    options: QuestionOptions,
    question: Question,
    demonstrations: Sequence[Question] = (),
) -> MarkedText:
    """The whole text that asks a question after its demonstrations; see `JudgeTemplate.render`.

    Raises:
        ChatTemplateError: if the chat template leaves something out, or does not end where a verdict is due.
        ValueError: if nothing of the template stands between the question and the verdict.
    """
    template = options.template or JudgeTemplate()
    positive, negative = verdicts_of(template, options.layout)
    text = template.render(
        tokenizer,
        question.marked,
        examples=[(one.marked, positive[0] if one.positive else negative[0]) for one in demonstrations],
        criterion=options.criterion_text,
        system=options.system,
        chat_template_kwargs=options.chat_template_kwargs,
        date=options.date,
    )
    if text.given and text.given[-1].end == len(text):
        raise ValueError(
            "nothing stands between the question and the verdict: give the judge template a cue or a prefill"
        )
    return text


_VERDICTS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, dict[Hashable, VerdictTokens]] = (
    weakref.WeakKeyDictionary()
)


def verdict_tokens_of(tokenizer: PreTrainedTokenizerBase, options: QuestionOptions) -> VerdictTokens:
    """The tokens by which a verdict is read where questions that are put so end; see `resolve_verdicts`.

    Raises:
        VerdictTokenError: naming the spelling that cannot be read from one token, or the end of the prompt.
    """
    template = options.template or JudgeTemplate()
    known = _VERDICTS.setdefault(tokenizer, {})
    key = (template_key(tokenizer), options.model_copy(update={"batch_size": 1, "on_too_long": "raise"}))
    if key not in known:
        prompt = "How is it?" if template.takes_prompt(options.layout) else ""
        example = (prompt, "It is fine.", "It is not fine.")
        text = template.question(*example[:2]) if options.layout == "scalar" else template.ranked_question(*example)
        before = render_question(tokenizer, options, Question(text, True, "an example"))
        known[key] = resolve_verdicts(tokenizer, *verdicts_of(template, options.layout), before=before)
    return known[key]


def encode_questions(
    model: ModelLike,
    options: QuestionOptions,
    questions: Sequence[Question],
    *,
    demonstrations: Sequence[Sequence[Question]] | None = None,
) -> list[list[int]]:
    """The token ids of whole prompts, one per question, each ending where the verdict is due.

    ``options`` say how questions are put, by default with the model's own template; the layout decides the verdicts in
    ``demonstrations``, which stand in front of each question, by default none. Prompts that exceed the context are shortened
    if the options say ``on_too_long="clip"``.

    Warns:
        OwnAnswerWarning: naming the questions that are among their own demonstrations.
        ClippedPromptWarning: naming the questions whose prompts were shortened.
        UnknownTokensWarning: if the tokenizer has no tokens for more than a twentieth of the prompts.

    Raises:
        PromptTooLongError: naming the question whose prompt exceeds the context.
        ChatTemplateError: if the chat template leaves something out, or does not end where a verdict is due.
    """
    model = language_model(model)
    contexts = [()] * len(questions) if demonstrations is None else demonstrations
    warn_of_own_answers(questions, contexts)
    encode, clipped, found = _Encoder(model, with_template(model, options)), [], []
    for question, context in zip(questions, contexts, strict=True):
        try:
            found.append(encode(question, context))
        except PromptTooLongError:
            if options.on_too_long != "clip":
                raise
            found.append(encode.clipped(question, context))
            clipped.append(question.name)
    if clipped:
        caution(
            f"{listed_names(clipped)}: the prompt exceeds the model's context of {model.n_ctx} tokens, and its oldest "
            "demonstrations or its beginning were left out",
            ClippedPromptWarning,
        )
    warn_of_unknown_tokens(model, found)
    return found


def warn_of_unknown_tokens(model: LanguageModel, sequences: Sequence[Sequence[int]]) -> None:
    """Warn if the tokenizer has no tokens for a good part of the prompts, so that the model cannot read their words."""
    tokenizer = model.tokenizer
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        return  # byte-level tokenizers know every text; some name a control token as the unknown one
    share = sum(one.count(unknown) for one in map(list, sequences)) / max(sum(map(len, sequences)), 1)
    if share > MOST_UNKNOWN:
        caution(
            f"{share:.0%} of the tokens of the prompts are {tokenizer.unk_token!r}: the tokenizer of {model.info.name} has "
            "no tokens for these words, and the model does not read them; use a model that knows the vocabulary of the data",
            UnknownTokensWarning,
        )


def too_long(
    model: ModelLike, options: QuestionOptions, questions: Sequence[Question], context: Sequence[Question] = ()
) -> dict[int, str]:
    """The questions, by number, that the model cannot read, each with the error; none is too long if prompts are clipped."""
    model = language_model(model)
    encode, found = _Encoder(model, with_template(model, options)), {}
    for number, question in enumerate(questions):
        try:
            encode(question, context)
        except PromptError as error:
            if options.on_too_long != "clip" or not isinstance(error, PromptTooLongError):
                found[number] = str(error)
    return found


def with_template(model: ModelLike, options: QuestionOptions) -> QuestionOptions:
    """The options with the template that is used: their own, or else the model's."""
    return options if options.template else options.model_copy(update={"template": default_template(model)})


@dataclass(frozen=True)
class _Encoder:
    """Encodes the prompts of one model that are put in one way."""

    model: LanguageModel
    options: QuestionOptions

    def __call__(self, question: Question, context: Sequence[Question]) -> list[int]:
        for one in (question, *context):
            self.model.check_images(one.text, one.name)
        text = render_question(self.model.tokenizer, self.options, question, context)
        text = text.between(0, len(text) - len(self.overlap))
        return self.model.encode([text], chat=self.chat, names=[question.name])[0]

    @cached_property
    def overlap(self) -> str:
        """White space at the end of prompts that is read with the verdict."""
        return verdict_tokens_of(self.model.tokenizer, self.options).overlap

    @cached_property
    def chat(self) -> bool:
        """Whether prompts go through the chat template."""
        return (self.options.template or JudgeTemplate()).is_chat(self.model.tokenizer)

    def clipped(self, question: Question, context: Sequence[Question]) -> list[int]:
        """Encode without the oldest demonstrations, and then without the beginning of the prompt, as far as needed."""
        for first in range(1, len(context) + 1):
            found = self._if_it_fits(question, context[first:])
            if found is not None:
                return found
        prompt = next((one for one in question.marked.given if one.field == "prompt"), None)
        if prompt is None:
            return self(question, ())  # there is nothing to clip, and the error says so

        def without(count: int) -> Question:
            text = question.marked
            rest = [text.between(0, prompt.start), text.between(beyond_image(text, prompt.start + count), len(text))]
            return replace(question, text=MarkedText.joined(rest), given=None)

        count = prompt.end - prompt.start
        found = fewest_left_out(count, lambda left_out: self._if_it_fits(without(left_out), ()))
        return self(without(count), ()) if found is None else found

    def _if_it_fits(self, question: Question, context: Sequence[Question]) -> list[int] | None:
        try:
            return self(question, context)
        except PromptTooLongError:
            return None


def fewest_left_out(count: int, attempt: Callable[[int], Fitting | None]) -> Fitting | None:
    """The result of ``attempt`` for the smallest number from 1 to ``count`` for which it is not None, by bisection."""
    low, high, found = 1, count, None
    while low <= high:
        middle = (low + high) // 2
        result = attempt(middle)
        found, low, high = (found, middle + 1, high) if result is None else (result, low, middle - 1)
    return found


def warn_of_own_answers(questions: Sequence[Question], contexts: Sequence[Sequence[Question]]) -> None:
    """Warn if questions are among the demonstrations that stand before them."""
    known: dict[int, set[Hashable]] = {}  # most often one context, the same object, for all questions
    own = []
    for question, context in zip(questions, contexts, strict=True):
        if context and question.about in known.setdefault(id(context), {one.about for one in context}):
            own.append(question.name)
    if own:
        caution(
            f"{listed_names(own)}: the question is among its own demonstrations, with its answer, so that the verdict on it "
            "says nothing; judge texts that are not demonstrations",
            OwnAnswerWarning,
        )


def shown_among(
    demonstrations: Sequence[Question], examples: Sequence[Preference], template: JudgeTemplate, layout: Layout
) -> tuple[str, ...]:
    """The ids of the examples that are about the same texts as a demonstration; numbers for those without an id."""
    known = {one.about for one in demonstrations}
    if not known:
        return ()
    questions = [questions_of([one], template, layout) for one in examples]
    names = [one.id or f"example {number}" for number, one in enumerate(examples)]
    return tuple(name for name, own in zip(names, questions, strict=True) if known & {one.about for one in own})


def listed_names(names: Sequence[str]) -> str:
    """Names for a message, the first few of them."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def in_turn(pool: Sequence[Question], count: int, *, seed: int) -> list[Question]:
    """``count`` questions: the whole pool as often as it fits, and then a random choice of it.

    In the choice each kind (positive, negative) has its share, whatever the order of the pool: files are often sorted.
    """
    turns, rest = divmod(count, len(pool))
    order = random.Random(f"questions {seed}").sample(range(len(pool)), len(pool))
    kinds = [[number for number in order if pool[number].positive == kind] for kind in (True, False)]
    places = sorted(((place + 0.5) / len(kind), number) for kind in kinds for place, number in enumerate(kind))
    return [*pool] * turns + [pool[number] for number in sorted(number for _, number in places[:rest])]


def sample_demonstrations(
    pool: Sequence[Question], questions: Sequence[Question], demonstrations: int, *, seed: int
) -> list[tuple[Question, ...]]:
    """For each question, demonstrations sampled from the pool without replacement, never a question about the same texts.

    Of a pool in which a question stands several times, it may get fewer.

    Raises:
        ValueError: if the pool is too small.
    """
    order = random.Random(seed)
    about = [one.about for one in pool]
    contexts = []
    for question in questions:
        others = [one for one, its in zip(pool, about, strict=True) if its != question.about]
        repeated = sum(one is not question for one in pool) - len(others)
        if len(others) + repeated < demonstrations:
            raise ValueError(
                f"{demonstrations} demonstrations are wanted for {question.name}, but there are {len(others)} others"
            )
        contexts.append(tuple(order.sample(others, min(demonstrations, len(others)))))
    return contexts
