r"""Reading: the output of every attention head at the last token, and its mean over examples.

For a prompt that ends where the verdict is due, ``z[layer, head]`` is ``hook_z`` at the last real token. Over the
prompts of a criterion's examples, the mean

.. math:: \mu_j[l, m] = \frac{1}{n} \sum_i z_i[l, m]

is what an Activation Reward Model later writes back (arXiv 2507.01368, section 3). Only the last position of each layer
is stored, and a mean is taken as the examples are read, so that its memory depends neither on their number nor on their
length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from arm_lens.display import card, counted, score_map, size
from arm_lens.engine.finite import NotFiniteError, naming_prompts
from arm_lens.engine.hooks import Hook, silenced, without_hooks
from arm_lens.engine.language_model import ModelLike, language_model
from arm_lens.engine.sharing import recalled, remembered_of
from arm_lens.engine.tokens import TokenBatch, chunks, pad

PROBE_TOKENS = 12
"""Length of the fixed token sequence that identifies weights."""


def read_batch(model: ModelLike, batch: TokenBatch) -> Float[Tensor, "batch layer head d_head"]:
    """``hook_z`` at the last real token of each sequence, in the model's dtype, on the model's device."""
    return read_with_logits(model, batch)[0]


@torch.inference_mode()
def read_with_logits(
    model: ModelLike, batch: TokenBatch
) -> tuple[Float[Tensor, "batch layer head d_head"], Float[Tensor, "batch vocab"]]:
    """What `read_batch` gives, and the next-token logits of the same pass.

    Raises:
        NotFiniteError: if activations or logits are NaN or infinite.
    """
    model = language_model(model)
    rows = torch.arange(len(batch.tokens), device=batch.tokens.device)
    last = batch.last
    layers: list[Tensor | None] = [None] * model.n_layers

    def reader(layer: int) -> Hook:
        def read(z: Tensor) -> None:
            layers[layer] = z[rows.to(z.device), last.to(z.device)].clone()

        return read

    with model.hooked({layer: reader(layer) for layer in range(model.n_layers)}):
        logits = model.last_logits(batch)
    missing = [layer for layer, z in enumerate(layers) if z is None]
    if missing:
        raise RuntimeError(f"hook_z of layer {missing[0]} did not fire: its attention runs outside TransformerLens")
    found = [z.to(batch.tokens.device) for z in layers if z is not None]
    heads: Tensor = rearrange(found, "layer batch head d_head -> batch layer head d_head")
    model.check_rows(heads.isfinite().flatten(1).all(dim=1), "the activations (hook_z)", batch)
    return heads, logits


def read_heads(
    model: ModelLike, sequences: Sequence[Sequence[int]], *, batch_size: int = 16, progress: bool = False
) -> Iterator[Float[Tensor, "batch layer head d_head"]]:
    """Batch by batch, ``hook_z`` at the last token of token sequences, in the order given."""
    model = language_model(model)
    device = model.device
    spans = list(chunks(len(sequences), 1 if model.reads_alone(map(len, sequences)) else batch_size))
    for span in tqdm(spans, desc="reading heads", unit="batch", disable=not progress):
        with naming_prompts(range(span.start, span.stop)):
            heads = read_batch(model, pad(sequences[span], device=device))
        yield heads


def read_all(
    model: ModelLike, sequences: Sequence[Sequence[int]], *, batch_size: int = 16, progress: bool = False
) -> Float[Tensor, "example layer head d_head"]:
    """``hook_z`` at the last token of each sequence, all in memory: in the model's dtype, on the CPU.

    Within `arm_lens.engine.sharing.shared_readings` it is read once and shared: do not write into it.

    Raises:
        ValueError: if there is no sequence.
    """
    if not sequences:
        raise ValueError("there is nothing to read")
    model = language_model(model)

    def make() -> Float[Tensor, "example layer head d_head"]:
        parts = read_heads(model, sequences, batch_size=batch_size, progress=progress)
        return torch.cat([z.cpu() for z in parts])

    return remembered_of(model, ("heads", batch_size), sequences, make)


@dataclass(frozen=True, eq=False)
class HeadMeans:
    """The mean activation of every head over a number of examples."""

    values: Float[Tensor, "layer head d_head"]
    """mu[layer, head], in float32 on the CPU."""
    count: int
    """How many examples were averaged."""

    def __post_init__(self) -> None:
        finite = self.values.isfinite().flatten(1).all(dim=1)
        if not bool(finite.all()):
            layer = int((~finite).int().argmax())
            raise NotFiniteError.of(
                "the means", None, layer, "read them again, in bfloat16 or float32 if it was in float16"
            )

    def __repr__(self) -> str:
        n_layers, n_heads, d_head = self.values.shape
        return f"HeadMeans({size(n_layers, n_heads)}, d_head {d_head}, over {counted(self.count, 'example')})"

    def _repr_html_(self) -> str:
        n_layers, n_heads, d_head = self.values.shape
        facts = {"shape": f"{size(n_layers, n_heads)}, d_head {d_head}", "shade": "the norm of each head's mean"}
        return card(f"Means over {counted(self.count, 'example')}", facts, score_map(self.values.norm(dim=-1)))


class RunningMean:
    """A streaming mean of per-head activations; batches may come in any number and size.

    The mean is accumulated in float64, whatever the model's dtype.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def update(self, z: Float[Tensor, "batch layer head d_head"]) -> None:
        """Add a batch of examples."""
        total = z.cpu().double().sum(dim=0)  # on the CPU, so that sums are the same on every device
        self._sum = total if self._sum is None else self._sum + total
        self._count += len(z)

    def result(self) -> HeadMeans:
        """The mean over all batches.

        Raises:
            ValueError: if there was no example.
        """
        if self._sum is None or self._count == 0:
            raise ValueError("there is no mean of no examples")
        return HeadMeans((self._sum / self._count).float(), self._count)


def mean_heads(
    model: ModelLike, sequences: Sequence[Sequence[int]], *, batch_size: int = 16, progress: bool = False
) -> HeadMeans:
    """The mean of ``hook_z`` at the last token over token sequences.

    Within `arm_lens.engine.sharing.shared_readings` it is read once, or taken from what `read_all` has read.
    """
    model = language_model(model)

    def make() -> HeadMeans:
        mean = RunningMean()
        known = recalled(model, ("heads", batch_size), sequences)
        if isinstance(known, Tensor):
            parts: Iterator[Tensor] = iter(torch.split(known, batch_size))
        else:
            parts = read_heads(model, sequences, batch_size=batch_size, progress=progress)
        for z in parts:
            mean.update(z)
        return mean.result()

    return remembered_of(model, ("means", batch_size), sequences, make)


def read_unsteered(
    model: ModelLike, sequences: Sequence[Sequence[int]]
) -> tuple[Float[Tensor, "text layer head d_head"], Float[Tensor, "text vocab"]]:
    """``hook_z`` at the last token of each sequence and its next-token logits, in float32 on the CPU, of the model itself.

    Nobody's steering and no hook takes part, and no other thread uses the model meanwhile. Sequences are read one by one, so
    that none depends on the padding of another.
    """
    model = language_model(model)
    with model.exclusive(), without_hooks(model.modules()), silenced():
        read = [read_with_logits(model, pad([sequence], device=model.device)) for sequence in sequences]
    activations, logits = (torch.cat([one.float().cpu() for one in parts]) for parts in zip(*read, strict=True))
    return activations, logits


def probe_sequence(model: ModelLike) -> list[int]:
    """A few token ids that depend on the size of the vocabulary only."""
    most = min(language_model(model).d_vocab, 1000)
    return [number * 7 % most for number in range(1, PROBE_TOKENS + 1)]


def fingerprint(model: ModelLike) -> Float[Tensor, "layer head d_head"]:
    """``hook_z`` at the last of a few fixed tokens, which identifies the weights of the model's layers.

    Models with the same fingerprint compute the same activations, whatever their names and classes; a fine-tune, another
    revision or another weight processing changes it. Template, tokenizer and unembedding take no part:
    `arm_lens.judges.fingerprint` compares them too.
    """
    return read_unsteered(model, [probe_sequence(model)])[0][0]
