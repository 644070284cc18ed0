"""The bundled model's tokenizer: one token per word or mark, in lower case.

The vocabulary is the world's words and four markers, ``criterion:``, ``request:``, ``reply:`` and ``verdict:``.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from arm_lens.judge_model.world import words

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
MARKERS = ("criterion:", "request:", "reply:", "verdict:")


def build_tokenizer(context: int) -> PreTrainedTokenizerFast:
    """A word-level tokenizer for the world.

    Args:
        context: the longest text the model reads, in tokens.
    """
    vocabulary = {token: number for number, token in enumerate([PAD, BOS, EOS, UNKNOWN, *MARKERS, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    pattern = Regex(rf"(?:{'|'.join(MARKERS)})|\w+|[^\w\s]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    make: Any = PreTrainedTokenizerFast  # untyped in transformers
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=context,
    )
    return made
