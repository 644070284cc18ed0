"""A table is what its schema says, or the error names the table, the column and what there is."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from arm_lens import frames
from arm_lens.frames import REPEATS, Column, Schema, checked, repeats_in

EXAMPLES = {"text": ["a", "b"], "number": [0.5, np.nan], "whole": [1, 2], "truth": [True, False]}
SCHEMAS = {name: one for name, one in vars(frames).items() if isinstance(one, Schema)}
every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


def table(schema: Schema) -> pd.DataFrame:
    known = {"number": [0.5, 0.25]}
    return pd.DataFrame({
        name: (known if name in schema.key else {}).get(column.kind, EXAMPLES[column.kind])
        for name, column in schema.required.items()
    })  # fmt: skip


@every_schema
def test_a_table_of_the_right_kinds_is_given_back_as_it_is(schema):
    frame = table(schema)
    pd.testing.assert_frame_equal(checked(frame, schema), frame)


@every_schema
def test_dtypes_and_row_labels_make_no_difference(schema):
    frame = table(schema)
    other = pd.concat([frame.iloc[:1], frame.iloc[1:].reset_index(drop=True)])  # both rows are called 0
    for name, column in schema.required.items():
        other[name] = other[name].astype({"text": "category", "whole": float}.get(column.kind, object))
    pd.testing.assert_frame_equal(checked(other, schema), frame)


@every_schema
def test_names_may_be_numbers_and_are_then_their_texts(schema):
    names = [name for name, column in schema.required.items() if column.kind == "text"]
    found = checked(table(schema).assign(**{name: [7, 8] for name in names}), schema)
    assert found[names].to_numpy().tolist() == [["7"] * len(names), ["8"] * len(names)]


@every_schema
def test_what_a_column_cannot_be_is_refused_with_its_row(schema):
    for name, column in schema.required.items():
        wrong = {"number": math.inf, "whole": math.inf if name in REPEATS else -1, "truth": None}.get(column.kind)
        wrong = None if column.kind == "text" and name in schema.key else wrong
        if column.kind != "text" or name in schema.key:
            first = table(schema)[name].iloc[0]
            with pytest.raises(ValueError, match=rf"the column '{name}' of the table '{schema.name}' .* in row 1"):
                checked(table(schema).assign(**{name: pd.Series([first, wrong], dtype=object)}), schema)


@pytest.mark.parametrize("value", [1.2, -0.2, 87.5])
def test_shares_beyond_0_and_1_are_refused(value):
    frame = table(frames.SUMMARY).assign(accuracy=[0.5, value])
    with pytest.raises(ValueError, match=rf"'accuracy'.*should be from 0 to 1, and is {value} in row 1 \(benchmark b,"):
        checked(frame, frames.SUMMARY)
    rounded = checked(frame.assign(accuracy=[1 + 1e-6, -1e-6]), frames.SUMMARY)
    assert rounded["accuracy"].tolist() == [1 + 1e-6, -1e-6]


@every_schema
def test_every_missing_column_is_named_beside_those_there_are(schema):
    for name in schema.required:
        with pytest.raises(ValueError, match=f"the table '{schema.name}' lacks the column '{name}'; it has"):
            checked(table(schema).drop(columns=name), schema)


@every_schema
def test_numbers_in_words_and_halves_of_whole_ones_are_refused_by_their_column(schema):
    for name, column in schema.required.items():
        wrong = {"number": "much", "whole": 1.5, "truth": 2}.get(column.kind)
        if wrong is not None:
            with pytest.raises(ValueError, match=f"the column '{name}' of the table '{schema.name}' should hold"):
                checked(table(schema).astype({name: object}).assign(**{name: [wrong, wrong]}), schema)


@every_schema
def test_the_key_is_of_known_columns_and_tells_rows_apart(schema):
    assert set(schema.key) <= {*schema.required, *schema.optional}
    if schema.key:
        with pytest.raises(ValueError, match=f"the table '{schema.name}' has several rows of"):
            checked(pd.concat([table(schema), table(schema)]), schema)


@every_schema
def test_an_empty_table_is_refused_and_a_printed_schema_tells_every_column(schema):
    with pytest.raises(ValueError, match=f"the table '{schema.name}' is empty"):
        checked(table(schema).iloc[:0], schema)
    for name, column in {**schema.required, **schema.optional}.items():
        assert f"  {name} ({column.kind}" in str(schema) and column.meaning in str(schema)


def test_kinds_survive_the_way_through_a_file(tmp_path):
    schema = Schema("rows", "", {"on": Column("truth", ""), "n": Column("whole", ""), "x": Column("number", "")})
    frame = pd.DataFrame({"on": [True, False], "n": [1, np.nan], "x": [0.5, None]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert len(checked(pd.read_csv(tmp_path / "rows.csv"), schema)) == 2
    assert len(checked(frame.astype(object), schema)) == 2
    assert len(checked(frame.astype({"on": int}), schema)) == 2


def test_needing_says_which_columns_are_needed():
    few = frames.ATTRIBUTIONS.needing("layer", "colour", key=("layer",))
    assert list(few.required) == ["layer", "colour"] and "score" in few.optional and few.key == ("layer",)
    assert len(checked(pd.DataFrame({"layer": [0, 1], "colour": ["red", "blue"]}), few)) == 2
    assert repeats_in(pd.DataFrame(columns=["seed", "layer"])) == ["seed"]
