"""How fast heads are selected: `python scripts/bench_selection.py --out DIR`.

Everything is measured side by side in one run, and medians are reported:

- speed: the published loop (one hooked full pass per mask), the replay on both model classes, and a bare forward pass
  as the floor of any method with one pass per mask; random weights of real shapes, over prompt lengths and masks;
- end_to_end: the published search, in full, as published and on the replay, on the bundled model;
- overhead: reading means and steered scoring against bare forward passes over the same batches;
- shortcuts: what each of those gives that change no result, on the bundled model and on SmolLM2-135M-Instruct: fused
  attention, masks that start at the first block they change, the verdicts' rows of the unembedding, no mask judged twice;
- searches: the published search and the default one on the bundled model, over seeds: accuracy, size, and how far seeds
  agree beside what random sets of the same sizes would.

Writes bench_selection.json, selection_speed.png and .html. A stopped run goes on where it stopped: what is done lies in
DIR/parts. Times are seconds; run nothing else beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from measuring import SHAPES, claim, free, kept, machine, peak_mib, random_model, seconds
from published_loop import full_pass, published_loop
from tqdm import tqdm

from arm_lens import PUBLISHED, ActivationRewardModel, GenerativeJudge, HeadSet, Reinforce, load_model, steer
from arm_lens.benchmark import real_model
from arm_lens.engine import Replay, VerdictTokens, language_model, last_logits, mean_heads, pad
from arm_lens.engine.hooked import HookedTransformer
from arm_lens.judge_model import CRITERIA, labelled_responses
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.judges.questions import questions_of
from arm_lens.plots import save_figure, selection_speed
from arm_lens.reward.fitting import means_and_objective
from arm_lens.selection import JudgingObjective, PooledObjective, reinforce
from arm_lens.storage import write_text

SECTIONS = ("speed", "end_to_end", "overhead", "shortcuts", "searches")
LENGTHS, MASKS = (64, 128, 256, 512, 1024), (1, 8, 32, 128)
LENGTH, MASK_COUNT = 256, 32
"""At which the other one is varied."""
COMPARED = 2
"""Masks per cell that are read in full, to time them and to compare logits."""
VERDICTS = VerdictTokens((5,), (6, 7))
ROW = (
    "model", "path", "model_class", "layers", "d_model", "prompt_tokens", "masks", "examples", "seconds_per_mask",
    "speedup_vs_full", "max_abs_diff", "peak_mib",
)  # fmt: skip


# ---------------------------------------------------------------------------------------------- sections


def speed(model: Any, name: str, tokens: int, mask_counts: tuple[int, ...], examples: int, repeats: int) -> list[dict]:
    """Rows of one model at one prompt length."""
    cfg, device = model.cfg, str(next(iter(model.parameters())).device.type)
    generator = torch.Generator().manual_seed(tokens)
    batch = pad(torch.randint(3, 200, (examples, tokens), generator=generator).tolist(), device=device)
    masks = torch.rand(max(mask_counts), cfg.n_layers, cfg.n_heads, generator=generator) < 0.3
    values = torch.randn(cfg.n_layers, cfg.n_heads, cfg.d_head, generator=generator) / cfg.d_head**0.5
    on_device = values.to(device, next(iter(model.parameters())).dtype)
    replay = Replay(model, batch.tokens.tolist(), VERDICTS)

    def one_mask(which: int = 0) -> torch.Tensor:
        return full_pass(model, batch.tokens, masks[which].to(device), on_device)

    def forward() -> None:
        with torch.no_grad():
            model(batch.tokens)

    def row(path: str, count: int, each: float, difference: float, peak: float) -> dict[str, Any]:
        found = (
            name, path, type(model).__name__, cfg.n_layers, cfg.d_model, tokens, count, examples, each, full / each,
            difference, peak,
        )  # fmt: skip
        return dict(zip(ROW, found, strict=True))

    full, bare = seconds(one_mask, forward, repeats=repeats)
    rows = [
        row("full pass per mask", 1, full, 0.0, peak_mib(one_mask, device)),
        row("bare forward", 1, bare, float("nan"), peak_mib(forward, device)),
    ]
    for count in mask_counts:
        some = masks[:count]
        compared = sorted({*range(0, count, max(1, count // COMPARED)), count - 1})
        expected = torch.stack([one_mask(which).float().cpu() for which in compared], dim=1)
        found = replay.logits(masks[:count], values)[:, compared]
        difference = float((found - expected).abs().max())
        for path, function in (("replay", replay.verdict_logits), ("replay, whole vocabulary", replay.log_probs)):
            (step,) = seconds(lambda f=function, m=some: f(m, values), repeats=repeats)
            peak = peak_mib(lambda f=function, m=some: f(m, values), device) + replay.nbytes / 2**20
            rows.append(row(path, count, step / count, difference, peak))
    return rows


def bundled_problem(criterion: str, seed: int, examples: int) -> tuple[ActivationRewardModel, PooledObjective]:
    """A reward model without heads as `fit` makes it, and the objective on which `fit` chooses them."""
    model = load_model()
    shown = labelled_responses(criterion, examples, split="train", seed=seed)
    judge = GenerativeJudge(model, question=QuestionOptions(batch_size=4))
    nothing = HeadSet.none(model.cfg.n_layers, model.cfg.n_heads)
    bare = ActivationRewardModel.fit(
        model,
        shown,
        selector=nothing,
        reading=ReadingOptions(readings=1),
        seed=seed,
        question=QuestionOptions(batch_size=4),
    )
    means, objective = means_and_objective(judge, shown, reading=ReadingOptions(seed=seed))
    return replace(bare, means=means), objective


def end_to_end(examples: int, steps: int) -> list[dict[str, Any]]:
    """The published search in full, as published and on the replay, with the same means, examples and random draws."""
    bare, pooled = bundled_problem("positive", 0, examples)
    model, given = bare.model.raw, pooled.objectives[0]
    values, labels = given.values, given.labels.tolist()
    sequences, verdicts = given.replay.sequences, bare.judge.verdict_tokens
    targets = [verdicts.positive if label else verdicts.negative for label in labels]
    started = time.perf_counter()
    loop, _ = published_loop(model, sequences, targets, values, steps=steps)
    halfway = time.perf_counter()
    options = Reinforce(**{**PUBLISHED.model_dump(), "steps": steps})
    objective = JudgingObjective(Replay(model, sequences, verdicts), values, labels, "log_prob")
    found = reinforce(objective, *values.shape[:2], n_examples=len(objective), options=options).heads
    ended = time.perf_counter()
    ActivationRewardModel.fit(model, labelled_responses("positive", examples, split="train", seed=0))
    fitted = time.perf_counter()
    return [
        {"what": "published search, a full pass per mask", "seconds": halfway - started, "heads": int(loop.sum())},
        {
            "what": "published search, on the replay",
            "seconds": ended - halfway,
            "heads": len(found),
            "speedup": (halfway - started) / (ended - halfway),
            "same heads as the loop": bool((found.mask == loop).all()),
        },
        {"what": "default fit, reading included", "seconds": fitted - ended},
    ]


def overhead(repeats: int) -> Iterator[dict[str, Any]]:
    """Reading means and steered scoring against bare passes over the same batches, and the memory reading adds."""
    for name, model in (("6 layers of 512", random_model("6 layers of 512", "TransformerBridge", "cpu", torch.float32)),
                        ("bundled", load_model()),
                        ("SmolLM2-135M-Instruct", load_model(real_model()))):  # fmt: skip
        cfg, generator = model.cfg, torch.Generator().manual_seed(0)
        values = torch.randn(cfg.n_layers, cfg.n_heads, cfg.d_head, generator=generator)
        mask = torch.rand(cfg.n_layers, cfg.n_heads, generator=generator) < 0.3
        for tokens, examples in ((64, 16), (256, 16), (256, 64)):
            sequences = torch.randint(3, 200, (examples, tokens), generator=generator).tolist()
            spans = [slice(start, start + 8) for start in range(0, examples, 8)]

            def bare(sequences: list = sequences, spans: list = spans, model: Any = model) -> None:
                for span in spans:
                    last_logits(model, pad(sequences[span]))

            def steered(bare: Callable = bare, model: Any = model, mask: Any = mask, values: Any = values) -> None:
                with steer(model, mask, values):
                    bare()

            def reading(sequences: list = sequences, model: Any = model) -> None:
                mean_heads(model, sequences, batch_size=8)

            plain, steering, means = seconds(bare, steered, reading, repeats=repeats)
            yield {
                "model": name, "dtype": str(cfg.dtype).removeprefix("torch."), "prompt_tokens": tokens,
                "examples": examples, "bare_seconds": plain,
                "steered_over_bare": steering / plain, "reading_over_bare": means / plain,
                "reading_extra_peak_kib": 1024 * (peak_mib(reading, "cpu") - peak_mib(bare, "cpu")),
            }  # fmt: skip


def shortcuts(name: str, model: Any, repeats: int) -> Iterator[dict[str, Any]]:
    """Each shortcut: seconds without and with it, and by how much results differ (logits, or rewards)."""
    adapter, generator = language_model(model), torch.Generator().manual_seed(0)
    n_layers, n_heads, dtype = adapter.n_layers, adapter.n_heads, str(adapter.dtype).removeprefix("torch.")
    long, short = (
        torch.randint(3, 200, (count, tokens), generator=generator).tolist()
        for count, tokens in ((4, min(560, adapter.n_ctx)), (20, 90))
    )
    values = mean_heads(model, short, batch_size=8).values
    alone = torch.eye(n_layers * n_heads, dtype=torch.bool).reshape(-1, n_layers, n_heads)
    step = torch.rand(16, n_layers, n_heads, generator=generator) < min(0.27, 13 / (n_layers * n_heads))
    replay = Replay(model, short, VERDICTS)
    objective = JudgingObjective(replay, values, [number % 2 == 0 for number in range(20)])

    def row(what: str, without: Callable[[], torch.Tensor], with_it: Callable[[], torch.Tensor]) -> dict[str, Any]:
        difference = float((without() - with_it()).abs().max())
        before, after = seconds(without, with_it, repeats=repeats)
        return {"model": name, "dtype": dtype, "what": what, "without": before,
                "with": after, "times": before / after, "difference": difference}  # fmt: skip

    def setting(finding: str, value: bool, function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            known = getattr(adapter.findings, finding)
            setattr(adapter.findings, finding, value)
            try:
                return function()
            finally:
                setattr(adapter.findings, finding, known)

        return run

    reading = lambda: mean_heads(model, long, batch_size=4).values  # noqa: E731
    trying = lambda masks: lambda: replay.verdict_logits(masks, values)  # noqa: E731
    trying(alone)()
    yield row(
        "fused attention, reading 4 prompts of 560 tokens", *(setting("natively", on, reading) for on in (False, True))
    )
    yield row("fused attention, a step of 16 masks", *(setting("natively", on, trying(step)) for on in (False, True)))
    yield row("late start, every head alone", *(setting("late", on, trying(alone)) for on in (False, True)))
    yield row("late start, a step of 16 masks", *(setting("late", on, trying(step)) for on in (False, True)))
    gap = lambda verdicts: verdicts[..., 0] - verdicts[..., 1]  # noqa: E731
    yield row(
        "the verdicts' rows only, a step of 16 masks",
        lambda: gap(replay.log_probs(step, values)),
        lambda: gap(replay.verdict_logits(step, values)),
    )
    search, times, found = Reinforce(), [], []
    for run in (
        lambda: reinforce(objective, n_layers, n_heads, n_examples=20, options=search),
        lambda: search.select(objective),
    ):
        started = time.perf_counter()
        found.append(run())
        times.append(time.perf_counter() - started)
    asked = search.steps * search.masks + 1 + n_layers * n_heads
    yield {
        "model": name, "dtype": dtype, "what": f"no mask twice, a default search: {found[1].passes:.0f} of {asked} masks",
        "without": times[0], "with": times[1], "times": times[0] / times[1],
        "difference": float((found[0].head_scores.values - found[1].head_scores.values).abs().max()),
    }  # fmt: skip


def searches(criterion: str, seed: int, examples: int, test_items: int) -> list[dict[str, Any]]:
    """Both searches with the same means and examples: a row each."""
    bare, objective = bundled_problem(criterion, seed, examples)
    test = labelled_responses(criterion, test_items, split="test", seed=1_000_000)
    questions = questions_of(test, bare.judge.template)
    labels = torch.tensor([question.positive for question in questions])
    rows = []
    for name, options in (("published", PUBLISHED), ("default", Reinforce())):
        started = time.perf_counter()
        heads = options.select(objective, seed=seed).heads
        elapsed = time.perf_counter() - started
        right = (bare.with_heads(heads).verdict(questions).gap > 0) == labels
        rows.append(
            {"criterion": criterion, "seed": seed, "search": name, "accuracy": float(right.float().mean()),
             "n": test_items, "heads": heads.to_list(), "seconds": elapsed}
        )  # fmt: skip
    return rows


def stability(rows: pd.DataFrame, n_layers: int, n_heads: int) -> pd.DataFrame:
    """Per search: accuracy, size, and the mean pairwise Jaccard of seeds' sets and of random sets of the same sizes.

    With a single seed there are no pairs, and both are NaN (null in the JSON).
    """
    table = []
    for search, part in rows.groupby("search", sort=False):
        generator, found, chance = torch.Generator().manual_seed(0), [], []
        for _, seeds in part.groupby("criterion"):
            sets = [HeadSet.of(n_layers, n_heads, [(a, b) for a, b in heads]) for heads in seeds["heads"]]
            for one, two in itertools.combinations(sets, 2):
                found.append(one.jaccard(two))
                chance += [one.random_like(generator).jaccard(two.random_like(generator)) for _ in range(20)]
        table.append(
            {"search": search, "accuracy": part["accuracy"].mean(), "worst": part["accuracy"].min(),
             "fits": len(part), "n": int(part["n"].iloc[0]), "heads": part["heads"].map(len).mean(),
             "jaccard": pd.Series(found, dtype=float).mean(), "jaccard_by_chance": pd.Series(chance, dtype=float).mean(),
             "seconds_median": part["seconds"].median()}
        )  # fmt: skip
    return pd.DataFrame(table)


# ---------------------------------------------------------------------------------------------- the run


def run_speed(out: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows of the speed section; models are loaded only where a part is missing."""
    dtype = getattr(torch, options.dtype)
    both = ["TransformerBridge", *(["HookedTransformer"] if HookedTransformer is not None else [])]
    jobs: list[tuple[str, str, Callable[[str], Any]]] = []
    for shape in options.shapes:
        for kind in both if shape in options.hooked_shapes else both[:1]:
            jobs.append((shape, kind, lambda kind, shape=shape: random_model(shape, kind, options.device, dtype)))
    folders = [("bundled judge", None, both), *((folder.name, folder, both[:1]) for folder in options.models)]
    for name, path, kinds in folders:
        for kind in kinds:
            jobs.append(
                (name, kind, lambda k, p=path: load_model(p, model_class=k, device=options.device, dtype=dtype))
            )
    rows: list[dict[str, Any]] = []
    for name, kind, load in tqdm(jobs, desc="models"):
        model = None
        for tokens in tqdm(options.lengths, desc=f"{name}, {kind}", leave=False):

            def measure(kind: str = kind, load: Any = load, name: str = name, tokens: int = tokens) -> list[dict]:
                nonlocal model
                model = load(kind) if model is None else model
                counts = tuple(sorted({*options.masks, MASK_COUNT})) if tokens == LENGTH else (MASK_COUNT,)
                fits = tokens <= model.cfg.n_ctx
                return speed(model, name, tokens, counts, options.examples, options.repeats) if fits else []

            part = f"speed {name} {kind} {tokens} {options.device} {options.dtype}".replace("/", "-")
            rows += kept(out, part, measure)
        del model
        free(options.device)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--shapes", nargs="*", choices=list(SHAPES), default=["6 layers of 512"])
    parser.add_argument(
        "--hooked-shapes", nargs="*", choices=list(SHAPES), default=["6 layers of 512"],
        help="those of the shapes that are measured on HookedTransformer too",
    )  # fmt: skip
    parser.add_argument("--models", nargs="*", type=Path, default=[], help="folders of further models")
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), help="prompt tokens")
    parser.add_argument("--masks", nargs="+", type=int, default=list(MASKS))
    parser.add_argument("--examples", type=int, default=4, help="prompts in the speed section")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--criteria", nargs="+", choices=list(CRITERIA), default=["positive"])
    parser.add_argument("--steps", type=int, default=PUBLISHED.steps, help="of the published search, end to end")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"meta": machine(options.device, options.dtype)}
    settings = {"examples": options.examples, "repeats": options.repeats, "masks": options.masks}
    claim(out, {**result["meta"], **settings})
    if "speed" in options.only:
        result["rows"] = run_speed(out, options)
    if "end_to_end" in options.only:
        result["end_to_end"] = kept(out, f"end_to_end {options.steps}", lambda: end_to_end(40, options.steps))
    if "overhead" in options.only:
        result["overhead"] = kept(out, "overhead", lambda: list(overhead(options.repeats)))
    if "shortcuts" in options.only:
        models = {"bundled": load_model, "SmolLM2-135M-Instruct": lambda: load_model(real_model(), dtype=options.dtype)}
        result["shortcuts"] = [
            row
            for name, load in models.items()
            for row in kept(
                out,
                f"shortcuts {name} {options.dtype}",
                lambda n=name, m=load: list(shortcuts(n, m(), options.repeats)),
            )
        ]
    if "searches" in options.only:
        jobs = list(itertools.product(options.criteria, range(options.seeds)))
        result["searches"] = [
            row
            for criterion, seed in tqdm(jobs, desc="searches")
            for row in kept(out, f"searches {criterion} {seed}", lambda c=criterion, s=seed: searches(c, s, 40, 400))
        ]
        cfg = load_model().cfg
        table = stability(pd.DataFrame(result["searches"]), cfg.n_layers, cfg.n_heads)
        result["stability"] = table.to_dict(orient="records")
    text = json.dumps(result, indent=1).replace("NaN", "null")
    write_text(out / "bench_selection.json", text + "\n")
    for name in ("rows", "end_to_end", "overhead", "shortcuts", "stability"):
        if result.get(name):
            print(f"\n{name}\n{pd.DataFrame(result[name]).to_string(index=False, float_format=lambda x: f'{x:.3g}')}")
    if result.get("rows"):
        figure = selection_speed(pd.DataFrame(result["rows"]))
        save_figure(figure, out / "selection_speed.html")
        save_figure(figure, out / "selection_speed.png")


if __name__ == "__main__":
    main()
