"""A small random chat model with a tokenizer trained on the documentation, and small files of examples."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from arm_lens import ActivationRewardModel, HeadSet, LabelledResponse, load_model, read_preferences

if TYPE_CHECKING:
    from arm_lens.engine import ModelLike

QWEN, QWEN_7B = "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
PAGES = Path(__file__).resolve().parents[3] / "docs"


def chat_model(cache: Path, layers: int = 3) -> str:
    """The folder of a random Llama with a chat template, 4 heads in each layer; made once for all pages."""
    import torch
    import transformers
    from tokenizers import ByteLevelBPETokenizer

    folder = cache / f"random-chat-{layers}"
    if folder.exists():
        return str(folder)
    special = ["<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>"]
    backend = ByteLevelBPETokenizer()
    texts = [path.read_text(encoding="utf-8") for path in PAGES.rglob("*.md")] + ["Yes\nNo\n Yes No Ja\nNein\n" * 100]
    backend.train_from_iterator(texts, vocab_size=1500, special_tokens=special, show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend._tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=4,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_csv(path: Path, header: str, *rows: tuple[object, ...]) -> None:
    """A CSV file; ``header`` has its columns, divided by commas."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def labelled(path: Path, count: int, first: int = 0) -> None:
    """Responses that are polite or not, under different prompts."""
    rows = [
        (f"Where is house {number}?", f"{'Please look' if number % 2 else 'Look'} at street {number}.", number % 2)
        for number in range(first, first + count)
    ]
    write_csv(path, "prompt,response,label", *rows)


def pairs(path: Path, count: int) -> None:
    """Pairs of a polite and an impolite response, as lines of JSON."""
    lines = [
        f'{{"prompt": "Where is house {number}?", "chosen": "Please look at {number}.", "rejected": "Look it up {number}."}}'
        for number in range(count)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def examples(folder: Path, count: int, first: int = 0) -> list[LabelledResponse]:
    """What `labelled` writes, read."""
    labelled(folder / f"from_{first}.csv", count, first)
    return read_preferences(folder / f"from_{first}.csv")


def reward_model(folder: Path, model: ModelLike, criterion: str = "polite", first: int = 1000) -> ActivationRewardModel:
    """A reward model with two heads, which are not searched for: in a random model there are none to be found."""
    heads = HeadSet.of(model.cfg.n_layers, 4, [(0, 1), (2, 3)])
    return ActivationRewardModel.fit(model, examples(folder, 8, first), criterion=criterion, selector=heads)


def saved_judge(folder: Path, model: str) -> None:
    """A saved reward model in the folder ``polite``."""
    reward_model(folder, load_model(model)).save(folder / "polite")
