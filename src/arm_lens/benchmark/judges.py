"""Every judge by its name: how it is made from a task's examples, and what it says about the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor

from arm_lens.benchmark.material import Reads, Search
from arm_lens.benchmark.verdicts import At, Verdicts, register
from arm_lens.engine.models import Model, ModelClass, load_model
from arm_lens.engine.steering import Injection
from arm_lens.heads import HeadSet
from arm_lens.judges.base import PositionBias
from arm_lens.judges.controls import ConstantJudge, LengthJudge, RandomJudge
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.likelihood import LikelihoodJudge
from arm_lens.judges.probe import HeadProbe
from arm_lens.judges.questions import Layout
from arm_lens.judges.sav import SparseAttentionVectors
from arm_lens.judges.voting import Rationale, VotingJudge
from arm_lens.preferences import Preference, PreferencePair, Prompt
from arm_lens.reward.denoising import Denoise
from arm_lens.selection import Greedy, Reinforce, Selector, SoftGate, TopEffect

PER_STEP = 40
"""Examples that a search by REINFORCE judges in each step, at most: more make it slower, not better."""


def _from_gaps(gaps: Float[np.ndarray, " text"], **fit: Any) -> Verdicts:
    """From the log-odds of each text."""
    chances = expit(gaps)
    return Verdicts(chances, gaps, chances, log_odds=True, fit=fit)


# ------------------------------------------------------------------------------------------ asking


@register(examples=False)
def zero_shot(at: At) -> Verdicts:
    """The model's P(Yes), nothing in the prompt and nothing written: generative scoring."""
    cfg = at.material.model.cfg
    return _from_gaps(at.material.test.gaps(HeadSet.none(cfg.n_layers, cfg.n_heads), None, Injection()))


def _few_shot_judge(at: At, demonstrations: int | None) -> GenerativeJudge:
    material = at.material
    criterion_text, batch_size = at.task.criterion_text, material.config.batch_size
    return GenerativeJudge(
        material.model,
        criterion_text=criterion_text,
        examples=material.demonstrations(demonstrations),
        batch_size=batch_size,
    )


@register()
def few_shot(at: At, *, demonstrations: int | None = None) -> Verdicts:
    """P(Yes) with demonstrations in the prompt, as many of either kind, the same before every question."""
    return _from_gaps(_few_shot_judge(at, demonstrations).verdict(at.material.test.questions).gap.double().numpy())


def _three(at: At) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """Prompts, chosen and rejected responses of the test's pairs."""
    pairs = [item.example for item in at.task.test.pairs if isinstance(item.example, PreferencePair)]
    if not pairs:
        raise ValueError("a ranked judge needs pairs to judge, and there are only single responses")
    return [one.prompt for one in pairs], [one.chosen for one in pairs], [one.rejected for one in pairs]


def _of_orders(orders: Float[Tensor, "pair order"], *, log_odds: bool = True) -> Verdicts:
    """From the margins in favour of the first place in both orders."""
    bias = PositionBias.of(orders)
    margins = ((orders[:, 0] - orders[:, 1]) / 2).double().numpy()
    fit = {"position_bias": 2 * bias.first - 1, "inconsistent": bias.inconsistent}
    return Verdicts(None, None, margins=margins, log_odds=log_odds, fit=fit)


def _ranked(at: At, demonstrations: int) -> Verdicts:
    material = at.material
    judge = GenerativeJudge(
        material.model,
        criterion_text=at.task.criterion_text,
        layout="ranked",
        examples=material.pairs()[:demonstrations] if demonstrations else (),
        batch_size=material.config.batch_size,
    )
    return _of_orders(judge.orders(*_three(at)))


@register(examples=False)
def ranked_zero_shot(at: At) -> Verdicts:
    """Which of two responses is better, asked in both orders; nothing in the prompt."""
    return _ranked(at, 0)


@register()
def ranked_few_shot(at: At, *, demonstrations: int = 4) -> Verdicts:
    """Which of two responses is better, asked in both orders, after demonstrations."""
    return _ranked(at, demonstrations)


@register(random=True)
def voting(at: At, *, votes: int = 8, temperature: float = 1.0, demonstrations: int | None = None) -> Verdicts:
    """The share of positive verdicts among sampled ones, demonstrations in the prompt."""
    return _voted(
        at, VotingJudge(_few_shot_judge(at, demonstrations), votes=votes, temperature=temperature, seed=at.seed)
    )


def _voted(at: At, judge: VotingJudge) -> Verdicts:
    """The share of votes is what a voting judge has for a probability."""
    verdicts = at.scored(judge)
    return replace(verdicts, probabilities=verdicts.rewards)


@register(random=True)
def voting_rationale(
    at: At, *, votes: int = 4, temperature: float = 1.0, demonstrations: int = 0, max_tokens: int = Rationale.max_tokens
) -> Verdicts:
    """The share of positive verdicts among sampled ones, each after reasons that the model writes."""
    judge = _few_shot_judge(at, demonstrations)
    rationale = Rationale(max_tokens=max_tokens)
    return _voted(at, VotingJudge(judge, votes=votes, temperature=temperature, rationale=rationale, seed=at.seed))


@register()
def endpoint(
    at: At,
    *,
    model: str,
    demonstrations: int = 0,
    layout: Layout = "scalar",
    base_url: str | None = None,
    api_key_env: str | None = "OPENAI_API_KEY",
    votes: int = 1,
    temperature: float | None = None,
    rationale: bool = False,
    max_tokens: int | None = None,
    timeout: float = 60.0,
    max_retries: int = 5,
    requests_per_minute: float | None = None,
    concurrency: int = 4,
    prices: Sequence[float] | None = None,
    budget: float | None = None,
) -> Verdicts:
    """A model behind an OpenAI-compatible endpoint; its answers are kept, so that none is paid for twice."""
    from arm_lens.judges.endpoint.judge import EndpointJudge  # needs an optional dependency

    workers = at.material.config.workers  # which share what the endpoint bears
    examples: Sequence[Preference] = (
        at.material.demonstrations(demonstrations) if layout == "scalar" else at.material.pairs()[:demonstrations]
    )
    judge = EndpointJudge(
        model,
        base_url=base_url,
        api_key_env=api_key_env,
        criterion_text=at.task.criterion_text,
        examples=examples if demonstrations else (),
        layout=layout,
        votes=votes,
        temperature=temperature,
        rationale=rationale,
        seed=at.task.sample,
        max_tokens=max_tokens,
        max_retries=max_retries,
        timeout=timeout,
        requests_per_minute=None if requests_per_minute is None else requests_per_minute / workers,
        concurrency=max(1, concurrency // workers),
        prices=None if prices is None else (prices[0], prices[1]),
        budget=budget,
        cache=at.cache,
    )
    if layout == "ranked":
        orders = judge.orders(*_three(at))
        verdicts = _of_orders(orders, log_odds=votes == 1 and not judge.usage.from_text and not rationale)
        verdicts.fit.update(_taken(judge.usage))
        return verdicts
    verdict = judge.scores(*map(list, zip(*at.task.test.texts, strict=True)))
    gaps, chances = verdict.gap.double().numpy(), verdict.probability.double().numpy()
    # What was read from words, or counted, is no probability that the judge has stated.
    stated = votes == 1 and not rationale and not judge.usage.from_text
    return Verdicts(chances, gaps, chances if stated else None, log_odds=stated, fit=_taken(judge.usage))


def _taken(usage: Any) -> dict[str, Any]:
    """What of an endpoint's `Usage` does not depend on how often the run was stopped."""
    return {"unparsed": usage.unparsed, "cost": None if np.isnan(usage.price) else usage.price}


# ------------------------------------------------------------------------------------------ likelihood


@register(examples=False)
def likelihood(at: At, *, mean: bool = True) -> Verdicts:
    """The response's own log-likelihood, per token or in all."""
    judge = LikelihoodJudge(at.material.model, mean=mean, batch_size=at.material.config.batch_size)
    return at.scored(judge, threshold=None)


@lru_cache(maxsize=1)
def _reference(name: str, model_class: ModelClass, dtype: str, device: str | None) -> Model:
    """Loaded once for all tasks of a process."""
    return load_model(name, model_class=model_class, dtype=getattr(torch, dtype), device=device)


@register(examples=False)
def likelihood_ratio(at: At, *, reference: str, beta: float = 1.0) -> Verdicts:
    """The log-ratio of the response's likelihood to that under a reference model (a hub name or folder)."""
    config = at.material.config
    other = _reference(reference, config.model_class, config.dtype, config.device)
    judge = LikelihoodJudge(at.material.model, reference=other, beta=beta, batch_size=config.batch_size)
    return at.scored(judge, threshold=None)


# ------------------------------------------------------------------------------------------ Activation Reward Models


def _steered(at: At, search: Search, heads: HeadSet | None = None) -> Verdicts:
    """The model steered at the heads of a search, or at others with the same means."""
    material = at.material
    if heads is None:
        means, selection = material.searched(search, at.seed)
        chosen, heads = selection.chosen, selection.heads
    else:
        means, chosen = material.prepared(search.injection, search.denoise)[0], heads
    verdicts = _from_gaps(material.test.gaps(chosen, means, search.injection))
    own = expit(material.examples.gaps(chosen, means, search.injection))
    verdicts.fit.update(_fit_accuracy(own, material.examples), n_heads=len(heads), heads=heads.to_list())
    return verdicts


def _fit_accuracy(rewards: Float[np.ndarray, " example"], examples: Reads) -> dict[str, float]:
    """The accuracy on the very examples that were fitted to."""
    labels = np.array([question.positive for question in examples.questions])
    return {"fit_accuracy": float(_right(rewards - 0.5, labels).mean())}


def _right(above: Float[np.ndarray, " item"], labels: Any) -> Float[np.ndarray, " item"]:
    """1 where the sign is right, 0 where it is wrong, one half at zero."""
    found: Float[np.ndarray, " item"] = np.where(above == 0, 0.5, (above > 0) == labels)
    return found


def _reinforce(steps: int, head_penalty: float) -> Selector:
    return Reinforce(steps=steps, head_penalty=head_penalty, examples_per_step=PER_STEP)


@register(random=True)
def arm_reinforce(
    at: At, *, steps: int = 200, head_penalty: float = 0.01, mode: Any = "replace", denoise: float | None = None
) -> Verdicts:
    """An Activation Reward Model, its heads chosen by REINFORCE."""
    denoised = None if denoise is None else Denoise(explained=denoise)
    return _steered(at, Search(_reinforce(steps, head_penalty), Injection(mode=mode), denoised))


@register(random=True)
def arm_reinforce_denoised(at: At, *, steps: int = 200, explained: float = 0.9) -> Verdicts:
    """The same with means denoised by a weighted PCA (an interpretation, see `arm_lens.reward.denoising`)."""
    return arm_reinforce(at, steps=steps, denoise=explained)


@register(random=True)
def arm_reinforce_add(at: At, *, steps: int = 200) -> Verdicts:
    """The same with means added to the heads' own activations, not put in their place."""
    return arm_reinforce(at, steps=steps, mode="add")


@register(random=True)
def arm_random_heads(at: At, *, steps: int = 200, head_penalty: float = 0.01) -> Verdicts:
    """The same means at random heads, as many in each layer as REINFORCE chose with seed 0."""
    search = Search(_reinforce(steps, head_penalty))
    chosen = at.material.searched(search, 0)[1].heads
    return _steered(at, search, chosen.random_like(torch.Generator().manual_seed(at.seed)))


@register()
def arm_all_heads(at: At) -> Verdicts:
    """The means at every head."""
    cfg = at.material.model.cfg
    return _steered(at, Search(TopEffect()), HeadSet.all(cfg.n_layers, cfg.n_heads))


@register()
def arm_top_effect(at: At, *, k: int | None = None) -> Verdicts:
    """The means at the heads that help most alone."""
    return _steered(at, Search(TopEffect(k=k)))


@register()
def arm_greedy(at: At, *, max_heads: int | None = None) -> Verdicts:
    """The means at heads added one by one, each the best beside those before it."""
    return _steered(at, Search(Greedy(max_heads=max_heads)))


@register()
def arm_soft_gate(at: At, *, steps: int = 150) -> Verdicts:
    """The means mixed in by a gate per head, found by gradient."""
    return _steered(at, Search(SoftGate(steps=steps)))


# ------------------------------------------------------------------------------------------ readouts, controls


@register()
def sav(at: At, *, heads: int = 20) -> Verdicts:
    """Sparse Attention Vectors: the share of the best heads that vote for a response."""
    material = at.material
    fitted = SparseAttentionVectors.fit(
        material.model,
        at.task.examples,
        heads=heads,
        criterion_text=at.task.criterion_text,
        batch_size=material.config.batch_size,
    )
    rewards = fitted.share(fitted.verdicts(material.test.activations)).double().numpy()
    own = fitted.share(fitted.verdicts(material.examples.activations)).double().numpy()
    fit = _fit_accuracy(own, material.examples) | {"n_heads": len(fitted.heads), "heads": fitted.heads.to_list()}
    return Verdicts(rewards, rewards, rewards, fit=fit)


@register()
def probe(at: At, *, inverse_penalty: float = 1.0) -> Verdicts:
    """Logistic regression on the activations of all heads."""
    material = at.material
    fitted = HeadProbe.fit(
        material.model,
        at.task.examples,
        inverse_penalty=inverse_penalty,
        criterion_text=at.task.criterion_text,
        batch_size=material.config.batch_size,
    )
    own = expit(fitted.log_odds(material.examples.activations).numpy())
    return _from_gaps(fitted.log_odds(material.test.activations).numpy(), **_fit_accuracy(own, material.examples))


@register(examples=False)
def length(at: At, *, shorter: bool = False) -> Verdicts:
    """The longer response wins."""
    return at.scored(LengthJudge(shorter=shorter), threshold=None)


@register(random=True, examples=False)
def random(at: At) -> Verdicts:
    """A number drawn for each response."""
    return at.scored(RandomJudge(seed=at.seed))


@register(examples=False)
def constant(at: At) -> Verdicts:
    """The same reward for everything: every comparison is a tie."""
    return at.scored(ConstantJudge())
