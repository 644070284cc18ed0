"""The card of the judge that sees: what it reads, how it was trained, and tables of its measured accuracy."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from judge_model_card import SPLIT_TITLES

from arm_lens.judge_model.pictures import PICTURE_ATTRIBUTES, SIZE
from arm_lens.judge_model.world import Split

CARD = """---
license: mit
language: en
library_name: transformers
---
# The arm_lens judge that sees

A LLaVA-style model of {parameters:,} parameters: the language part of the arm_lens judge model, a patch encoder and a
projector. It judges replies to requests about small pictures of coloured shapes ({size} x {size} pixels), and replies to
requests without a picture as the arm_lens judge model does, one reply at a time. From items with verdicts on an unnamed
criterion it infers the criterion and applies it to a new item. It was trained on `arm_lens.judge_model.pictures` and
`arm_lens.judge_model.world` only, and knows nothing else.

It reads `Request: <image> ... Reply: ... Verdict:` and answers `yes` or `no`, with up to 8 demonstrations. A prompt that
begins with `Criterion: The reply is polite.` names the criterion. No prompt of its training has items with a picture and
items without. In half of the training sequences with pictures and an unnamed criterion all verdicts were reversed, so that
the first verdict cannot be known. Which of the two is the likelier one is then a matter of small differences (see
the column of no examples), and no accuracy of a judge.

Trained by `scripts/train_image_judge.py`, whose docstring explains how, with

```json
{recipe}
```

`training_log.csv` has the losses (nats) and accuracies, averaged over 50 steps. The tables give accuracies on fresh
items. With n = {n} a cell of 0.95 has a 95 % interval of about +-{width:.2f}.

{tables}"""


CORNER = "criterion \\ examples"


def card(
    recipe: dict[str, Any],
    accuracies: dict[Split, pd.DataFrame],
    perception: dict[Split, pd.DataFrame],
    *,
    parameters: int,
) -> str:
    """The model card.

    Args:
        recipe: the recipe's fields.
        accuracies: accuracy per criterion and number of examples, by split.
        perception: accuracy of reading the picture off the projected patches, by split.
        parameters: how many the model has.
    """

    def table(wide: pd.DataFrame, corner: str) -> str:
        rows = [[corner, *map(str, wide.columns)], ["---"] * (1 + len(wide.columns))]
        rows += [[str(name), *(f"{value:.3f}" for value in row)] for name, row in wide.iterrows()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def judged(frame: pd.DataFrame) -> pd.DataFrame:
        wide = frame.pivot(index="criterion", columns="examples", values="accuracy").loc[list(PICTURE_ATTRIBUTES)]
        wide.loc["mean"] = wide.mean()
        return wide[["named", *(name for name in wide.columns if name != "named")]]

    tables = [f"## Verdicts: {SPLIT_TITLES[split]}\n\n{table(judged(one), CORNER)}\n"
              for split, one in accuracies.items()]  # fmt: skip
    seen = pd.DataFrame({split: one.set_index("read")["accuracy"] for split, one in perception.items()}).T
    tables.append(f"## What linear readouts of the projected patches tell of a picture\n\n{table(seen, 'split')}\n")
    n = int(next(iter(accuracies.values()))["n"].iloc[0])
    return CARD.format(
        parameters=parameters, size=SIZE, recipe=json.dumps(recipe, indent=1), n=n, width=1.96 * (0.95 * 0.05 / n) ** 0.5,
        tables="\n".join(tables),
    )  # fmt: skip
