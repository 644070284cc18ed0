r"""What identifies a language model as a judge uses it: template, tokenizer, activations and verdicts on fixed texts.

A fitted judge, a stored result and a reference model are valid for one language model. Its name says little: a folder may
have other weights, another chat template or another tokenizer tomorrow. So an `Fingerprint` is measured on a few fixed texts:

1. they are rendered as the judge's questions, through its template and the tokenizer's chat template;
2. the tokenizer encodes the rendered prompts, and texts in several scripts;
3. the model reads the prompts, and a sequence of token ids that depends on neither: ``hook_z`` at the last token of every
   layer identifies what the layers compute;
4. the log-probabilities of the verdicts' tokens identify the rest, the last MLP, the final norm and the unembedding.

The first two are compared exactly, by digest; the others within the rounding of the dtype, so that another device, kernel
or number of threads is still the same model. Rounding hides a light fine-tune, and few texts hide a change of other tokens'
embeddings: so the bits of all weights are compared too, if both models have them in the same form (class, dtype, processing,
version of TransformerLens). The model is read without steering and without anybody's hooks.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch
from jaxtyping import Float
from torch import Tensor

from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.model_info import sum_of_bits
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.reading import probe_sequence, read_unsteered
from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.engine.verdict_tokens import VerdictPieceWarning
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import Question, render_question, verdict_tokens_of, with_template
from arm_lens.judges.template import JudgeTemplate
from arm_lens.storage import digest_of, digest_of_bytes

TEXTS = (
    ("How is the hotel near the river?", "It is warm and quiet, and the rooms are small.", "It is cold."),
    ("Name 3 colours.\n\n- in a list\n- in English", "1. red\n2. green\n3. blue", "Red, GREEN & 'blue' (0.5 each)!"),
)
"""A prompt and two responses each."""
SCRIPTS = (
    "The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX: 0123456789, 3.14 + 2 = 5 @ 50 %?",
    "def f(x):\n\treturn {'a': [x, None]}  # \\n <s> </s> <pad> [INST] <|im_start|>\n",
    "Straße, naïve café, Ελληνικά, русский, العربية, हिन्दी, 中文, 日本語, 한국어, 👩‍🚀",
    " Yes\nNo yes NO A B",
)
"""Further texts, on which tokenizers differ."""
OTHER_TOKENS = 64
"""Tokens, spread over the vocabulary, whose logits are compared in addition to those of the verdicts."""
LEAST_LOGIT = -1e4
"""Tokens that a model rules out have logits of minus infinity."""
TOLERANCE = {"float64": 1e-3, "float32": 1e-3, "float16": 5e-3, "bfloat16": 3e-2}
"""The largest difference allowed, relative to the largest value, by dtype: a few units in its last place, room for another
device, class or kernel, but not for another weight processing or, in float32, a fine-tune. (With weights in float64,
some kernels and rotary positions still compute in float32.)"""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What a language model makes of fixed texts; see the module. `difference` compares two."""

    prompts: str
    """A digest of the rendered prompts."""
    tokens: str
    """A digest of their token ids, of those of the texts in several scripts, and of the vocabulary without added tokens."""
    weights: str
    """Two digests: of the form of the weights, and of their bits."""
    activations: Float[Tensor, "text layer head d_head"]
    """``hook_z`` at the last token of a fixed sequence of token ids, and of each rendered prompt that fits."""
    logits: Float[Tensor, "text token"]
    """After the same sequences, the logits of the verdicts' tokens and of a few others, and last the logsumexp of all."""
    dtype: str
    """The dtype of the weights."""
    digest: str = ""
    """Equal if all this and all other logits are equal to the last bit, and images are read alike: a key for results."""

    def difference(self, other: Fingerprint) -> str | None:
        """What distinguishes another model from this one, as the end of a sentence about the other; None if nothing does.

        Numbers are compared within the rounding of the coarser of the two dtypes.
        """
        if self.prompts != other.prompts:
            return "renders the same question as another text: its chat template differs"
        if self.tokens != other.tokens:
            return "encodes the same text as other tokens: its tokenizer differs"
        allowed = max(TOLERANCE[self.dtype], TOLERANCE[other.dtype])
        ours, theirs = self.logits, other.logits
        for what, one, two, scale in (
            ("activations", self.activations, other.activations, self.activations),
            (
                "verdicts from the same activations",
                ours - ours[:, -1:],
                theirs - theirs[:, -1:],
                ours[ours > LEAST_LOGIT],
            ),
        ):
            if one.shape != two.shape:
                return f"computes {what} of shape {list(two.shape)}, not {list(one.shape)}"
            share = float((one - two).abs().max() / scale.abs().max())
            if not share <= allowed:  # a difference that is not a number is one too
                return f"computes other {what}: they differ by {share:.1%} on fixed texts, rounding by at most {allowed:.1%}"
        (form, _, bits), (other_form, _, other_bits) = self.weights.partition("-"), other.weights.partition("-")
        return "has other weights, though similar ones" if form == other_form and bits != other_bits else None


def fingerprint_of(
    model: ModelLike, question: QuestionOptions | None = None, demonstrations: Sequence[Question] = ()
) -> Fingerprint:
    """Measure a model's fingerprint: how a judge sees it that puts such questions after such demonstrations.

    Without a question the texts are put through the model's own template, and no token is singled out as a verdict.

    Raises:
        ValueError: if the questions cannot be put to this model.
        NotFiniteError: if the model computes numbers that are not finite for every text.
    """
    model = language_model(model)
    options = with_template(model, question or QuestionOptions())
    template, rendered, sequences = options.template or JudgeTemplate(), [], [probe_sequence(model)]
    for number, context in enumerate([(), (), tuple(demonstrations)] if demonstrations else [(), ()]):
        prompt, response, other = TEXTS[number % len(TEXTS)]
        scalar = options.layout == "scalar"
        prompt = prompt if template.takes_prompt(options.layout) else ""
        text = template.question(prompt, response) if scalar else template.ranked_question(prompt, response, other)
        try:
            whole = render_question(model.tokenizer, options, Question(text, True, f"fixed text {number}"), context)
        except ValueError as error:
            if question is not None:
                raise
            rendered.append(f"the model's own template cannot be used: {error}")
            continue
        rendered.append(str(whole))
        with contextlib.suppress(PromptTooLongError):
            sequences += model.encode([whole], chat=template.is_chat(model.tokenizer))
    scripts = [model.tokenizer.encode(text, add_special_tokens=False) for text in SCRIPTS]
    activations, logits = _read(model, sequences)
    spread = range(0, model.d_vocab, max(1, model.d_vocab // OTHER_TOKENS))
    tokens = [*dict.fromkeys([*_verdict_tokens(model, question and options), *spread])]
    compared = torch.cat([logits[:, tokens].clamp(min=LEAST_LOGIT), logits.logsumexp(dim=-1, keepdim=True)], dim=-1)
    added = model.tokenizer.get_added_vocab()
    vocabulary = sorted(one for one in model.tokenizer.get_vocab().items() if one[0] not in added)
    dtype, prompts, ids = model.info.dtype, digest_of(rendered), digest_of([sequences, scripts, vocabulary])
    weights = _weights(model)
    numbers = [digest_of_bytes(one.numpy().tobytes()) for one in (activations, logits)]
    pixels = [] if model.images is None else [model.images.backend, model.images.settings]
    digest = digest_of([dtype, prompts, ids, weights, *numbers, *pixels])
    return Fingerprint(prompts, ids, weights, activations, compared, dtype, digest)


def _weights(model: LanguageModel) -> str:
    info = model.info
    form = [info.model_class, info.dtype, info.weight_processing, version("transformer-lens")]
    # What was computed, by folding norms, say, is rounded otherwise on another device.
    sums = {sum_of_bits(one) for one in model.parameters()} if info.weight_processing == "raw" else {0}
    return f"{digest_of(form)}-{digest_of(sorted(sums))}"


def _read(model: LanguageModel, sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """What can be read: in float16, a text may overflow that no question is like, and a fit is not to be lost by it."""
    read, errors = [], []
    for sequence in sequences:
        try:
            read.append(read_unsteered(model, [sequence]))
        except NotFiniteError as error:
            errors.append(error)
    if not read:
        raise errors[0]
    activations, logits = (torch.cat(parts) for parts in zip(*read, strict=True))
    return activations, logits


def _verdict_tokens(model: LanguageModel, options: QuestionOptions | None) -> tuple[int, ...]:
    if options is None:
        return ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerdictPieceWarning)  # the judge itself has warned
        verdicts = verdict_tokens_of(model.tokenizer, options)
    return (*verdicts.positive, *verdicts.negative)
