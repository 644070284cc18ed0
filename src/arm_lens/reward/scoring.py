"""Rewards for the prompts and responses in a file: what ``arm-lens score`` does.

Rows are scored a fixed number at a time, and written before the next are scored. A run that was killed goes on with the
missing rows, in the same batches as if it had never stopped, so that the output has the same bytes. The output belongs to
its inputs: a record next to it names the data, the reward model with its heads and tensors, and the options, and a run with
others is refused (`arm_lens.storage.Growing`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from arm_lens.judges.artefact import ArtefactError, digest_of_artefact
from arm_lens.reward.model import ActivationRewardModel
from arm_lens.storage import digest_of_bytes, growing

AT_A_TIME = 64
"""Rows that are scored and written together."""


def score_file(
    reward_model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    load: Callable[[Path], ActivationRewardModel] = ActivationRewardModel.load,
    options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> int:
    """Write a line of JSON for each row of a file: its cells, and ``reward``, ``two_way`` and ``gap`` of its response.

    Args:
        reward_model: the folder of a saved reward model.
        data: ``.jsonl``, ``.csv`` or ``.parquet``, with columns ``prompt`` and ``response`` (or ``completion``).
        out: a JSONL file; rows already in it are not scored again.
        columns: our names of columns, and the names in the file.
        load: how the reward model is loaded.
        options: of loading, as JSON; an output that was made with others is refused.
        progress: show a progress bar.

    Returns:
        The number of rows.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming the column or row, if prompts or responses are missing; or if ``out`` was made of other inputs.
        DamagedFileError: if ``out`` was changed since it was written.
        StoreBusyError: if another process is writing to ``out``.
    """
    folder, data = Path(reward_model), Path(data)
    content, columns, made_with = data.read_bytes(), dict(columns or {}), digest_of_artefact(folder)
    rows = _prompts_and_responses(data, content, columns)
    made_of = {
        "data": digest_of_bytes(content),
        "reward_model": made_with,
        "columns": columns,
        "options": dict(options or {}),
        "rows_at_a_time": AT_A_TIME,
        "version": version("arm-lens"),
    }
    with growing(out, made_of) as file:
        starts = range(0, len(rows), AT_A_TIME)
        if file.pieces < len(starts):
            reward = load(folder)
            if digest_of_artefact(folder) != made_with:
                raise ArtefactError(f"{folder} was replaced while it was being read")
        for start in tqdm(starts[file.pieces :], desc="scoring", unit="chunk", disable=not progress):
            file.append(_scored(reward, rows.iloc[start : start + AT_A_TIME]))
    return len(rows)


def _scored(reward: ActivationRewardModel, rows: pd.DataFrame) -> bytes:
    found = reward.verdicts(rows["prompt"].tolist(), rows["response"].tolist())
    lines = []
    for index, row in enumerate(rows.to_dict(orient="records")):
        scores = {"reward": found.probability, "two_way": found.two_way, "gap": found.gap}
        cells = row | {name: float(values[index]) for name, values in scores.items()}
        lines.append(json.dumps(cells, default=str) + "\n")
    return "".join(lines).encode()


def _prompts_and_responses(path: Path, content: bytes, columns: Mapping[str, str]) -> pd.DataFrame:
    """Rows with a prompt and a response each; they need no labels."""
    file = io.BytesIO(content)
    if path.suffix == ".csv":
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""])
    elif path.suffix == ".parquet":
        frame = pd.read_parquet(file)
    elif path.suffix == ".jsonl":
        frame = pd.read_json(file, lines=True, dtype=False)
    else:
        raise ValueError(f"{path}: expected a file ending in .csv, .parquet or .jsonl")
    frame = frame.rename(columns={theirs: ours for ours, theirs in columns.items()})
    if "response" not in frame:
        frame = frame.rename(columns={"completion": "response"})  # TRL's name for it
    for name in ("prompt", "response"):
        if name not in frame:
            raise ValueError(f"{path} has no column {name!r}; it has {', '.join(map(str, frame.columns))}")
        missing = frame.index[frame[name].isna()]
        if len(missing):
            raise ValueError(f"{path}, row {missing[0] + 1}: {name} is missing")
    return frame
