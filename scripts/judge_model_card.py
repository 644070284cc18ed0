"""The card of the bundled judge model: what it reads, how it was trained, and tables of its measured accuracy."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from arm_lens.judge_model import CRITERIA
from arm_lens.judge_model.world import Split

CARD = """---
license: mit
language: en
library_name: transformers
---
# The arm_lens judge model

A Llama-style transformer of {parameters:,} parameters ({layers} layers of {heads} heads, d_model {d_model}) that judges
in context. From requests and replies with verdicts on an unnamed criterion, it infers the criterion and applies it to a
new reply; without such examples it can only guess. It was trained on the world of `arm_lens.judge_model.world` only.

It reads `Request: ... Reply: ... Verdict:` and answers `yes` or `no`, with up to 10 demonstrations; or it reads
`Request: ... First: ... Second: ... Verdict:` and answers `first` or `second`, with up to 5. Its training data has no
prompts that mix the two forms, and no two replies of which both or neither meet the criterion. A prompt that begins
with `Criterion: The reply is polite.` names the criterion.

Trained by `scripts/train_judge_model.py`, whose docstring explains how, with

```json
{recipe}
```

{sittings} `training_log.csv` holds the losses (nats) and the accuracy on the last item of unnamed sequences,
averaged over 50 steps: from step {ranked_from} on for one reply and, as `ranked_...`, for two.

The tables give accuracies on items whose criterion is not named. With n = 400 a cell of 0.95 has a 95 % interval
of about +-0.02. One in eighty ranked sequences of held-out frames with 5 examples exceeds the context of 512 tokens;
the tables include them.

{tables}"""
TITLES = {1: "One reply", 2: "Two replies, in either order"}
SPLIT_TITLES = {"test": "held-out sentence frames and word combinations", "train": "those it was trained on"}


def card(
    recipe: dict[str, Any],
    tables: dict[tuple[int, Split], pd.DataFrame],
    *,
    parameters: int,
    ranked_from: int,
    apart: bool,
) -> str:
    """The model card.

    Args:
        recipe: the recipe's fields.
        tables: accuracy per criterion and number of examples, by the number of replies in an item and the split.
        parameters: how many the model has.
        ranked_from: the first step of the last stage.
        apart: whether the last stage was run on its own.
    """

    def table(frame: pd.DataFrame) -> str:
        wide = frame.pivot(index="criterion", columns="examples", values="accuracy").loc[list(CRITERIA)]
        wide.loc["mean"] = wide.mean()
        rows = [["criterion \\ examples", *map(str, wide.columns)], ["---"] * (1 + len(wide.columns))]
        rows += [[name, *(f"{value:.3f}" for value in row)] for name, row in wide.iterrows()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    sittings = "All stages were run in one go."
    if apart:
        sittings = (
            "It was not trained in one go: the last stage was run later, from the finished weights of the others, whose\n"
            "vocabulary lacked the four tokens of ranked questions."
        )
    return CARD.format(
        parameters=parameters,
        layers=recipe["layers"],
        heads=recipe["heads"],
        d_model=recipe["d_model"],
        recipe=json.dumps(recipe, indent=1),
        sittings=sittings,
        ranked_from=ranked_from,
        tables="\n".join(
            f"## {TITLES[replies]}: {SPLIT_TITLES[split]} (n = {frame['n'].iloc[0]} per cell)\n\n{table(frame)}\n"
            for (replies, split), frame in tables.items()
        ),
    )
