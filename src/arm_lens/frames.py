"""The tables that cross packages: which columns each has, what they mean, and one way to check that a table has them.

Results are tidy frames: one row for each thing that was measured, whose *key* says what it is (a head of a criterion with
a seed, a judge on a subset), and one column for each fact about it. A figure or a comparison needs some of the columns of
a table that somebody else made, perhaps a user. `checked` names the table and what it lacks before anything is computed.
A `Schema` shows its columns when it is printed.

Every interval is of 95 %; ``n`` is the number of examples or items behind a number, unless a schema says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

Kind = Literal["text", "number", "whole", "truth"]
"""What a column holds: texts (or anything else that names), numbers, whole numbers, or true and false. An unknown number is
NaN."""
REPEATS = ("sample", "seed")
"""The columns that distinguish repetitions of the same thing: which example sample, and which seed."""


@dataclass(frozen=True)
class Column:
    """One column."""

    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Schema:
    """The columns of a table."""

    name: str
    """What errors call the table."""
    about: str
    """What a row is."""
    required: Mapping[str, Column]
    optional: Mapping[str, Column] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    """The columns in which no two rows agree; columns that a table lacks do not count."""

    def needing(self, *columns: str, key: tuple[str, ...] | None = None) -> Schema:
        """The same table with only these columns required and all others optional, and perhaps another key."""
        known = {**self.optional, **self.required}
        required = {name: known.get(name, Column("text", "what distinguishes rows")) for name in columns}
        others = {name: column for name, column in known.items() if name not in required}
        return replace(self, required=required, optional=others, key=self.key if key is None else key)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.about}"]
        for name, column in {**self.required, **self.optional}.items():
            lines.append(f"  {name} ({column.kind}{'' if name in self.required else ', optional'}): {column.meaning}")
        return "\n".join(lines)


def checked(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """``frame`` itself, if it is such a table with at least one row.

    Raises:
        ValueError: naming the table and the missing column, next to the columns that it has; the column with values of
            another kind; or the key that several rows have. Or saying that the table is empty.
    """
    missing = [name for name in schema.required if name not in frame.columns]
    if missing:
        known = ", ".join(map(str, frame.columns)) or "no columns"
        raise ValueError(f"the table '{schema.name}' lacks the column {', '.join(map(repr, missing))}; it has {known}")
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
    repeated = frame[frame.duplicated(key)] if key else frame.iloc[:0]
    if len(repeated):
        which = ", ".join(f"{name} {value!r}" for name, value in repeated[key].to_dict("records")[0].items())
        raise ValueError(f"the table '{schema.name}' has several rows of {which}")
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


_COLUMNS: Mapping[Kind, Mapping[str, str]] = {
    "text": {
        "benchmark example group judge model section": "its name",
        "prompt response token": "its text",
        "a": "the name of the one",
        "b": "the name of the other",
        "cluster": "the same for items that belong together",
        "context": "which other heads are written",
        "criterion": "the criterion's name",
        "direction": "promoted or suppressed",
        "heads_of": "whose heads",
        "item": "its id",
        "means_of": "whose means are written",
        "measure": "shapley, injection, ...",
        "model_class": "which class of models",
        "name": "of the set",
        "other": "the other judge",
        "outcome": "probability, accuracy, gap, or search",
        "path": "how masks are tried",
        "ranking": "a measure, or another name",
        "setting": "zero-shot or few-shot",
        "subset": "of the benchmark: a criterion, a section, ...",
        "unit": "pair or response",
        "used_for": "whose examples",
        "verdict": "the right one",
    },
    "truth": {
        "label": "whether the response meets the criterion; true for a pair",
        "selected": "whether the head was chosen",
    },
    "whole": {
        "bin": "its number",
        "chosen": "heads of the set",
        "head": "its index in the layer, from 0",
        "heads n_sets": "how many",
        "layer": "from 0",
        "masks": "tried on each prompt",
        "n": "how many examples",
        "n_clusters": "of items that belong together",
        "n_criteria": "of the mean over criteria, in rows of criterion 'all'",
        "n_examples": "labelled examples that the judge is given",
        "n_heads": "of the model",
        "n_samples": "example samples",
        "n_seeds": "seeds",
        "position": "of the token, from 0",
        "prompt_tokens": "of each prompt",
        "rank": "1 for the largest",
        "sample": "which example sample",
        "seed": "of everything random",
        "shared": "heads of both",
        "size": "heads of the set",
        "step": "from 0",
        "token_id": "in the vocabulary",
    },
    "number": {
        "accuracy": "share of the items; a tie counts one half",
        "auc": "area under the ROC curve",
        "brier": "Brier score",
        "ci": "of the number before it",
        "confidence": "mean probability",
        "correct": "1, 0, or 0.5 for a tie",
        "cosine": "between the vectors; NaN if one is zero",
        "depth": "0 the first layer, 1 the last",
        "difference": "accuracy of the one minus that of the other",
        "effect": "change of its logit",
        "entropy": "of the choice, per head, in nats",
        "expected": "shared by chance",
        "expected_heads": "sum of the probabilities",
        "fit_accuracy": "on the examples that the judge was fitted to",
        "high": "where the bin ends",
        "interaction": "positive for synergy",
        "jaccard": "shared / in either",
        "jaccard_chance": "the mean Jaccard index of random sets as large",
        "low": "where the bin begins",
        "mean_heads": "mean size of a set",
        "nogueira": "0 by chance, 1 for equal sets",
        "noise": "share of the examples' labels that are flipped",
        "overlap": "shared / in the smaller",
        "p_holm": "after Holm's correction for all pairs",
        "p_mcnemar": "of McNemar's test",
        "p_permutation": "of the permutation test, uncorrected",
        "p_value": "of sharing so many by chance",
        "position_bias": "from -1 to 1: how much more often the first is preferred",
        "probability": "of being selected, as the search left it",
        "reward": "of the response; of a pair the chosen response's minus the rejected one's",
        "sampling_se": "standard error by random sampling alone",
        "score": "what the outcome gains by the head; NaN if it was not measured",
        "score_of_present": "over the subsets that were run",
        "sd_samples": "standard deviation over example samples",
        "sd_seeds": "standard deviation over seeds",
        "se": "standard error over examples",
        "seconds_per_mask": "of time",
        "share": "of the layer's heads",
        "spearman": "rank correlation over heads",
        "weight": "of the attention",
    },
}
"""What columns mean in every table that has them, by kind. Names with a suffix need no entry: ``x_a`` and ``x_b`` are ``x``
of the one and of the other, ``x_low`` and ``x_high`` the ends of the interval of ``x``."""
_SUFFIXES = {
    "_a": "of the one: {}",
    "_b": "of the other: {}",
    "_low": "lower end of the interval ({})",
    "_high": "upper end of the interval ({})",
}


def _column(name: str) -> Column:
    for kind, meanings in _COLUMNS.items():
        for names, meaning in meanings.items():
            if name in names.split():
                return Column(kind, meaning)
    suffix = next(suffix for suffix in _SUFFIXES if name.endswith(suffix))
    base = _column(name.removesuffix(suffix))
    return Column(base.kind, _SUFFIXES[suffix].format(base.meaning))


def _schema(name: str, about: str, required: str, optional: str = "", **own: str | Column) -> Schema:
    """A schema of known columns: a ``*`` marks those of the key; ``own`` is what columns mean in this table alone."""

    def columns(names: str) -> dict[str, Column]:
        found = {name: own.get(name, _column(name)) for name in names.replace("*", "").split()}
        return {
            name: replace(_column(name), meaning=one) if isinstance(one, str) else one for name, one in found.items()
        }

    key = tuple(column[:-1] for column in f"{required} {optional}".split() if column.endswith("*"))
    return Schema(name, about, columns(required), columns(optional), key)


HEADS = _schema(
    "heads",
    "a head of the model, chosen or not, after one search",
    "criterion* seed* layer* head* selected",
    "probability sample*",
)
HEAD_SCORES = _schema("scores", "a head and its score", "layer* head* score")
HISTORY = _schema(
    "history",
    "a step of one search",
    "criterion* seed* step*",
    "sample* reward expected_heads entropy",
    reward="mean reward of the masks that were tried",
)
TRAJECTORY = _schema("trajectory", "a head at a step of one search", "criterion* step* layer* head* probability")
ATTRIBUTIONS = _schema(
    "attributions",
    "a head's score by one measure on one outcome",
    "criterion* measure* outcome* layer* head* score ci_low ci_high n",
    "se sampling_se rank heads",
    rank="among all heads, 1 the highest score",
    heads="how many were ranked",
)
INTERACTIONS = _schema(
    "interactions",
    "two heads: what they are worth together beyond the sum of both",
    "criterion* outcome* layer_a* head_a* layer_b* head_b* interaction se ci_low ci_high n",
    "context*",
)
CURVE = _schema("curve", "the best heads of a ranking, so many", "criterion* ranking* heads* accuracy ci_low ci_high n")
AGREEMENT = _schema(
    "agreement",
    "two measures of the same heads",
    "criterion* outcome* measure_a* measure_b* spearman ci_low ci_high n",
    "n_criteria",
    n="how many heads",
)
RANK_CORRELATION = _schema(
    "rank_correlation", "two names' scores of the same heads", "a* b* spearman ci_low ci_high n", n="how many heads"
)
OVERLAP = _schema(
    "overlap",
    "two names' sets of heads",
    "a* b* size_a size_b shared expected jaccard jaccard_chance overlap p_value p_holm n_heads",
)
PAIRS = _schema("pairs", "two names and how alike or how far apart they are", "a b")
COSINES = _schema("cosines", "a head and two names' mean vectors there", "a* b* layer* head* cosine")
STABILITY = _schema(
    "stability",
    "a group of sets of heads: how alike they are",
    "group* n_sets mean_heads jaccard ci_low ci_high jaccard_chance nogueira nogueira_low nogueira_high",
    jaccard="mean over pairs of sets",
)
TRANSFER = _schema(
    "transfer", "the heads of one name used for another", "heads_of used_for means_of accuracy ci_low ci_high n"
)
DEPTH = _schema(
    "depth",
    "a layer of a model and the heads that are chosen there",
    "name* layer* depth chosen n_heads share",
    n_heads="heads in the layer",
)
ATTENTION = _schema(
    "attention",
    "a token of a prompt, and how much the last token attends to it",
    "example verdict position token weight",
    "setting",
)
TOKENS = _schema(
    "tokens",
    "a token that a head's mean promotes or suppresses by the direct path",
    "direction token effect",
    "rank token_id",
)
ITEMS = _schema(
    "items",
    "one item, judged once",
    "benchmark* subset* judge* n_examples* noise* unit* sample* seed* item* cluster label reward probability correct",
    "prompt response",
    probability="that the label is true",
)
ROWS = _schema(
    "rows",
    "a judge on a subset with one example sample and one seed",
    "benchmark* subset* judge* n_examples* noise* sample* seed* accuracy ci_low ci_high n",
    "unit*",
)
SUMMARY = _schema(
    "summary",
    "a judge on a subset, over all example samples and seeds",
    "benchmark* subset* judge* n_examples* noise* accuracy ci_low ci_high n",
    "unit* n_clusters n_samples n_seeds sd_samples sd_seeds auc auc_low auc_high brier brier_low brier_high",
)
COMPARISONS = _schema(
    "comparisons",
    "two judges on the same items of a subset",
    "benchmark* subset* judge* other* difference ci_low ci_high p_holm n",
    "unit* n_examples* noise* n_clusters p_permutation p_mcnemar",
    p_holm="of the permutation test, after Holm's correction",
)
CALIBRATION = _schema(
    "calibration",
    "the items of a subset to which a judge gives about the same probability",
    "benchmark* subset* judge* bin* low high confidence accuracy ci_low ci_high n",
    "unit* n_examples* noise*",
    accuracy="share of the items for which the label is true",
    n="verdicts in the bin",
)
FITS = _schema(
    "fits",
    "a judge that was fitted once",
    "benchmark subset judge n_examples noise sample seed fit_accuracy n_heads",
    "heads position_bias",
    n_heads="heads that it writes or reads",
    heads=Column("text", "their names"),
)
SECTIONS = _schema(
    "section_scores",
    "a judge on a section of a benchmark that publishes how its subsets add up",
    "benchmark judge n_examples noise section score_of_present ci_low ci_high",
)
SPEED = _schema(
    "speed",
    "a way of trying masks on one model",
    "model path model_class prompt_tokens masks seconds_per_mask",
)
