"""What judges' models would read, before anything is fitted or run: ``arm-lens benchmark CONFIG --show-prompt``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import plan
from arm_lens.benchmark.judging import check_tasks, context_of, model_of
from arm_lens.engine.protocol import LanguageModel


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt of some judges on a task."""

    task: str
    """The task in words."""
    judges: tuple[str, ...]
    """The judges that read it."""
    text: str | None
    """The prompt as the model reads it; None for judges that ask no model."""


def prompts_of(config: BenchmarkConfig) -> Iterator[ShownPrompt]:
    """What each judge's model would read about the first test item of each task: the question that it is tested with.

    Judges with the same prompt stand together, and what tasks have in common (a prompt without demonstrations is the same
    in every setting) comes once. The model is loaded for its tokenizer, and no endpoint is called.

    Raises:
        BenchmarkConfigError, OverlapError, ValueError: as `arm_lens.benchmark.run.run_parts`, before a model is loaded.
        PromptTooLongError: if a prompt exceeds the model's context.
    """
    tasks = plan(config)
    check_tasks(tasks)
    model: LanguageModel | None = None
    seen: set[tuple[str, str, str, str | None]] = set()
    for task in tasks:
        example = task.test.items[0].example
        texts: dict[str | None, list[str]] = {}
        for choice in task.judges:
            text, options = None, choice.parsed
            if choice.spec.prompt is not None:
                model = model_of(config) if model is None else model
                given = task if choice.spec.reads_examples(options) else task.without_examples()
                text = choice.spec.prompt(context_of(choice, given, model, config), options, example)
            if (key := (task.study, task.subset, choice.label, text)) not in seen:
                seen.add(key)
                texts.setdefault(text, []).append(choice.label)
        for text, judges in texts.items():
            yield ShownPrompt(task.title, tuple(judges), text)
