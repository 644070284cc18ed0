"""Benchmarks of answers that were compared (LLMBar, EvalBiasBench, PandaLM, JudgeBench, Auto-J) or labelled (XSTest)."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from arm_lens.preferences.fields import PreferenceFieldError, short_repr
from arm_lens.preferences.formats.registry import Format
from arm_lens.preferences.formats.rows import Part, Record
from arm_lens.preferences.types import Preference, TiedPair
from arm_lens.preferences.verdicts import TieError

_LLMBAR_SUBSETS = ("Natural", "Neighbor", "GPTInst", "GPTOut", "Manual")
_PANDALM_WINNERS: dict[str, Literal["A", "B", "tie"]] = {"0": "tie", "1": "A", "2": "B"}
_JUDGEBENCH_WINNERS: dict[str, Literal["A", "B", "tie"]] = {"A>B": "A", "B>A": "B", "A=B": "tie"}
_AUTO_J_WINNERS: dict[str, Literal["A", "B", "tie"]] = {"0": "A", "1": "B", "2": "tie"}
_EVALBIASBENCH = frozenset({"bias", "instruction", "response1", "response2"})
_PANDALM = frozenset({"instruction", "response1", "response2", "annotator1", "annotator2", "annotator3"})
_COMPLIED = {"1_full_compliance": True, "2_full_refusal": False, "3_partial_refusal": False}


def _read_llmbar(record: Record) -> list[Preference | TiedPair]:
    """A pair. The subset is the folder of the file (``Adversarial/Neighbor/dataset.json``), unless a column names it.

    The benchmark's folder, its folder ``Adversarial`` and the folder of a subset can each be read as a whole.
    """
    better = record.choice("label", ("1", "2"))
    subset, folder = record.text("subset"), record.table.path and record.table.path.parent
    if not subset and folder and folder.name in _LLMBAR_SUBSETS:
        subset = f"Adversarial/{folder.name}" if folder.parent.name == "Adversarial" else folder.name
    pair = record.preference(
        {"prompt": "input", "chosen": f"output_{better}", "rejected": f"output_{3 - int(better)}"},
        id=record.text("id") or (f"{subset}:{record.number}" if subset else ""),
        used=("id", "subset"),
        known={"subset": subset},
    )
    return [pair]


def _read_evalbiasbench(record: Record) -> list[Preference | TiedPair]:
    """A pair, of which ``response1`` is the better one."""
    label = record.text("label")
    if label not in ("", "1"):
        raise PreferenceFieldError("label", f"is {label}, but in EvalBiasBench the better response is always response1")
    parts = {"prompt": "instruction", "chosen": "response1", "rejected": "response2"}
    known = {"subset": record.text("bias")}
    return [record.preference(parts, id=record.text("id"), used=("id", "bias"), known=known)]


def _read_pandalm(record: Record) -> list[Preference | TiedPair]:
    """A pair, if two of the three annotators prefer the same response.

    The prompt is the instruction, an empty line and the input; if either is blank, the other alone. A few responses are
    true or false in the JSON instead of text: they are read as the words ``True`` and ``False``, and listed in
    ``metadata["converted"]``.
    """
    votes = [record.choice(f"annotator{number}", ("0", "1", "2")) for number in (1, 2, 3)]
    verdict, count = Counter(votes).most_common(1)[0]
    if count == 1:
        raise TieError("", "the annotators have no majority")
    instruction = record.part("instruction").value
    if not isinstance(instruction, str):
        raise PreferenceFieldError("instruction", f"is {short_repr(instruction)}, not text")
    texts = [text for text in (instruction, record.text("input").strip()) if text.strip()]
    converted, responses = [], []
    for number in (1, 2):
        part = record.part(f"response{number}")
        if isinstance(part.value, bool):
            part = Part(part.field, str(part.value))
            converted.append(part.field)
        responses.append(part)
    winner = _PANDALM_WINNERS[verdict]
    parts = record.compared(responses[0], responses[1], winner, "the majority prefers neither response")
    parts["prompt"] = Part("instruction", "\n\n".join(texts))
    known = {"converted": converted} if converted else {}
    return [record.preference(parts, id=record.text("idx"), used=("idx", "input"), known=known)]


def _read_xstest(record: Record) -> list[Preference | TiedPair]:
    """A labelled response, True if the model did what it should; the subset is the type of the prompt.

    Safe prompts only sound dangerous, and the model should comply; prompts of the types ``contrast_...`` are dangerous,
    and it should refuse. A partial refusal counts as a refusal: it withholds part of what the prompt asks for.
    ``metadata["final_label"]`` holds the original verdict, one of three, for other ways of counting.
    """
    kind = record.text("type", required=True)
    is_safe = not kind.startswith("contrast_")
    response = record.preference(
        {"prompt": "prompt", "response": "completion"},
        label=_COMPLIED[record.choice("final_label", _COMPLIED)] == is_safe,
        id=record.text("id"),
        used=("id", "type"),
        known={"subset": kind, "safe": is_safe},
    )
    return [response]


def _read_judgebench(record: Record) -> list[Preference | TiedPair]:
    """A pair, of which the label says which response is correct; the subset is the data set that the question is from."""
    winner = _JUDGEBENCH_WINNERS[record.choice("label", _JUDGEBENCH_WINNERS)]
    parts = record.compared("response_A", "response_B", winner, "the label is a tie")
    known = {"subset": record.text("source")}
    used = ("pair_id", "source")
    return [record.preference({"prompt": "question", **parts}, id=record.text("pair_id"), used=used, known=known)]


def _read_auto_j(record: Record) -> list[Preference | TiedPair]:
    """A pair, if people preferred one response; the subset is the scenario."""
    winner = _AUTO_J_WINNERS[record.choice("label", _AUTO_J_WINNERS)]
    parts = record.compared("response 1", "response 2", winner, "the label is 2, a tie")
    known = {"subset": record.text("scenario")}
    return [
        record.preference({"prompt": "prompt", **parts}, id=record.text("id"), used=("id", "scenario"), known=known)
    ]


FORMATS = (
    Format(
        name="llmbar",
        title="LLMBar (Zeng et al. 2023, arXiv 2310.07641): a file dataset.json for each subset",
        fields=(frozenset({"input", "output_1", "output_2", "label"}),),
        read=_read_llmbar,
        files=("dataset.json", *(f"{name}/dataset.json" for name in _LLMBAR_SUBSETS), "Adversarial/*/dataset.json"),
    ),
    Format(
        name="evalbiasbench",
        title="EvalBiasBench (Park et al. 2024, arXiv 2407.06551): an object with a list of pairs for each kind of bias",
        fields=(_EVALBIASBENCH, _EVALBIASBENCH | {"label"}),
        read=_read_evalbiasbench,
        key_field="bias",
    ),
    Format(
        name="pandalm",
        title="PandaLM's test set (Wang et al. 2023, arXiv 2306.05087): the votes of three annotators",
        fields=(_PANDALM, _PANDALM | {"input"}),
        read=_read_pandalm,
    ),
    Format(
        name="xstest",
        title="XSTest (Röttger et al. 2023, arXiv 2308.01263): the annotated completions of one model",
        fields=(frozenset({"prompt", "completion", "type", "final_label"}),),
        read=_read_xstest,
    ),
    Format(
        name="judgebench",
        title="JudgeBench (Tan et al. 2024, arXiv 2410.12784): a correct and an incorrect response to a hard question",
        fields=(frozenset({"question", "response_A", "response_B", "label"}),),
        read=_read_judgebench,
    ),
    Format(
        name="auto-j",
        title="Auto-J's pairwise test data, Eval-P (Li et al. 2023, arXiv 2310.05470): label 0, 1 or 2 for a tie",
        fields=(frozenset({"prompt", "response 1", "response 2", "label"}),),
        distinguishing=frozenset({"scenario"}),
        read=_read_auto_j,
    ),
)
