"""The Activation Reward Model as a judge that is found by name, and its presets."""

from __future__ import annotations

from pydantic import Field

from arm_lens.engine.steering import Injection
from arm_lens.judges.base import FitContext
from arm_lens.judges.calibrated import CalibratedJudge, Calibration, check_scalar
from arm_lens.judges.generative import GenerativeOptions, bare_prompt
from arm_lens.registry import JudgeSpec, Style
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.selection import PUBLISHED, RandomHeads, Reinforce, RewardKind
from arm_lens.selection.selector import SelectorChoice

PER_STEP = 40
"""Examples that a search by REINFORCE judges in each step, at most: more make it slower, not better."""


class RewardModelOptions(GenerativeOptions):
    """Options of the Activation Reward Model."""

    selector: SelectorChoice = Field(default_factory=Reinforce)
    """How heads are chosen: a name, or options with a ``kind``."""
    reward: RewardKind = "two_way"
    """What the search maximises."""
    injection: Injection = Injection()


def _fit(context: FitContext, options: RewardModelOptions) -> ActivationRewardModel:
    selector = options.selector
    if isinstance(selector, RandomHeads) and selector.like_seed is None:
        selector = selector.model_copy(update={"like_seed": context.like_seed})
    return context.fit(ActivationRewardModel, options, selector=selector, seed=context.seed)


SPEC = JudgeSpec(
    name="arm",
    judge=ActivationRewardModel,
    options=RewardModelOptions,
    fit=_fit,
    summary="An Activation Reward Model, its heads chosen by any selector.",
    style=Style(label="Activation RM", color="#d55e00", symbol="circle-dot", group="Activation RM"),
    random=lambda options: bool(options.selector.random),
    checks_fit=True,
    prompt=bare_prompt,
    place=100,
)
_REINFORCE = {"kind": "reinforce", "examples_per_step": PER_STEP}
SPECS = (
    SPEC,
    SPEC.preset(
        "arm_reinforce",
        {"selector": _REINFORCE},
        summary="An Activation Reward Model, its heads chosen by REINFORCE.",
        label="REINFORCE heads",
        color="#d55e00",
        symbol="circle",
    ),
    SPEC.preset(
        "arm_reinforce_denoised",
        {"selector": _REINFORCE, "denoise": {"explained": 0.9}},
        summary="The same with means denoised by a weighted PCA (an interpretation, see `arm_lens.reward.denoising`).",
        label="REINFORCE, denoised means",
        color="#8f3f00",
        symbol="circle-open",
    ),
    SPEC.preset(
        "arm_reinforce_add",
        {"selector": _REINFORCE, "injection": {"mode": "add"}},
        summary="The same with means added to the heads' own activations, not put in their place.",
        label="REINFORCE, means added",
        color="#f08c4a",
        symbol="octagon",
    ),
    SPEC.preset(
        "arm_published",
        {"selector": {"kind": "reinforce", **PUBLISHED.model_dump(exclude_unset=True)}, "reward": "log_prob"},
        summary="An Activation Reward Model with the published search, for the published reward.",
        label="Published search",
        color="#b8860b",
        symbol="diamond-tall",
    ),
    SPEC.preset(
        "arm_top_effect",
        {"selector": {"kind": "top_effect"}},
        summary="The means at the heads that help most alone.",
        label="Top heads by effect",
        color="#e69f00",
        symbol="pentagon",
    ),
    SPEC.preset(
        "arm_greedy",
        {"selector": {"kind": "greedy"}},
        summary="The means at heads added one by one, each the best beside those before it.",
        label="Greedy heads",
        color="#997000",
        symbol="hexagon",
    ),
    SPEC.preset(
        "arm_soft_gate",
        {"selector": {"kind": "soft_gate"}},
        summary="The means mixed in by a gate per head, found by gradient.",
        label="Soft gates",
        color="#cc79a7",
        symbol="star-diamond",
    ),
    SPEC.preset(
        "arm_hard_concrete",
        {"selector": {"kind": "hard_concrete"}},
        summary="The means at heads found by gradient, with gates that can be exactly 0 and 1.",
        label="Hard-concrete heads",
        color="#7b3294",
        symbol="star-triangle-up",
    ),
    SPEC.preset(
        "arm_all_heads",
        {"selector": {"kind": "all_heads"}},
        summary="The means at every head.",
        label="All heads",
        color="#009e73",
        symbol="triangle-up",
    ),
    SPEC.preset(
        "arm_random_heads",
        {"selector": {"kind": "random_heads", "like": _REINFORCE}},
        summary="The same means at random heads, as many in each layer as REINFORCE chose with the first seed.",
        label="Random heads",
        color="#8c8c8c",
        symbol="triangle-down",
    ),
)


class CalibratedRewardModelOptions(RewardModelOptions):
    """Options of the Activation Reward Model at a corrected threshold."""

    calibration: Calibration = "threshold"
    """How the threshold is found (`arm_lens.judges.calibrated`)."""


def _fit_calibrated(context: FitContext, options: CalibratedRewardModelOptions) -> CalibratedJudge:
    own = {name: getattr(options, name) for name in RewardModelOptions.model_fields}
    reward = _fit(context, RewardModelOptions.model_construct(**own))
    return CalibratedJudge.of(reward, context.examples, options.calibration)


CALIBRATED = JudgeSpec(
    name="arm_calibrated",
    judge=CalibratedJudge,
    options=CalibratedRewardModelOptions,
    fit=_fit_calibrated,
    defaults={"selector": _REINFORCE},
    summary="An Activation Reward Model, at a threshold that is corrected on the examples.",
    style=Style(label="Activation RM, fitted threshold", color="#d55e00", symbol="circle-cross", group="Activation RM"),
    random=SPEC.random,
    checks_fit=True,
    prompt=bare_prompt,
    check=check_scalar,
    place=101,
)
