"""Rewards for the prompts and responses in a file: what ``arm-lens score`` does.

Rows are scored a fixed number at a time, and written before the next are scored. A run that was killed goes on with the
missing rows, in the same batches as if it had never stopped, so that the output has the same bytes. The output belongs to
its inputs: a record next to it names the data, the reward model with its heads and tensors, and the options, and a run with
others is refused (`arm_lens.storage.Growing`).

The output has the input's columns, names, order and cells, in the format that its name says. Lines of JSON and tables of text
grow as rows are scored. Other formats (Parquet, a JSON list, anything compressed) cannot grow: the scores do, in a file
next to the output, which is written as a whole at the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from arm_lens.judges.artefact import ArtefactError
from arm_lens.judges.base import ScoreKind, of_kind
from arm_lens.judges.hub import digest_of_judge
from arm_lens.preferences import ResponseTable, read_responses, text_of
from arm_lens.preferences.files import file_format
from arm_lens.preferences.images import marks_in
from arm_lens.preferences.readers import Columns
from arm_lens.preferences.sources import HUB
from arm_lens.preferences.tables import check_extension, compressed, encoded, is_appendable
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.storage import DamagedFileError, digest_of, digest_of_bytes, growing, write_bytes

AT_A_TIME = 64
"""Rows that are scored and written together."""
NO_FORMAT = ("", ".out", ".txt")
"""Extensions that name no format; such an output has lines of JSON."""
SCORES: tuple[ScoreKind, ...] = ("reward", "two_way", "gap")
"""The columns that are added by default: P(Yes) over the vocabulary, P(Yes) among the two verdicts, and the gap of their
logits."""


def score_file(
    reward_model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    columns: Columns | None = None,
    split: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    limit: int | None = None,
    allow_urls: bool = False,
    allow_any_path: bool = False,
    score_kind: ScoreKind | None = None,
    load: Callable[[str | Path], ActivationRewardModel] = ActivationRewardModel.load,
    options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> int:
    """Write each row of a file with the scores of its response: its cells as they were, and a column for each kind of score.

    Args:
        reward_model: the folder of a saved reward model, or its name on the hub.
        data: a file that `read_preferences` reads, or ``hf://`` and a hub name, with columns ``prompt`` (none for texts
            that are classified) and ``response``, ``completion`` or ``text``.
        out: a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file, also compressed; lines of JSON if its name has
            no extension. Rows that were scored before are not scored again.
        columns: our names of columns, and the names or positions in the file.
        split: which split to read, if there are several.
        on_error: with ``skip``, rows that cannot be read are listed in a warning and left out of the output.
        limit: how many rows to read, from the first.
        allow_urls: open the web addresses of images.
        allow_any_path: read images from outside the folder of the data.
        score_kind: the only kind of score to write, in a column of its name; by default `SCORES`.
        load: how the reward model is loaded.
        options: of loading, as JSON; an output that was made with others is refused.
        progress: show a progress bar.

    Returns:
        The number of rows, including those without a score: a judge with ``on_too_long="skip"`` leaves it empty.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming the column or row, if prompts or responses are missing or a column has the name of a score; or if
            ``out`` was made of other inputs.
        FileExistsError: if ``out`` is a file that is not of these rewards.
        DamagedFileError: if ``out`` was changed since it was written.
        StoreBusyError: if another process is writing to ``out``.
    """
    out, made_with = Path(out), digest_of_judge(reward_model)
    extension = ".jsonl" if file_format(out) in NO_FORMAT else check_extension(out)
    columns = dict(columns or {})
    images = {"allow_urls": allow_urls, "allow_any_path": allow_any_path}
    table = read_responses(data, columns=columns, split=split, on_error=on_error, limit=limit, **images)
    kinds = SCORES if score_kind is None else (score_kind,)
    clashing = [column for column in table.columns if column in kinds]
    if clashing:
        raise ValueError(f"{data} has a column {clashing[0]!r} already, the name of a score that is added: rename it")
    made_of = {
        "data": _digest_of_data(data, table),
        "reward_model": made_with,
        "columns": columns,
        "rows": [split, on_error, limit],
        "scores": kinds,
        "options": dict(options or {}),
        "rows_at_a_time": AT_A_TIME,
        "version": version("arm-lens"),
    }
    appendable = is_appendable(extension, out)
    scores = out if appendable else out.with_name(f"{out.name}.scores.jsonl")
    if out.exists() and not scores.exists():
        raise FileExistsError(17, "exists, and was not written by this program", str(out))
    with growing(scores, made_of) as file:
        starts = range(0, len(table), AT_A_TIME)
        if file.pieces < len(starts):
            reward = load(reward_model)
            if digest_of_judge(reward_model) != made_with:
                raise ArtefactError(f"{reward_model} was replaced while it was being read")
            _check_images(reward, table)
        for start in tqdm(starts[file.pieces :], desc="scoring", unit="chunk", disable=not progress):
            found = _scored(reward, table, range(start, min(start + AT_A_TIME, len(table))), kinds)
            if appendable:
                rows = [{**table.rows[start + index], **one} for index, one in enumerate(found)]
                file.append(encoded(rows, (*table.columns, *kinds), extension, header=not start))
            else:
                file.append(encoded(found, kinds, ".jsonl"))
        if not appendable:
            every = map(json.loads, scores.read_text(encoding="utf-8").splitlines())
            rows = [{**row, **one} for row, one in zip(table.rows, every, strict=True)]
            content = encoded(rows, (*table.columns, *kinds), extension, schema=table.schema)
            content = compressed(content, out)
            if out.exists() and out.read_bytes() != content:
                raise DamagedFileError(f"{out} was changed since it was written; delete it to have it made again")
            write_bytes(out, content)
    return len(table)


def _scored(
    reward: ActivationRewardModel, table: ResponseTable, which: range, kinds: Sequence[ScoreKind]
) -> list[dict[str, float | None]]:
    """The scores of some rows; none for a row that is left out because it is too long."""
    asked = reward.scalar_questions([table.prompts[row] for row in which], [table.responses[row] for row in which])
    found = reward.judged([replace(one, name=f"example {row}") for row, one in zip(which, asked, strict=True)])
    values = {kind: of_kind(found, kind).tolist() for kind in kinds}
    return [
        {kind: None if math.isnan(value := values[kind][row]) else value for kind in kinds} for row in range(len(which))
    ]


def _check_images(reward: ActivationRewardModel, table: ResponseTable) -> None:
    """Raise a `NoImagesError` before anything is scored, if a row has an image that the model cannot read."""
    if reward.question.on_too_long == "skip":  # such rows have no score
        return
    for row, texts in enumerate(zip(table.prompts, table.responses, strict=True)):
        for text in texts:
            reward.model.check_images(text_of(text), f"example {row}")


def _digest_of_data(data: str | Path, table: ResponseTable) -> str:
    """The digest of a file's bytes, and of the images that it names; that of its rows for a data set on the hub."""
    if str(data).startswith(HUB):
        return digest_of([[str(cell) for cell in row.items()] for row in table.rows])
    found = digest_of_bytes(Path(data).read_bytes())
    images = [digest for text in (*table.prompts, *table.responses) for digest in marks_in(text_of(text))]
    return digest_of([found, images]) if images else found
