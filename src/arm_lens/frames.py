"""The tables that cross packages: which columns each has, what they mean, and one way to check that a table has them.

Results are tidy frames: one row for each thing that was measured, whose *key* says what it is (a head of a criterion with
a seed, a judge on a subset), and one column for each fact about it. A figure or a comparison needs some of the columns and
is given a table by somebody else, perhaps by a user; `checked` stands at the door of each, and says which table lacks what
before anything is computed. A `Schema` shows its columns when it is printed.

Every interval is of 95 %; ``n`` is the number of examples or items behind a number, unless a schema says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

__all__ = [
    "AGREEMENT",
    "ATTENTION",
    "ATTRIBUTIONS",
    "CALIBRATION",
    "COMPARISONS",
    "COSINES",
    "CURVE",
    "DEPTH",
    "FITS",
    "HEADS",
    "HEAD_SCORES",
    "HISTORY",
    "INTERACTIONS",
    "ITEMS",
    "OVERLAP",
    "PAIRS",
    "RANK_CORRELATION",
    "REPEATS",
    "ROWS",
    "SECTIONS",
    "SPEED",
    "STABILITY",
    "SUMMARY",
    "TOKENS",
    "TRAJECTORY",
    "TRANSFER",
    "Column",
    "Schema",
    "checked",
    "criteria_of",
    "repeats_in",
]

Kind = Literal["text", "number", "whole", "truth"]
"""What a column holds: texts (or anything else that names), numbers, whole numbers, or true and false. Where a number is
unknown it is NaN."""
REPEATS = ("sample", "seed")
"""The columns that tell repetitions of the same thing apart: which example sample, and which seed."""


@dataclass(frozen=True)
class Column:
    """One column."""

    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Schema:
    """The columns of a table."""

    name: str
    """As errors call the table."""
    about: str
    """What a row is."""
    required: Mapping[str, Column]
    optional: Mapping[str, Column] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    """The columns in which no two rows agree; those that a table lacks do not count."""

    def needing(self, *columns: str, key: tuple[str, ...] | None = None) -> Schema:
        """The same table where only these columns are needed, and the others may be there; its key may be another."""
        known = {**self.optional, **self.required}
        wanted = {name: known.get(name, Column("text", "what tells rows apart")) for name in columns}
        others = {name: column for name, column in known.items() if name not in wanted}
        return replace(self, required=wanted, optional=others, key=self.key if key is None else key)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.about}"]
        for name, column in {**self.required, **self.optional}.items():
            lines.append(f"  {name} ({column.kind}{'' if name in self.required else ', optional'}): {column.meaning}")
        return "\n".join(lines)


def checked(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """``frame`` itself, if it is such a table with at least one row.

    Raises:
        ValueError: naming the table and the missing column, beside those that there are; the column that does not hold
            what it should; or what two rows have in common that should be in one. Or saying that the table is empty.
    """
    missing = [name for name in schema.required if name not in frame.columns]
    if missing:
        there = ", ".join(map(str, frame.columns)) or "no columns"
        raise ValueError(f"the table '{schema.name}' lacks the column {', '.join(map(repr, missing))}; it has {there}")
    if frame.empty:
        raise ValueError(f"the table '{schema.name}' is empty")
    for name, column in schema.required.items():
        if not _holds(frame[name], column.kind):
            example = frame[name].dropna().iloc[0]
            raise ValueError(
                f"the column {name!r} of the table '{schema.name}' should hold {_KINDS[column.kind]} ({column.meaning}), "
                f"and holds {example!r}"
            )
    key = [name for name in schema.key if name in frame.columns]
    twice = frame[frame.duplicated(key)] if key else frame.iloc[:0]
    if len(twice):
        where = ", ".join(f"{name} {value!r}" for name, value in twice[key].to_dict("records")[0].items())
        raise ValueError(f"the table '{schema.name}' has several rows of {where}")
    return frame


_KINDS = {"text": "texts", "number": "numbers", "whole": "whole numbers", "truth": "true and false"}


def _holds(values: pd.Series, kind: Kind) -> bool:
    """Whether the values are of this kind, whatever the dtype that they came in from a file."""
    if kind == "text" or is_bool_dtype(values):
        return kind in ("text", "truth")
    known = values.dropna()
    if kind == "truth":
        return bool(known.isin([True, False]).all())
    if not is_numeric_dtype(values):
        return not any(isinstance(value, str) for value in known) and is_numeric_dtype(pd.Series(known.tolist()))
    return kind == "number" or bool((known % 1 == 0).all())


def criteria_of(frame: pd.DataFrame) -> list[str]:
    """The criteria in the order in which they first appear."""
    return [str(criterion) for criterion in frame["criterion"].unique()]


def repeats_in(frame: pd.DataFrame) -> list[str]:
    """Which of `REPEATS` a table has."""
    return [name for name in REPEATS if name in frame.columns]


def _texts(**meanings: str) -> dict[str, Column]:
    return {name: Column("text", meaning) for name, meaning in meanings.items()}


def _numbers(**meanings: str) -> dict[str, Column]:
    return {name: Column("number", meaning) for name, meaning in meanings.items()}


def _whole(**meanings: str) -> dict[str, Column]:
    return {name: Column("whole", meaning) for name, meaning in meanings.items()}


def _interval(of: str) -> dict[str, Column]:
    return _numbers(ci_low=f"where the interval of {of} begins", ci_high="where it ends")


_CRITERION = _texts(criterion="the criterion's name")
_HEAD = _whole(layer="of the head, from 0", head="its place in the layer, from 0")
_PAIR = _texts(a="the name of the one", b="the name of the other")
_N = _whole(n="how many examples")
_SCORE = _numbers(score="what the outcome gains by the head; NaN where it was not measured")

HEADS = Schema(
    "heads",
    "a head of the model, chosen or not, after one search",
    {**_CRITERION, **_whole(seed="of the search"), **_HEAD, "selected": Column("truth", "whether it was chosen")},
    {**_numbers(probability="of being selected, as the search left it"), **_whole(sample="which example sample")},
    ("criterion", *REPEATS, "layer", "head"),
)
HEAD_SCORES = Schema("scores", "a head and its score", {**_HEAD, **_SCORE}, key=("layer", "head"))
HISTORY = Schema(
    "history",
    "a step of one search",
    {**_CRITERION, **_whole(seed="of the search", step="from 0")},
    {
        **_whole(sample="which example sample"),
        **_numbers(
            reward="mean reward of the masks that were tried", expected_heads="sum of the probabilities",
            entropy="of the choice, per head, in nats",
        ),
    },
    ("criterion", *REPEATS, "step"),
)  # fmt: skip
TRAJECTORY = Schema(
    "trajectory",
    "a head at a step of one search",
    {**_CRITERION, **_whole(step="from 0"), **_HEAD, **_numbers(probability="of being selected")},
    key=("criterion", "step", "layer", "head"),
)
ATTRIBUTIONS = Schema(
    "attributions",
    "a head's score by one measure on one outcome",
    {
        **_CRITERION, **_texts(measure="shapley, injection, ...", outcome="probability, accuracy, gap, or search"), **_HEAD,
        **_SCORE, **_interval("the score"), **_N,
    },
    _numbers(
        se="standard error over examples", sampling_se="standard error by random sampling alone",
        rank="among all heads, 1 the highest score", heads="how many were ranked",
    ),
    ("criterion", "measure", "outcome", "layer", "head"),
)  # fmt: skip
INTERACTIONS = Schema(
    "interactions",
    "two heads: what they are worth together beyond the sum of both",
    {
        **_CRITERION, **_texts(outcome="probability, accuracy or gap"),
        **_whole(layer_a="of one head", head_a="of one head", layer_b="of the other", head_b="of the other"),
        **_numbers(interaction="positive for synergy", se="standard error"), **_interval("the interaction"), **_N,
    },
    _texts(context="beside which other heads"),
    ("criterion", "outcome", "context", "layer_a", "head_a", "layer_b", "head_b"),
)  # fmt: skip
CURVE = Schema(
    "curve",
    "the best so many heads of a ranking",
    {
        **_CRITERION, **_texts(ranking="a measure, or another name"), **_whole(heads="how many"),
        **_numbers(accuracy="while they are written"), **_interval("the accuracy"), **_N,
    },
    key=("criterion", "ranking", "heads"),
)  # fmt: skip
AGREEMENT = Schema(
    "agreement",
    "two measures of the same heads",
    {
        **_CRITERION, **_texts(outcome="whose scores", measure_a="the one", measure_b="the other"),
        **_numbers(spearman="rank correlation over heads"), **_interval("the correlation"), **_whole(n="how many heads"),
    },
    _whole(n_criteria="of the mean over criteria, in rows of criterion 'all'"),
    ("criterion", "outcome", "measure_a", "measure_b"),
)  # fmt: skip
RANK_CORRELATION = Schema(
    "rank_correlation",
    "two names' scores of the same heads",
    {
        **_PAIR, **_numbers(spearman="rank correlation over heads"), **_interval("the correlation"),
        **_whole(n="how many heads"),
    },
    key=("a", "b"),
)  # fmt: skip
OVERLAP = Schema(
    "overlap",
    "two names' sets of heads",
    {
        **_PAIR, **_whole(size_a="heads of the one", size_b="heads of the other", shared="heads of both"),
        **_numbers(
            expected="shared by chance", jaccard="shared / in either", jaccard_chance="its mean by chance",
            overlap="shared / in the smaller", p_value="of sharing so many by chance", p_holm="corrected for all pairs",
        ),
        **_whole(n_heads="of the model"),
    },
    key=("a", "b"),
)  # fmt: skip
PAIRS = Schema("pairs", "two names and how alike or how far apart they are", _PAIR)
COSINES = Schema(
    "cosines",
    "a head and two names' mean vectors there",
    {**_PAIR, **_HEAD, **_numbers(cosine="between the vectors; NaN where one is zero")},
    key=("a", "b", "layer", "head"),
)
STABILITY = Schema(
    "stability",
    "a group of sets of heads: how alike they are",
    {
        **_texts(group="its name"), **_whole(n_sets="how many"),
        **_numbers(mean_heads="mean size of a set", jaccard="mean over pairs of sets"), **_interval("the Jaccard index"),
        **_numbers(
            jaccard_chance="of random sets as large", nogueira="0 by chance, 1 for equal sets",
            nogueira_low="where its interval begins", nogueira_high="where it ends",
        ),
    },
    key=("group",),
)  # fmt: skip
TRANSFER = Schema(
    "transfer",
    "the heads of one name used for another",
    {
        **_texts(heads_of="whose heads", used_for="whose examples", means_of="whose means are written"),
        **_numbers(accuracy="on the examples"), **_interval("the accuracy"), **_N,
    },
)  # fmt: skip
DEPTH = Schema(
    "depth",
    "a layer of a model and the heads that are chosen there",
    {
        **_texts(name="of the set"), **_whole(layer="from 0"), **_numbers(depth="0 the first layer, 1 the last"),
        **_whole(chosen="heads of the set", n_heads="heads in the layer"), **_numbers(share="of the layer's heads"),
    },
    key=("name", "layer"),
)  # fmt: skip
ATTENTION = Schema(
    "attention",
    "a token of a prompt, and how much the last token attends to it",
    {
        **_texts(example="its name", verdict="the right one"), **_whole(position="of the token, from 0"),
        **_texts(token="its text"), **_numbers(weight="of the attention"),
    },
    _texts(setting="zero-shot or few-shot"),
)  # fmt: skip
TOKENS = Schema(
    "tokens",
    "a token that a head's mean promotes or suppresses by the direct path",
    {**_texts(direction="promoted or suppressed", token="its text"), **_numbers(effect="change of its logit")},
    _whole(rank="1 for the largest effect", token_id="in the vocabulary"),
)

_SUBSET = _texts(benchmark="its name", subset="of the benchmark: a criterion, a section, ...")
_SETTING = {
    **_SUBSET, **_texts(judge="its name"), **_whole(n_examples="labelled examples that it read"),
    **_numbers(noise="share of their labels that are flipped"),
}  # fmt: skip
_UNIT = _texts(unit="pair or response")
_REPEATED = _whole(sample="which example sample", seed="of everything random")
_ACCURACY = {**_numbers(accuracy="share of the items; a tie counts one half"), **_interval("the accuracy")}

ITEMS = Schema(
    "items",
    "one item, judged once",
    {
        **_SETTING, **_UNIT, **_REPEATED, **_texts(item="its id", cluster="the same for items that belong together"),
        "label": Column("truth", "whether the response meets the criterion; of a pair true"),
        **_numbers(
            reward="of a pair that of the chosen response minus that of the rejected one",
            probability="that the label is true", correct="1, 0, or 0.5 for a tie",
        ),
    },
    _texts(prompt="its text", response="its text"),
    ("benchmark", "subset", "unit", "judge", "n_examples", "noise", *REPEATS, "item"),
)  # fmt: skip
ROWS = Schema(
    "rows",
    "a judge on a subset with one example sample and one seed",
    {**_SETTING, **_REPEATED, **_ACCURACY, **_N},
    _UNIT,
    ("benchmark", "subset", "unit", "judge", "n_examples", "noise", *REPEATS),
)
SUMMARY = Schema(
    "summary",
    "a judge on a subset, over all example samples and seeds",
    {**_SETTING, **_ACCURACY, **_N},
    {
        **_UNIT, **_whole(n_clusters="of items that belong together", n_samples="example samples", n_seeds="seeds"),
        **_numbers(
            sd_samples="standard deviation over example samples", sd_seeds="standard deviation over seeds",
            auc="area under the ROC curve", auc_low="where its interval begins", auc_high="where it ends",
            brier="Brier score", brier_low="where its interval begins", brier_high="where it ends",
        ),
    },
    ("benchmark", "subset", "unit", "judge", "n_examples", "noise"),
)  # fmt: skip
COMPARISONS = Schema(
    "comparisons",
    "two judges on the same items of a subset",
    {
        **_SUBSET, **_texts(judge="the one", other="the other"),
        **_numbers(difference="accuracy of the one minus that of the other"), **_interval("the difference"),
        **_numbers(p_holm="of the permutation test, after Holm's correction"), **_N,
    },
    {
        **_UNIT, **_whole(n_examples="labelled examples", n_clusters="of items that belong together"),
        **_numbers(noise="share of flipped labels", p_permutation="uncorrected", p_mcnemar="of McNemar's test"),
    },
    ("benchmark", "subset", "unit", "judge", "other", "n_examples", "noise"),
)  # fmt: skip
CALIBRATION = Schema(
    "calibration",
    "the items of a subset to which a judge gives about the same probability",
    {
        **_SUBSET, **_texts(judge="its name"), **_whole(bin="its number"),
        **_numbers(
            low="where the bin begins", high="where it ends", confidence="mean probability",
            accuracy="share of the items of which it was true",
        ),
        **_interval("the accuracy"), **_whole(n="verdicts in the bin"),
    },
    {**_UNIT, **_whole(n_examples="labelled examples"), **_numbers(noise="share of flipped labels")},
    ("benchmark", "subset", "unit", "judge", "n_examples", "noise", "bin"),
)  # fmt: skip
FITS = Schema(
    "fits",
    "a judge that was fitted once",
    {
        **_SETTING, **_REPEATED,
        **_numbers(fit_accuracy="on the examples that it was fitted to", n_heads="heads that it writes or reads"),
    },
    {**_texts(heads="their names"), **_numbers(position_bias="from -1 to 1: how much more often the first is preferred")},
)  # fmt: skip
SECTIONS = Schema(
    "section_scores",
    "a judge on a section of a benchmark that publishes how its subsets add up",
    {
        **_texts(benchmark="its name", judge="its name"), **_whole(n_examples="labelled examples"),
        **_numbers(noise="share of flipped labels"), **_texts(section="its name"),
        **_numbers(score_of_present="over the subsets that were run"), **_interval("the score"),
    },
)  # fmt: skip
SPEED = Schema(
    "speed",
    "a way of trying masks on one model",
    {
        **_texts(model="its name", path="how masks are tried", model_class="which class of models"),
        **_whole(prompt_tokens="of each prompt", masks="tried on each prompt"), **_numbers(seconds_per_mask="of time"),
    },
)  # fmt: skip
