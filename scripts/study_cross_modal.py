"""Do heads and means of texts judge pictures, and the reverse? `python scripts/study_cross_modal.py RUN --out DIR`.

RUN is a folder of ``arm-lens benchmark images``, whose reward models are used: they were fitted to replies about pictures,
and to replies without a picture, for criteria that both have. For each criterion and direction, the accuracy on held-out
items of the other kind with

- its own heads and means, which were fitted to that kind,
- heads and means of the other kind, and heads of the other kind with its own means,
- three controls: heads of the other kind with that kind's means of another criterion; random sets of heads, as many in each
  layer, with the same means; and nothing, the unsteered model.

A 95 % interval is over items and over reward models that were fitted to other examples. ``transfer.csv`` has all criteria of
the first sample against each other (`arm_lens.comparison.transfer`), ``cross_modal.csv`` the rows above, ``transfer.png`` and
``cross_modal.md`` the same to look at. A stopped run goes on where it stopped: what is done lies in DIR/parts.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import claim, kept

from arm_lens import ActivationRewardModel, load_model
from arm_lens.benchmark import BenchmarkResults
from arm_lens.comparison.transfer import as_written_by, transfer
from arm_lens.engine import BUNDLED_IMAGE_NAME
from arm_lens.engine.language_model import language_model
from arm_lens.evaluation.statistics import accuracy
from arm_lens.judge_model import labelled_pictures, labelled_responses
from arm_lens.plots import save_figure, transfer_matrix
from arm_lens.preferences import LabelledResponse
from arm_lens.storage import digest_of_bytes, write_text

KINDS = {"pictures": labelled_pictures, "texts": labelled_responses}
"""The studies of the run, and what makes their items."""
BOTH = ("polite", "emphatic")
"""The criteria that pictures and texts have."""
RANDOM_SETS = 20
ITEMS_SEED = 2
"""Of held-out items, which are not those of the run."""
Rewards = dict[tuple[str, str], list[ActivationRewardModel]]
"""By kind and criterion; one for each sample of examples."""


def rewards_in(run: Path) -> Rewards:
    """The reward models of a run's lead judge."""
    results = BenchmarkResults.load(run)
    fits = results.fits
    saved = fits[fits["reward_model"].notna()].sort_values(["benchmark", "subset", "sample"])
    model, found = language_model(load_model(BUNDLED_IMAGE_NAME)), Rewards()
    for row in saved.to_dict("records"):
        reward = ActivationRewardModel.load(run / "reward_models" / row["reward_model"], model)
        found.setdefault((row["benchmark"], row["subset"]), []).append(reward)
    return found


def items_of(kind: str, criterion: str, count: int) -> list[LabelledResponse]:
    """Held-out items."""
    return KINDS[kind](criterion, count, split="test", seed=ITEMS_SEED)


def cell(rewards: Rewards, judged: tuple[str, str], count: int) -> list[dict[str, Any]]:
    """The rows of one criterion on items of one kind."""
    kind, criterion = judged
    [other_kind] = [one for one in KINDS if one != kind]
    [other_criterion] = [one for one in BOTH if one != criterion]
    own, other, control = rewards[judged], rewards[other_kind, criterion], rewards[other_kind, other_criterion]
    objective = own[0].objective(items_of(kind, criterion, count))
    generator = torch.Generator().manual_seed(0)

    def right(means: Sequence[ActivationRewardModel], masks: Sequence[torch.Tensor]) -> np.ndarray:
        """Whether each item is judged rightly, by reward model and set of heads; a tie counts one half."""
        margins = [
            as_written_by(one, objective).margins(mask.reshape(-1, *mask.shape[-2:]))
            for one, mask in zip(means, masks, strict=True)
        ]
        return np.heaviside(torch.cat(margins, dim=1).T.double().numpy(), 0.5)

    def heads(of: Sequence[ActivationRewardModel]) -> list[torch.Tensor]:
        return [one.heads.mask for one in of]

    random = [torch.stack([one.heads.random_like(generator).mask for _ in range(RANDOM_SETS)]) for one in other]
    rows = {
        "own heads and means": right(own, heads(own)),
        f"heads and means of {other_kind}": right(other, heads(other)),
        f"heads of {other_kind}, own means": right(own, heads(other)),
        f"heads of {other_kind}, their means of another criterion": right(control, heads(other)),
        f"random heads, means of {other_kind}": right(other, random),
        "nothing": right(own[:1], [torch.zeros_like(own[0].heads.mask)]),
    }
    found = []
    for written, verdicts in rows.items():
        estimate = accuracy(verdicts, clusters=objective.clusters, seed=0)
        found.append(
            {"judged": kind, "criterion": criterion, "written": written, "accuracy": estimate.value,
             "ci_low": estimate.low, "ci_high": estimate.high, "n": estimate.n, "sets": len(verdicts)}
        )  # fmt: skip
    return found


def transfers(rewards: Rewards, count: int) -> str:
    """All criteria of the first sample against each other, as CSV, with the means of either."""
    named = {f"{kind}, {criterion}": some[0] for (kind, criterion), some in rewards.items()}
    examples = {f"{kind}, {criterion}": items_of(kind, criterion, count) for kind, criterion in rewards}
    tables = [transfer(named, examples, means=means, seed=0) for means in ("of the criterion", "of the heads")]
    return pd.concat(tables, ignore_index=True).to_csv(index=False)


def as_markdown(table: pd.DataFrame) -> str:
    """A row per direction and criterion, a column for each of what was written, accuracies with intervals."""
    lines = ["| what is written | " + " | ".join(f"{c}, {k}" for k in KINDS for c in BOTH) + " |", "|---|" + "---|" * 4]
    shown = {}
    for row in table.to_dict("records"):
        name = row["written"].replace("pictures", "the other kind").replace("texts", "the other kind")
        cell = f"{row['accuracy']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
        shown.setdefault(name, {})[row["judged"], row["criterion"]] = cell
    for name, cells in shown.items():
        lines.append(f"| {name} | " + " | ".join(cells[k, c] for k in KINDS for c in BOTH) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a folder of arm-lens benchmark images")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables, figure and parts")
    parser.add_argument("--items", type=int, default=400, help="held-out items per criterion and kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out, count = arguments.out, arguments.items
    claim(out, {"run": digest_of_bytes((arguments.run / "results.json").read_bytes()), "items": count})
    rewards = rewards_in(arguments.run)
    rows = []
    for kind, criterion in ((kind, criterion) for kind in KINDS for criterion in BOTH):
        rows += kept(out, f"{kind} {criterion}", lambda: cell(rewards, (kind, criterion), count))  # noqa: B023
    table = pd.DataFrame(rows)
    write_text(out / "cross_modal.csv", table.round(4).to_csv(index=False))
    write_text(out / "cross_modal.md", as_markdown(table))
    print(table.round(3).to_string(index=False))
    csv = kept(out, "transfer", lambda: transfers(rewards, count))
    write_text(out / "transfer.csv", csv)
    save_figure(transfer_matrix(pd.read_csv(io.StringIO(csv), keep_default_na=False)), out / "transfer.png")


if __name__ == "__main__":
    main()
