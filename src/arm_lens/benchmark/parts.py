"""Parts of a run: what one judge with one seed says about one task, each an entry of a store.

A part is found by a digest of everything that it depends on: the model's weights and precision, the data, the judge with its
options, the seed, the versions of what computes. So a run that was stopped continues with the missing parts, and a run with
one more judge or study makes only the new ones. A part has the rows of its items and a record of the fit: accuracy on the
examples, the heads with their scores, the history of the search.

Reward models are saved in ``reward_models/``, and a part records the digest of the files of its own. A part whose reward
model is missing or has another digest is made again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arm_lens.benchmark.config import BenchmarkConfig, JudgeChoice
from arm_lens.benchmark.data import Task, TestSet, plan
from arm_lens.benchmark.items import singles_name, singles_of
from arm_lens.engine.protocol import LanguageModel
from arm_lens.judges.fingerprint import fingerprint_of
from arm_lens.judges.model_card import CARD, PICTURE
from arm_lens.judges.template import default_template
from arm_lens.reward.model import NO_HEAD
from arm_lens.selection.reinforce import SCORE
from arm_lens.storage import Store, digest_of, digest_of_bytes

PARTS, REWARD_MODELS, STUDY = "parts", "reward_models", "study"
"""The folders of a run, and that of a study of its heads (`arm_lens.study`)."""
FIT_FIELDS = (
    "fit_accuracy",
    "n_heads",
    "heads",
    "position_bias",
    "inconsistent",
    "unparsed",
    "cost",
    "verdict_mass",
    "preferred",
    "score_kind",
    "notes",
)
NUMERICS = ("arm-lens", "torch", "transformer-lens", "transformers", "scikit-learn")
"""Packages whose versions a result may depend on."""
GIVEN = "given"
"""The name of the scores of heads that were not searched for."""
PART_FIELDS = ("benchmark", "subset", "judge", "n_examples", "noise", "sample", "seed")
"""The columns that identify the part of a row of fits, heads or histories; heads and histories call the subset criterion."""


@dataclass(frozen=True, eq=False)
class Part:
    """One judge with one seed on one task."""

    task: Task
    choice: JudgeChoice
    seed: int
    digest: str
    reward_model: str | None = None
    """The name of its reward model, if that is saved."""

    @property
    def title(self) -> str:
        """The part in words."""
        return f"{self.task.title}, {self.choice.label}, seed {self.seed}"

    @property
    def fields(self) -> dict[str, Any]:
        """The columns of `PART_FIELDS`."""
        task = self.task
        values = (task.study, task.subset, self.choice.label, task.n_examples, task.noise, task.sample, self.seed)
        return dict(zip(PART_FIELDS, values, strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchmarkItems:
    """What every judge said about every item, and how each fit went."""

    items: pd.DataFrame
    """One row per judge, setting, sample, seed and item; see `arm_lens.evaluation.tables`."""
    fits: pd.DataFrame
    """One row per part with a known fit: the columns of `PART_FIELDS` and `FIT_FIELDS`, and the name of a saved
    reward_model."""
    heads: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per part and head of the model, if heads were chosen: the columns of `PART_FIELDS` and `head_frames`."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per part and step of a search for heads: the columns of `PART_FIELDS`, step, reward, ..."""
    texts: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The responses that were judged one by one: benchmark, subset, item, prompt, response."""
    missing: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per part that is not stored: the columns of `PART_FIELDS`, and error. The other tables have no row of its judge
    in its setting."""


def parts_of(
    config: BenchmarkConfig, weights: str, model: LanguageModel | None = None, *, tasks: Sequence[Task] | None = None
) -> list[Part]:
    """Every part of a run, in order; ``weights`` identifies the model, see `name_of_weights`.

    ``model`` is needed if judges depend on more than their options and the model (`JudgeSpec.depends_on`). ``tasks`` are
    those of `plan`, if they are known.
    """
    known = [config.model_class, config.dtype, weights, *map(version, NUMERICS)]
    shared = [*known, config.demonstrations, config.readings, config.batch_size, config.threads, config.memory_gib]
    found: dict[str, Part] = {}
    for given in plan(config) if tasks is None else tasks:
        for choice in given.judges:
            options = choice.parsed
            task = given if choice.spec.reads_examples(options) else given.without_examples()
            values = options.model_dump(mode="json")
            if model is not None and choice.spec.depends_on is not None:
                values["depends_on"] = choice.spec.depends_on(options, model)
            for seed in _seeds(choice, task):
                digest = digest_of([shared, task.digest, choice.judge, choice.label, choice.score_kind, values, seed])
                found.setdefault(digest, Part(task, choice, seed, digest))
    parts = list(found.values())
    names = _names_of_reward_models(parts, config.lead) if config.keep_reward_models else {}
    return [replace(part, reward_model=names.get(part.digest)) for part in parts]


def _seeds(choice: JudgeChoice, task: Task) -> Sequence[int]:
    """One seed if nothing about the judge is random; the judge's own seeds, on every sample; or those of the task."""
    if not choice.spec.random(choice.parsed):
        return range(1)
    return range(choice.seeds) if choice.seeds else range(task.first_seed, task.first_seed + task.seeds)


def _names_of_reward_models(parts: Sequence[Part], lead: str) -> dict[str, str]:
    """``{subset}-{seed}`` by the digest of each part of the lead judge, with study and setting if they vary."""
    own = pd.DataFrame([part.fields for part in parts if part.choice.label == lead], columns=PART_FIELDS)
    varies = own.groupby(["subset", "seed"]).nunique().gt(1).any()
    names: dict[str, str] = {}
    for part in parts:
        if part.choice.label == lead:
            key = part.fields
            front = [part.task.study] if varies["benchmark"] else []
            settings = [f"{name}_{key[name]:g}" for name in ("n_examples", "noise", "sample") if varies[name]]
            readable = "-".join([*front, part.task.subset, *settings, str(part.seed)])
            plain = re.sub(r"[^A-Za-z0-9._-]+", "_", readable)[-120:].strip("._-") or "reward_model"
            taken = {name.lower() for name in names.values()}
            numbered = (plain if number == 1 else f"{plain}-{number}" for number in count(1))
            names[part.digest] = next(name for name in numbered if name.lower() not in taken)
    return names


def name_of_weights(model: LanguageModel) -> str:
    """A digest of the model's fingerprint, the default wording of questions, and the kind of device."""
    questions = repr([default_template(model), model.tokenizer.chat_template])
    return digest_of([fingerprint_of(model).digest, questions, model.device.type])


# ------------------------------------------------------------------------------------------ on disk


def store_in(out: Path) -> Store:
    """The store of a run's parts."""
    return Store(out / PARTS)


def missing_parts(parts: Sequence[Part], out: Path) -> list[Part]:
    """The parts that are not in the store, or lack the reward model that was saved with them."""
    store = store_in(out)
    found = store.found()
    return [part for part in parts if part.digest not in found or not _has_reward_model(part, store, out)]


def _has_reward_model(part: Part, store: Store, out: Path) -> bool:
    if part.reward_model is None:
        return True
    saved = store.read_frame(part.digest)[1].get("reward_model")
    return saved is not None and saved == digest_of_files(out / REWARD_MODELS / part.reward_model)


def save_part(part: Part, items: pd.DataFrame, fit: Mapping[str, Any], judge: Any, out: Path) -> None:
    """Store a part in the run's folder: first its reward model, if that is saved, then the part with its digest.

    ``items`` are those of `arm_lens.benchmark.items.items_of`; for ``fit`` and ``judge`` see `record_of`.
    """
    record = record_of(fit, judge)
    if part.reward_model is not None:
        record["reward_model"] = digest_of_files(judge.save(out / REWARD_MODELS / part.reward_model))
    store_in(out).put_frame(part.digest, items, name=part.title, about=record)


def remove_other_reward_models(out: Path, kept: Collection[str]) -> None:
    """Delete the reward models of a run's folder that are not ``kept`` and that a part of another run was saved with."""
    store, others = store_in(out), [one for one in (out / REWARD_MODELS).glob("*") if one.name not in kept]
    known = {store.read_frame(digest)[1].get("reward_model") for digest in store.found()} if others else set()
    for folder in others:
        if digest_of_files(folder) in known - {None}:
            shutil.rmtree(folder)


def digest_of_files(path: Path) -> str | None:
    """A digest of the names and bytes of a folder's files, except hidden ones and model cards; None if there are none."""
    files = sorted(
        one
        for one in path.rglob("*")
        if one.is_file() and not one.name.startswith(".") and one.name not in (CARD, PICTURE)
    )
    known = [[one.relative_to(path).as_posix(), digest_of_bytes(one.read_bytes())] for one in files]
    return digest_of(known) if known else None


def record_of(fit: Mapping[str, Any], judge: Any) -> dict[str, Any]:
    """What is known of a fit, for JSON: `FIT_FIELDS`, and the judge's heads, their scores and the search if it has heads."""
    found: dict[str, Any] = {"fit": {name: fit.get(name) for name in FIT_FIELDS}}
    found["fit"]["notes"] = "; ".join(_notes_of(judge)) or None
    heads = getattr(judge, "heads", None)
    if heads is None:
        return found
    found["fit"] |= {"n_heads": len(heads), "heads": heads.to_list()}
    selection = getattr(judge, "selection", None)
    scores = getattr(judge if selection is None else selection, "head_scores", None)
    values = heads.mask.float() if scores is None else scores.values.detach().float().cpu()
    history = None if selection is None or selection.history.empty else selection.history.to_dict(orient="list")
    known = {
        "by": GIVEN if scores is None else scores.name,
        "history": history,
        "passes": getattr(selection, "passes", None),
    }
    return {**found, "heads": heads.to_list(), "scores": values.tolist(), **known}


def _notes_of(judge: Any) -> list[str]:
    """What was warned of when the judge was fitted, except that no head was selected, which its heads say."""
    return [note for note in getattr(getattr(judge, "record", None), "notes", ()) if note != NO_HEAD]


def head_frames(judge: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A judge's heads and the history of its search; both empty for a judge without heads.

    Returns:
        Heads, one row per head of the model: layer, head, score, by (what the score is; ``given`` for heads that were not
        searched for), probability (of selection, if the score is that), selected. History, one row per step: step,
        reward, ...; empty without a search.
    """
    return _frames_in(record_of({}, judge))


def _frames_in(record: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `head_frames` from a `record_of`."""
    if "scores" not in record:
        return pd.DataFrame(), pd.DataFrame()
    scores = np.array(record["scores"], dtype=float)
    selected = np.zeros(scores.shape, dtype=bool)
    selected[tuple(zip(*record["heads"], strict=True)) or ([], [])] = True
    heads = pd.DataFrame(list(np.ndindex(scores.shape)), columns=["layer", "head"])
    heads["score"], heads["by"] = scores.ravel(), record["by"]
    heads["probability"] = heads["score"].where(heads["by"] == SCORE)
    heads["selected"] = selected.ravel()
    return heads, pd.DataFrame(record["history"] or {})


def read_parts(parts: Sequence[Part], out: Path) -> Iterator[tuple[Part, pd.DataFrame, dict[str, Any]]]:
    """The items and the record of each part; a DamagedFileError names a file that was changed."""
    store = store_in(out)
    for part in parts:
        yield part, *store.read_frame(part.digest)


def gather(made: Iterable[tuple[Part, pd.DataFrame, Mapping[str, Any]]]) -> BenchmarkItems:
    """Parts with their items and records, in order, as tables."""
    tables: dict[str, list[pd.DataFrame]] = {"items": [], "heads": [], "history": []}
    fits: list[dict[str, Any]] = []
    tests: list[TestSet] = []
    for part, items, record in made:
        tables["items"].append(items)
        fit = {**record["fit"], **({"reward_model": part.reward_model} if part.reward_model else {})}
        if any(value is not None for value in fit.values()):
            fits.append({**part.fields, **fit})
        fields = {"criterion" if name == "subset" else name: value for name, value in part.fields.items()}
        for name, frame in zip(("heads", "history"), _frames_in(record), strict=True):
            if len(frame):
                tables[name].append(pd.DataFrame(fields, index=frame.index).join(frame))
        tests.append(part.task.test)
    joined = {name: pd.concat(some, ignore_index=True) if some else pd.DataFrame() for name, some in tables.items()}
    return BenchmarkItems(**joined, fits=pd.DataFrame(fits), texts=_texts_of(tests))


def _texts_of(tests: Sequence[TestSet]) -> pd.DataFrame:
    rows = [
        (singles_name(test), item.subset, single.id, single.prompt, single.response)
        for test in {one.digest: one for one in tests}.values()
        for item, single in singles_of(test)
    ]
    table = pd.DataFrame(rows, columns=["benchmark", "subset", "item", "prompt", "response"])
    return table.drop_duplicates(["benchmark", "subset", "item"], ignore_index=True)
