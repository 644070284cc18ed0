"""Small made-up tables of attributions and comparisons, with the columns of real ones. Not a test file."""

from __future__ import annotations

import base64
import itertools

import numpy as np
import pandas as pd
from scipy.stats import hypergeom, spearmanr

from arm_lens.heads import HeadSet

CRITERIA = ("answers", "safe", "polite", "positive", "brief", "detailed", "list", "emphatic")
MEASURES = (
    "selection_probability", "injection", "leave_one_out", "shapley", "gradient", "direct", "ablation_zero",
    "ablation_mean", "ablation_resample", "ablation_optimal", "integrated_gradients", "head_gating",
)  # fmt: skip
OUTCOMES = ("accuracy", "probability", "gap")
NOISE = {"shapley": 0.15, "leave_one_out": 0.5, "injection": 0.4, "gradient": 0.6, "direct": 1.2}
SCALE = {"accuracy": 0.02, "probability": 0.03, "gap": 0.25}


def worth_of(criterion_index: int, n_layers: int, n_heads: int) -> np.ndarray:
    """What the heads of a criterion are worth, most next to nothing, some in common with other criteria."""
    common = np.random.default_rng(7).normal(0, 1, (n_layers, n_heads)) ** 3
    own = np.random.default_rng(100 + criterion_index).normal(0, 1, (n_layers, n_heads)) ** 3
    return (0.4 * common + 0.8 * own) * np.linspace(0.4, 1.6, n_layers)[:, None]


def make_attributions(
    criteria=CRITERIA, measures=MEASURES, outcomes=OUTCOMES, n_layers=6, n_heads=8, n=40
) -> pd.DataFrame:
    random = np.random.default_rng(3)
    layers, heads = np.divmod(np.arange(n_layers * n_heads), n_heads)
    frames = []
    for (index, criterion), measure, outcome in itertools.product(enumerate(criteria), measures, outcomes):
        worth = worth_of(index, n_layers, n_heads).ravel()
        score = SCALE[outcome] * (worth + NOISE.get(measure, 0.7) * random.normal(0, 1, worth.shape))
        if measure == "selection_probability":
            score = 1 / (1 + np.exp(-(2 * worth - 1.5)))
        se = SCALE[outcome] * random.uniform(0.15, 0.4, worth.shape)
        frames.append(
            pd.DataFrame(
                {
                    "criterion": criterion, "measure": measure, "outcome": outcome, "layer": layers, "head": heads,
                    "score": score, "se": se, "ci_low": score - 2 * se, "ci_high": score + 2 * se,
                    "sampling_se": se / 3 if measure == "shapley" else 0.0, "n": n,
                }
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def make_agreement(attributions: pd.DataFrame) -> pd.DataFrame:
    records = []
    for (criterion, outcome), part in attributions.groupby(["criterion", "outcome"], sort=False):
        wide = part.pivot(index=["layer", "head"], columns="measure", values="score")
        for a, b in itertools.combinations(part["measure"].unique(), 2):
            rho = float(spearmanr(wide[a], wide[b]).statistic)
            low, high = np.tanh(np.arctanh(rho) + np.array([-1.96, 1.96]) * 1.06 / np.sqrt(len(wide) - 3))
            records.append((criterion, outcome, a, b, rho, low, high, len(wide)))
    columns = ["criterion", "outcome", "measure_a", "measure_b", "spearman", "ci_low", "ci_high", "n"]
    return pd.DataFrame(records, columns=columns)


def make_interactions(criteria=CRITERIA[:2], n_chosen=12, n_layers=6, n_heads=8, n=40) -> pd.DataFrame:
    random = np.random.default_rng(4)
    records = []
    for index, criterion in enumerate(criteria):
        worth = worth_of(index, n_layers, n_heads).ravel()
        chosen = sorted(np.argsort(-worth)[:n_chosen].tolist())
        for a, b in itertools.combinations(chosen, 2):
            for outcome in OUTCOMES:
                value = SCALE[outcome] * (random.normal(0, 0.5) - 0.3 * (a // n_heads == b // n_heads))
                se = SCALE[outcome] * random.uniform(0.08, 0.3)
                records.append(
                    (criterion, outcome, *divmod(a, n_heads), *divmod(b, n_heads), value, se, value - 2 * se,
                     value + 2 * se, se / 4, n)
                )  # fmt: skip
    columns = [
        "criterion", "outcome", "layer_a", "head_a", "layer_b", "head_b", "interaction", "se", "ci_low", "ci_high",
        "sampling_se", "n",
    ]  # fmt: skip
    return pd.DataFrame(records, columns=columns)


def make_memberships(criteria=CRITERIA, n_layers=6, n_heads=8, n_chosen=10) -> dict[str, HeadSet]:
    sets = {}
    for index, criterion in enumerate(criteria):
        worth = worth_of(index, n_layers, n_heads).ravel()
        chosen = np.argsort(-worth)[: n_chosen + index % 4]
        sets[criterion] = HeadSet.of(n_layers, n_heads, [divmod(int(one), n_heads) for one in chosen])
    return sets


def make_overlap(memberships: dict[str, HeadSet], n_total=48) -> pd.DataFrame:
    sets = {name: set(heads) for name, heads in memberships.items()}
    records = []
    pairs = list(itertools.combinations(sets, 2))
    for a, b in pairs:
        shared, size_a, size_b = len(sets[a] & sets[b]), len(sets[a]), len(sets[b])
        p = float(hypergeom.sf(shared - 1, n_total, size_a, size_b))
        expected = size_a * size_b / n_total
        records.append(
            (a, b, size_a, size_b, shared, expected, shared / len(sets[a] | sets[b]),
             expected / (size_a + size_b - expected), shared / min(size_a, size_b), p, min(1.0, p * len(pairs)), n_total)
        )  # fmt: skip
    columns = [
        "a", "b", "size_a", "size_b", "shared", "expected", "jaccard", "jaccard_chance", "overlap", "p_value",
        "p_holm", "n_heads",
    ]  # fmt: skip
    return pd.DataFrame(records, columns=columns)


def make_transfer(criteria=CRITERIA, controls=("random heads", "none"), both=True, n=200) -> pd.DataFrame:
    random = np.random.default_rng(5)
    records = []

    def add(heads_of, used_for, means_of, accuracy):
        p = float(np.clip(accuracy, 0.3, 1.0))
        half = 1.96 * np.sqrt(p * (1 - p) / n)
        records.append((heads_of, used_for, means_of, p, max(0.0, p - half), min(1.0, p + half), n))

    for (i, a), (j, b) in itertools.product(enumerate(criteria), enumerate(criteria)):
        own = 0.97 - 0.02 * (j % 3)
        add(a, b, b, own if i == j else random.uniform(0.62, 0.93))
        if both and i != j:
            add(a, b, a, random.uniform(0.35, 0.7))
    for control, b in itertools.product(controls, criteria):
        add(control, b, b, random.uniform(0.55, 0.75) if control != "none" else random.uniform(0.48, 0.6))
    return pd.DataFrame(records, columns=["heads_of", "used_for", "means_of", "accuracy", "ci_low", "ci_high", "n"])


def make_trajectory(criteria=CRITERIA, steps=range(0, 200, 5), n_layers=6, n_heads=8) -> pd.DataFrame:
    random = np.random.default_rng(6)
    frames = []
    layers, heads = np.divmod(np.arange(n_layers * n_heads), n_heads)
    for index, criterion in enumerate(criteria):
        target = 2.2 * worth_of(index, n_layers, n_heads).ravel() - 1.2
        logits = np.full(target.shape, -1.0)
        steps = list(steps)
        for step in steps:
            progress = 1 - np.exp(-step / (0.3 * max(steps)))
            logits = -1.0 * (1 - progress) + progress * target + random.normal(0, 0.25, target.shape)
            p = 1 / (1 + np.exp(-logits))
            frames.append(
                pd.DataFrame({"criterion": criterion, "step": step, "layer": layers, "head": heads, "probability": p})
            )
    return pd.concat(frames, ignore_index=True)


def make_curve(
    criteria=CRITERIA,
    rankings=("shapley", "leave_one_out", "injection", "gradient", "random"),
    sizes=(0, 1, 2, 4, 8, 16, 32, 48),
    n=200,
) -> pd.DataFrame:  # fmt: skip
    random = np.random.default_rng(8)
    speed = {"shapley": 3.0, "leave_one_out": 5.0, "injection": 6.0, "gradient": 8.0, "random": 25.0}
    records = []
    for criterion, ranking, size in itertools.product(criteria, rankings, sizes):
        p = 0.55 + 0.42 * (1 - np.exp(-size / speed.get(ranking, 10.0))) - 0.001 * size + random.normal(0, 0.01)
        p = float(np.clip(p, 0, 1))
        half = 1.96 * np.sqrt(p * (1 - p) / n)
        records.append((criterion, ranking, size, p, p - half, min(1.0, p + half), n))
    return pd.DataFrame(records, columns=["criterion", "ranking", "heads", "accuracy", "ci_low", "ci_high", "n"])


def make_stability(groups=CRITERIA) -> pd.DataFrame:
    random = np.random.default_rng(9)
    jaccard, nogueira = random.uniform(0.4, 0.85, len(groups)), random.uniform(0.3, 0.8, len(groups))
    size = random.uniform(6, 28, len(groups))
    return pd.DataFrame(
        {
            "group": list(groups), "n_sets": 10, "mean_heads": size, "jaccard": jaccard, "ci_low": jaccard - 0.06,
            "ci_high": jaccard + 0.06, "jaccard_chance": size / (96 - size), "nogueira": nogueira,
            "nogueira_low": nogueira - 0.08, "nogueira_high": nogueira + 0.08,
        }
    )  # fmt: skip


def make_depth(names=("judge-6", "qwen2.5-0.5b", "llama-3.2-1b"), layers=(6, 24, 16), n_heads=8) -> pd.DataFrame:
    random = np.random.default_rng(10)
    records = []
    for index, (name, n_layers) in enumerate(zip(names, itertools.cycle(layers), strict=False)):
        for layer in range(n_layers):
            depth = layer / (n_layers - 1)
            chosen = int(
                random.binomial(n_heads, 0.05 + 0.6 * np.exp(-((depth - 0.55 - 0.1 * (index % 3)) ** 2) / 0.05))
            )
            records.append((name, layer, depth, chosen, n_heads, chosen / n_heads))
    return pd.DataFrame(records, columns=["name", "layer", "depth", "chosen", "n_heads", "share"])


def make_cosines(names=CRITERIA, n_layers=6, n_heads=8) -> pd.DataFrame:
    random = np.random.default_rng(11)
    layers, heads = np.divmod(np.arange(n_layers * n_heads), n_heads)
    frames = []
    for a, b in itertools.combinations(names, 2):
        middle = random.uniform(-0.2, 0.7)
        cosine = np.clip(middle + 0.05 * layers + random.normal(0, 0.15, layers.shape), -1, 1)
        frames.append(pd.DataFrame({"a": a, "b": b, "layer": layers, "head": heads, "cosine": cosine}))
    return pd.concat(frames, ignore_index=True)


def make_patches(rows: int = 8, columns: int = 6) -> tuple[pd.DataFrame, dict[str, str]]:
    """Patches of three images, two of them in one prompt; and the images, which are smooth and coloured."""
    rng, parts, pictures = np.random.default_rng(0), [], {}
    down, across = (index.flatten() for index in np.indices((rows, columns)))
    prompts = (("example 1", "Yes", 1, 30), ("example 1", "Yes", 2, 120), ("a prompt with a long name", "No", 1, 220))
    for example, verdict, picture, hue in prompts:
        weights = rng.gamma(0.5, size=rows * columns)
        share = 0.2 * picture
        digest = f"{hue:032x}"
        svg = (
            "<svg xmlns='http://www.w3.org/2000/svg' width='60' height='80'>"
            f"<rect width='60' height='80' fill='hsl({hue},60%,80%)'/>"
            f"<circle cx='20' cy='30' r='14' fill='hsl({hue},70%,40%)'/></svg>"
        )
        pictures[digest] = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
        parts.append(pd.DataFrame({
            "setting": "zero-shot", "example": example, "verdict": verdict, "picture": picture, "image": digest, "width": 60,
            "height": 80, "row": down, "column": across, "weight": share * weights / weights.sum(),
            "left": across / columns, "top": down / rows, "right": (across + 1) / columns, "bottom": (down + 1) / rows,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True), pictures
