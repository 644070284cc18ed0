"""Parts of a run: what one judge with one seed says about one task, each an entry of a store.

A part is named by a digest of all that it depends on: the model's weights and precision, the data, the judge with its
options, the seed, the versions of what computes. So a run that was stopped goes on with the parts that are missing, and a
run with one more judge, or one more study, makes those of it alone. A part holds the rows of its items, and a record of the
fit: accuracy on the examples, the heads with their scores, the history of the search.

A reward model that is kept stands beside the parts, in ``reward_models/``, and its part knows the digest of its files. A
part whose reward model is missing, or is another's, counts as missing and is made again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from arm_lens.benchmark.config import BenchmarkConfig, JudgeChoice
from arm_lens.benchmark.data import Task, TestSet, plan
from arm_lens.benchmark.items import singles_name, singles_of
from arm_lens.benchmark.judging import check_data
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.reading import fingerprint
from arm_lens.judges.template import default_template
from arm_lens.selection.reinforce import SCORE
from arm_lens.storage import Store, digest_of, digest_of_bytes

PARTS, REWARD_MODELS = "parts", "reward_models"
"""Folders of a run."""
FIT_FIELDS = ("fit_accuracy", "n_heads", "heads", "position_bias", "inconsistent", "unparsed", "cost")
NUMERICS = ("arm-lens", "torch", "transformer-lens", "transformers", "scikit-learn")
"""Packages whose versions a result may depend on."""
GIVEN = "given"
"""What heads were chosen by that were not searched for."""
PART_FIELDS = ("benchmark", "subset", "judge", "n_examples", "noise", "sample", "seed")
"""The columns that say which part a row of fits, heads or histories belongs to."""


@dataclass(frozen=True, eq=False)
class Part:
    """One judge with one seed on one task."""

    task: Task
    choice: JudgeChoice
    seed: int
    digest: str
    reward_model: str | None = None
    """The name that its reward model is kept under, if it is."""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.task.title}, {self.choice.label}, seed {self.seed}"

    @property
    def fields(self) -> dict[str, Any]:
        """The columns of `PART_FIELDS`."""
        task = self.task
        values = (task.study, task.subset, self.choice.label, task.n_examples, task.noise, task.sample, self.seed)
        return dict(zip(PART_FIELDS, values, strict=True))


@dataclass(frozen=True, eq=False)
class BenchmarkItems:
    """What every judge said about every item, and how each fit went."""

    items: pd.DataFrame
    """One row per judge, setting, sample, seed and item; see `arm_lens.evaluation.tables`."""
    fits: pd.DataFrame
    """One row per part of which something is known: the columns of `PART_FIELDS` and `FIT_FIELDS`, and reward_model, the name
    of one that is kept."""
    heads: pd.DataFrame
    """One row per part and head of the model, where heads were chosen: the columns of `PART_FIELDS`, the subset being
    called criterion; layer, head, score, by (what the score is), probability (of selection, where the score is that),
    selected."""
    history: pd.DataFrame
    """One row per part and step of a search for heads: the columns of `PART_FIELDS`, the subset being called criterion;
    step, reward, ..."""
    texts: pd.DataFrame
    """The responses that were judged one by one: benchmark, subset, item, prompt, response."""


def parts_of(config: BenchmarkConfig, weights: str) -> list[Part]:
    """Every part of a run, in order.

    Args:
        config: what is run.
        weights: what tells the model's weights from others.
    """
    model = [config.model_class, config.dtype, weights, *map(version, NUMERICS)]
    shared = [*model, config.demonstrations, config.readings, config.batch_size, config.threads, config.memory_gib]
    found: dict[str, Part] = {}
    for given in plan(config):
        for choice in given.judges:
            check_data(choice, given)
            options = choice.parsed
            task = given if choice.spec.reads_examples(options) else given.without_examples()
            said = options.model_dump(mode="json")
            for seed in _seeds(choice, task):
                digest = digest_of([shared, task.digest, choice.judge, choice.label, said, seed])
                found.setdefault(digest, Part(task, choice, seed, digest))
    parts = list(found.values())
    return _with_reward_models(parts, config.lead) if config.keep_reward_models else parts


def _seeds(choice: JudgeChoice, task: Task) -> Sequence[int]:
    """A judge in which nothing is random needs no second seed; one that has seeds of its own has them on every sample."""
    if not choice.spec.random(choice.parsed):
        return range(1)
    return range(choice.seeds) if choice.seeds else range(task.first_seed, task.first_seed + task.seeds)


def _with_reward_models(parts: Sequence[Part], lead: str) -> list[Part]:
    """The parts, with a name for the reward model of each fit of the lead judge.

    It is ``{subset}-{seed}``, with whatever else it takes to tell them apart: study, number of examples, noise, sample.
    """
    keys = {part.digest: part.fields for part in parts if part.choice.label == lead}
    more = [name for name in ("benchmark", "n_examples", "noise", "sample") if _varies(list(keys.values()), name)]
    names: dict[str, str] = {}
    for digest, key in keys.items():
        front = [key["benchmark"]] if "benchmark" in more else []
        settings = [f"{name}_{key[name]:g}" for name in more if name != "benchmark"]
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join([*front, key["subset"], *settings, str(key["seed"])]))
        plain = plain[-120:].strip("._-") or "reward_model"
        name, count, taken = plain, 1, {one.lower() for one in names.values()}
        while name.lower() in taken:
            count += 1
            name = f"{plain}-{count}"
        names[digest] = name
    return [Part(part.task, part.choice, part.seed, part.digest, names.get(part.digest)) for part in parts]


def _varies(keys: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether parts of one subset and seed differ in this."""
    seen: dict[tuple[Any, Any], set[Any]] = {}
    for key in keys:
        seen.setdefault((key["subset"], key["seed"]), set()).add(key[name])
    return any(len(values) > 1 for values in seen.values())


def name_of_weights(model: LanguageModel) -> str:
    """Of the weights, how they are asked, and on which kind of device."""
    questions = [default_template(model), model.tokenizer.chat_template, model.device.type]
    return hashlib.sha256(fingerprint(model).numpy().tobytes() + repr(questions).encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------ on disk


def store_in(out: Path) -> Store:
    """The store of a run's parts."""
    return Store(out / PARTS)


def missing_parts(parts: Sequence[Part], out: Path) -> list[Part]:
    """Those that have to be made: not there, or without the reward model that was saved with them."""
    store, there = store_in(out), store_in(out).found()
    return [part for part in parts if part.digest not in there or not _has_reward_model(part, store, out)]


def _has_reward_model(part: Part, store: Store, out: Path) -> bool:
    if part.reward_model is None:
        return True
    saved = store.read_frame(part.digest)[1].get("reward_model")
    return saved is not None and saved == digest_of_files(out / REWARD_MODELS / part.reward_model)


def save_part(part: Part, items: pd.DataFrame, fit: Mapping[str, Any], judge: Any, out: Path) -> None:
    """Keep a part: first its reward model, if that is kept, then the part, which names it.

    Args:
        part: which.
        items: of `arm_lens.benchmark.items.items_of`.
        fit: what is known of the fit, among it `FIT_FIELDS`.
        judge: the judge, which may have chosen heads.
        out: the run's folder.
    """
    record = record_of(fit, judge)
    if part.reward_model is not None:
        record["reward_model"] = digest_of_files(judge.save(out / REWARD_MODELS / part.reward_model))
    store_in(out).put_frame(part.digest, items, name=part.title, about=record)


def digest_of_files(path: Path) -> str | None:
    """A digest of the names and bytes of all files in a folder, hidden ones apart; None if there are none."""
    files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    known = [[one.relative_to(path).as_posix(), digest_of_bytes(one.read_bytes())] for one in files]
    return digest_of(known) if known else None


def record_of(fit: Mapping[str, Any], judge: Any) -> dict[str, Any]:
    """What is known of a fit, for JSON: `FIT_FIELDS`, the judge's heads if it has some, their scores, and the search."""
    found: dict[str, Any] = {"fit": {name: fit.get(name) for name in FIT_FIELDS}}
    heads = getattr(judge, "heads", None)
    if heads is None:
        return found
    found["fit"] |= {"n_heads": len(heads), "heads": heads.to_list()}
    selection = getattr(judge, "selection", None)
    scores = getattr(judge if selection is None else selection, "head_scores", None)
    values = heads.mask.float() if scores is None else scores.values.detach().float().cpu()
    history = None if selection is None or selection.history.empty else selection.history.to_dict(orient="list")
    by = GIVEN if scores is None else scores.name
    return {**found, "heads": heads.to_list(), "scores": values.tolist(), "by": by, "history": history}


def head_frames(judge: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per head of the model, and one row per step of the search, of a judge that has heads.

    Returns:
        Heads: layer, head, score, by (what the score is; ``given`` for heads that were not searched for), probability (of
        selection, where the score is that), selected. History: step, reward, ...; empty without a search.
    """
    return _frames_in(record_of({}, judge))


def _frames_in(record: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same from a `record_of`; both are empty for a judge without heads."""
    if "scores" not in record:
        return pd.DataFrame(), pd.DataFrame()
    values = torch.tensor(record["scores"], dtype=torch.float64)
    chosen = {(layer, head) for layer, head in record["heads"]}
    places = [(layer, head) for layer in range(values.shape[0]) for head in range(values.shape[1])]
    heads = pd.DataFrame(places, columns=["layer", "head"])
    heads["score"], heads["by"] = values.flatten().numpy(), record["by"]
    heads["probability"] = heads["score"].where(heads["by"] == SCORE)
    heads["selected"] = [place in chosen for place in places]
    return heads, pd.DataFrame(record["history"] or {})


def read_parts(parts: Sequence[Part], out: Path) -> Iterator[tuple[Part, pd.DataFrame, dict[str, Any]]]:
    """The items and the record of each part.

    Raises:
        DamagedFileError: naming a part's file that is not what was written.
    """
    store = store_in(out)
    for part in parts:
        yield part, *store.read_frame(part.digest)


def gather(made: Iterable[tuple[Part, pd.DataFrame, Mapping[str, Any]]]) -> BenchmarkItems:
    """Parts with their items and records, in order, as tables."""
    items: list[pd.DataFrame] = []
    heads: list[pd.DataFrame] = []
    histories: list[pd.DataFrame] = []
    fits: list[dict[str, Any]] = []
    tests: list[TestSet] = []
    for part, table, record in made:
        items.append(table)
        fit = {**record["fit"], **({"reward_model": part.reward_model} if part.reward_model else {})}
        if any(value is not None for value in fit.values()):
            fits.append({**part.fields, **fit})
        for frame, found in zip(_frames_in(record), (heads, histories), strict=True):
            if len(frame):
                names = ("criterion" if name == "subset" else name for name in PART_FIELDS)
                front = {name: [value] * len(frame) for name, value in zip(names, part.fields.values(), strict=True)}
                found.append(pd.DataFrame(front).join(frame))
        tests.append(part.task.test)
    return BenchmarkItems(_joined(items), pd.DataFrame(fits), _joined(heads), _joined(histories), texts_of(tests))


def texts_of(tests: Sequence[TestSet]) -> pd.DataFrame:
    """The responses that are judged one by one, each once: benchmark, subset, item, prompt, response."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for test in {one.digest: one for one in tests}.values():
        for item, single in singles_of(test):
            row: dict[str, Any] = {"benchmark": singles_name(test), "subset": item.subset, "item": single.id}
            found.setdefault((*row.values(),), {**row, "prompt": single.prompt, "response": single.response})
    return pd.DataFrame(list(found.values()))


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
