"""What the judges of a task share, made when first needed: means, objectives, searches, and what was read of the test.

Nothing here depends on which judge asks first, so that a run that was stopped and goes on gives the same numbers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import Task, TestSet
from arm_lens.engine.models import Model, load_model
from arm_lens.engine.reading import HeadMeans
from arm_lens.engine.replay import Replay
from arm_lens.engine.steering import Injection
from arm_lens.heads import HeadSet
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.questions import Question, encode_questions, questions_of, scalar_questions
from arm_lens.judges.sav import question_activations
from arm_lens.preferences import LabelledResponse, PreferencePair, unpair
from arm_lens.reward.denoising import Denoise
from arm_lens.reward.fitting import means_and_objective
from arm_lens.selection import PooledObjective, Selection, Selector


def model_of(config: BenchmarkConfig) -> Model:
    """The model that a run names."""
    dtype = getattr(torch, config.dtype)
    return load_model(config.model, model_class=config.model_class, device=config.device, dtype=dtype)


class Reads:
    """Bare questions, read once for all judges that need the same of them.

    Args:
        judge: how they are asked.
        questions: the questions.
    """

    def __init__(self, judge: GenerativeJudge, questions: Sequence[Question]) -> None:
        self.judge, self.questions = judge, list(questions)

    @cached_property
    def replay(self) -> Replay:
        """Ready for any number of head sets."""
        judge = self.judge
        sequences = encode_questions(judge.model, judge.template, self.questions, criterion_text=judge.criterion_text)
        return Replay(judge.model, sequences, judge.verdicts, batch_size=judge.batch_size)

    @cached_property
    def activations(self) -> Float[Tensor, "example layer head d_head"]:
        """``hook_z`` at the last token."""
        return question_activations(self.judge, self.questions)

    def gaps(
        self, chosen: HeadSet | Float[Tensor, "layer head"], means: HeadMeans | None, injection: Injection
    ) -> Float[np.ndarray, " example"]:
        """The verdict gap under a head set or gates; None writes nothing."""
        mask = chosen.mask if isinstance(chosen, HeadSet) else chosen
        cfg = self.judge.model.cfg
        values = torch.zeros(cfg.n_layers, cfg.n_heads, cfg.d_head) if means is None else means.values
        logits = self.replay.with_injection(injection).verdict_logits(mask[None], values)[:, 0]
        return (logits[:, 0] - logits[:, 1]).double().numpy()


@dataclass(frozen=True)
class Search:
    """What is written, and how heads are chosen for it."""

    selector: Selector
    injection: Injection = field(default_factory=Injection)
    denoise: Denoise | None = None


class Material:
    """One task on one model.

    Args:
        model: of either class.
        task: examples and tests.
        config: shots, readings and batch size are taken from it.
        test: what was read of the task's test set, shared with other tasks.
    """

    def __init__(self, model: Model, task: Task, config: BenchmarkConfig, test: Reads) -> None:
        self.model, self.task, self.config, self.test = model, task, config, test
        self.judge = test.judge
        self._prepared: dict[Any, tuple[HeadMeans, PooledObjective]] = {}
        self._searched: dict[Any, Selection] = {}

    @classmethod
    def reads_of(cls, model: Model, test: TestSet, criterion_text: str, config: BenchmarkConfig) -> Reads:
        """A test set, to be read on a model."""
        judge = GenerativeJudge(model, criterion_text=criterion_text, batch_size=config.batch_size)
        return Reads(judge, scalar_questions(judge.template, *zip(*test.texts, strict=True)))

    @cached_property
    def examples(self) -> Reads:
        """The examples' own questions."""
        return Reads(self.judge, questions_of(self.task.examples, self.judge.template, seed=self.task.sample))

    def demonstrations(self, demonstrations: int | None = None) -> list[LabelledResponse]:
        """Demonstrations for a prompt: as many of either kind as there are, in mixed order, the same for every question."""
        count = self.config.demonstrations if demonstrations is None else demonstrations
        singles = unpair(self.task.examples)
        order = random.Random(f"shown {self.task.sample}")
        kinds = [[one for one in singles if one.label is kind] for kind in (True, False)]
        for one_kind in kinds:
            order.shuffle(one_kind)
        half = count // 2
        picked = [*kinds[0][: max(half, count - len(kinds[1]))], *kinds[1]][:count]
        order.shuffle(picked)
        return picked

    def pairs(self) -> list[PreferencePair]:
        """The examples, if they are pairs.

        Raises:
            ValueError: naming one that is not.
        """
        for one in self.task.examples:
            if not isinstance(one, PreferencePair):
                raise ValueError(f"{one.id} is a single labelled response; a ranked judge is shown pairs")
        return [one for one in self.task.examples if isinstance(one, PreferencePair)]

    def prepared(self, injection: Injection, denoise: Denoise | None) -> tuple[HeadMeans, PooledObjective]:
        """Means of the examples, and the cross-fitted objective for head sets."""
        key = (injection, denoise)
        if key not in self._prepared:
            self._prepared[key] = means_and_objective(
                self.judge,
                self.task.examples,
                demonstrations=self.config.demonstrations,
                readings=self.config.readings,
                injection=injection,
                denoise=denoise,
                seed=self.task.sample,
            )
        return self._prepared[key]

    def searched(self, search: Search, seed: int) -> tuple[HeadMeans, Selection]:
        """The means, and the heads that a search with this seed finds for them."""
        means, objective = self.prepared(search.injection, search.denoise)
        key = (search, seed)
        if key not in self._searched:
            self._searched[key] = search.selector.select(objective, seed=seed)
        return means, self._searched[key]
