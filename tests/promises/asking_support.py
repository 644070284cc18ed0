"""Tokenizers of every kind, chat templates as models have them, and models that always say the same."""

from __future__ import annotations

import copy
import functools
import tempfile

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import arm_lens

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
WORDS = [
    "Yes No yes no YES NO",
    " Yes No",
    "A B",
    " A B",
    "Answer: Yes",
    "Answer: No",
    "request reply garden warm cold",
] * 9

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% elif m.role == 'user' %}{{ bos_token }}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
PARTS = CHATML.replace(
    "{{ m.content }}", "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
)
LAST_ONLY = "<|im_start|>user\n{{ messages[-1].content }}<|im_end|>\n<|im_start|>assistant\n"
OPENS_A_THOUGHT = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
MAY_THINK = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
).replace(
    "{{ m.content }}", "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
)
DATED = "<|im_start|>system\nToday is {{ strftime_now('%d %B %Y') }}.<|im_end|>\n" + CHATML


def _fast(tokenizer, chat=None, special=SPECIAL, **names):
    tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"} | names
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    found.chat_template = chat
    return found


def copied(make):
    """A tokenizer that is made once and copied for each test."""
    made = functools.lru_cache(make)

    @functools.wraps(make)
    def copy_of(chat=None):
        return copy.deepcopy(made(chat))

    return copy_of


@copied
def byte_level(chat=None):
    """GPT-2's kind: the space belongs to the word that follows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, show_progress=False, special_tokens=SPECIAL
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return _fast(tokenizer, chat)


@copied
def llama_2(chat=None):
    """Llama 2's, TinyLlama's and Zephyr's kind: a space is put before every text, and a word has two spellings."""
    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    words = ["Ye", "Yes", "No", "▁Yes", "▁No"]
    pieces = [*SPECIAL, *[f"<0x{byte:02X}>" for byte in range(256)], *letters, *words]
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o"), ("▁", "Yes"), ("▁", "No")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _fast(tokenizer, chat)


@copied
def metaspace(chat=None):
    """Llama 2's kind without bytes: every word starts with a mark for the space before it, the first one too."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=[*alphabet, "▁", "\n"], show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return _fast(tokenizer, chat)


@copied
def unigram(chat=None):
    """T5's and XLM-R's kind: the most probable division into pieces; the control tokens are pieces too."""
    letters = [chr(code) for code in range(32, 127)] + ["\n", "▁"]
    pieces = [(one, 0.0) for one in SPECIAL] + [(one, -9.0) for one in letters]
    pieces += [(one, -3.0) for one in ("▁Yes", "Yes", "▁No", "No", "▁yes", "▁no")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return _fast(tokenizer, chat)


@copied
def word_piece(chat=None):
    """BERT's kind: words, and pieces that go on with ``##``."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*SPECIAL, "yes", "no", *letters, *[f"##{one}" for one in letters]]
    tokenizer = Tokenizer(models.WordPiece({one: number for number, one in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _fast(tokenizer, chat)


KINDS = {one.__name__: one for one in (byte_level, llama_2, metaspace, unigram, word_piece)}


def saying(tokenizer, token=None, *, strength=3.0, context=512, n_layers=1):
    """A model that says one token after any text, or, without one, what its random weights say."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=n_layers, num_attention_heads=2,
        max_position_embeddings=context, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        if token is None:
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        else:
            for parameter in model.parameters():
                parameter.zero_()
            model.model.embed_tokens.weight[:, 0] = 1
            model.model.norm.weight.fill_(1)
            for layer in model.model.layers:  # heads write nothing, but could
                layer.self_attn.o_proj.weight[1, 0] = 1
            model.lm_head.weight[0, 1] = 0.01
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(token), 0] = strength
    folder = tempfile.mkdtemp()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return arm_lens.load_model(folder)
