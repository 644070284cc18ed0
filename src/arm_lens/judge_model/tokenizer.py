"""The bundled model's tokenizer: one token per word or punctuation mark, in lower case.

The vocabulary consists of the special tokens, the markers ``criterion:``, ``request:``, ``reply:`` and ``verdict:``, the
world's words, and, for questions about two replies, the markers ``first:`` and ``second:`` and the verdicts ``first``
and ``second``. The vocabulary of the judge that sees begins with the same tokens, so that its language model can begin with
the same weights; the words of requests and replies about pictures and the token of an image follow.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from arm_lens.judge_model.pictures import picture_words
from arm_lens.judge_model.world import words

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
MARKERS = ("criterion:", "request:", "reply:", "verdict:")
RANKED_MARKERS = ("first:", "second:")
RANKED_VERDICTS = ("first", "second")
IMAGE = "<image>"


def build_tokenizer(context: int, *, pictures: bool = False) -> PreTrainedTokenizerFast:
    """A word-level tokenizer for the world.

    Args:
        context: the context length of the model, in tokens.
        pictures: for the judge that sees.
    """
    tokens = [PAD, BOS, EOS, UNKNOWN, *MARKERS, *words(), *RANKED_MARKERS, *RANKED_VERDICTS]
    if pictures:
        tokens += [*(word for word in picture_words() if word not in tokens), IMAGE]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    pattern = Regex(rf"(?:{'|'.join(MARKERS + RANKED_MARKERS)})|\w+|[^\w\s]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    untyped: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    fast_tokenizer: PreTrainedTokenizerFast = untyped(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=context,
        **({"extra_special_tokens": {"image_token": IMAGE}} if pictures else {}),
    )
    return fast_tokenizer
