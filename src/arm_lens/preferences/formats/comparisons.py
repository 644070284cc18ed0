"""LLMBar, EvalBiasBench and PandaLM: two answers to a prompt, and which of them is better."""

from __future__ import annotations

from collections import Counter

from arm_lens.preferences.formats.registry import Format, TieError
from arm_lens.preferences.formats.rows import Part, Record
from arm_lens.preferences.types import Preference, PreferenceFieldError, short_repr

_LLMBAR_SUBSETS = ("Natural", "Neighbor", "GPTInst", "GPTOut", "Manual")


def _read_llmbar(record: Record) -> list[Preference]:
    """A pair. The subset is the folder of the file (``Adversarial/Neighbor/dataset.json``), unless a column names it.

    The benchmark's folder, its folder ``Adversarial`` and the folder of a subset can each be read as a whole.
    """
    better = record.choice("label", ("1", "2"))
    subset = record.text("subset") or _llmbar_subset(record.path)
    pair = record.pair(
        prompt=record.part("input"),
        chosen=record.part(f"output_{better}"),
        rejected=record.part(f"output_{3 - int(better)}"),
        id=record.text("id") or (f"{subset}:{record.number}" if subset else ""),
        used=("id", "subset"),
        known={"subset": subset},
    )
    return [pair]


def _llmbar_subset(path: tuple[str, ...]) -> str:
    """The subset named by the file's folders; empty if there is none."""
    *_, above, folder = ("", "", *path[:-1])
    if folder not in _LLMBAR_SUBSETS:
        return ""
    return f"{above}/{folder}" if above == "Adversarial" else folder


def _read_evalbiasbench(record: Record) -> list[Preference]:
    """A pair, of which ``response1`` is the better one."""
    if record.text("label") not in ("", "1"):
        reason = f"is {record.text('label')}, but in EvalBiasBench the better response is always response1"
        raise PreferenceFieldError("label", reason)
    pair = record.pair(
        prompt=record.part("instruction"),
        chosen=record.part("response1"),
        rejected=record.part("response2"),
        id=record.text("id"),
        used=("id", "bias"),
        known={"subset": record.text("bias")},
    )
    return [pair]


def _read_pandalm(record: Record) -> list[Preference]:
    """A pair, if two of the three annotators prefer the same response.

    The prompt is the instruction, an empty line and the input; if either is blank, the other alone. A few responses are
    true or false in the JSON instead of text: they are read as the words ``True`` and ``False``, and listed in
    ``metadata["converted"]``.
    """
    votes = [record.choice(f"annotator{number}", ("0", "1", "2")) for number in (1, 2, 3)]
    verdict, count = Counter(votes).most_common(1)[0]
    if verdict == "0" or count == 1:
        raise TieError("the majority prefers neither response" if count > 1 else "the annotators have no majority")
    instruction = record.part("instruction")
    if not isinstance(instruction.value, str):
        raise PreferenceFieldError("instruction", f"is {short_repr(instruction.value)}, not text")
    texts = [text for text in (instruction.value, record.text("input").strip()) if text.strip()]
    prompt = Part("instruction", "\n\n".join(texts))
    parts = {name: record.part(name) for name in ("response1", "response2")}
    converted = [name for name, part in parts.items() if isinstance(part.value, bool)]
    parts |= {name: Part(name, str(parts[name].value)) for name in converted}
    pair = record.pair(
        prompt=prompt,
        chosen=parts[f"response{verdict}"],
        rejected=parts[f"response{3 - int(verdict)}"],
        id=f"{record.text('idx')}",
        used=("idx", "input"),
        known={"converted": converted} if converted else {},
    )
    return [pair]


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
        fields=(frozenset({"bias", "instruction", "response1", "response2"}),),
        read=_read_evalbiasbench,
        key_field="bias",
    ),
    Format(
        name="pandalm",
        title="PandaLM's test set (Wang et al. 2023, arXiv 2306.05087): the votes of three annotators",
        fields=(frozenset({"instruction", "response1", "response2", "annotator1", "annotator2", "annotator3"}),),
        read=_read_pandalm,
    ),
)
