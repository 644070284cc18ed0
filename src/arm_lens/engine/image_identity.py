"""Whether a model sees what its Hugging Face module sees: logits after images are compared before images are used.

As `arm_lens.engine.identity` does for text. The expected logits are those of the raw module and of the processor as
transformers documents them, one prompt at a time; the model's own go through `ImageReader`, one prompt at a time, in a batch,
and in two parts, as the replay reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from arm_lens.engine.deviation import deviation, tolerance
from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.hooks import evaluating, without_hooks
from arm_lens.engine.images import ImageReader
from arm_lens.engine.kv_segments import NewTokens
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.tokens import TokenBatch, pad
from arm_lens.preferences.images import Image, as_image

SIZES = ((40, 24), (24, 64))
"""Of the images that are read; of different shapes, because tiles depend on them."""


@torch.inference_mode()
def image_problem(
    model: LanguageModel, reader: ImageReader, module: nn.Module, *, quantised: bool = False
) -> str | None:
    """Why images cannot be used with a model; None if it sees them as its Hugging Face module does."""
    name = f"{model.model_class} of TransformerLens {version('transformer-lens')}"
    try:
        difference = _difference(model, reader, module, tolerance(model.dtype, quantised=quantised))
    except (NotFiniteError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of an unknown architecture any error is the answer
        return f"{name} cannot read images of {model.info.architecture} ({type(error).__name__}: {error})"
    if difference is None:
        return None
    return f"{name} does not see what {model.info.architecture} of transformers sees: {difference}"


def _difference(model: LanguageModel, reader: ImageReader, module: nn.Module, allowed: float) -> str | None:
    one, other = (_sample(number, size) for number, size in enumerate(SIZES))
    prompts: list[list[str | Image]] = [
        [one, "a b"],
        ["a", other, "b", one, "c"],
        [other, "a", other, "b"],
        ["a b c d"],
    ]
    texts = ["".join(part.mark if isinstance(part, Image) else part for part in prompt) for prompt in prompts]
    sequences = [reader.encode(text) for text in texts]
    expected, modules = [], list(module.modules())
    with without_hooks(modules), evaluating(modules):
        for prompt, sequence in zip(prompts, sequences, strict=True):
            inputs = _processed(reader, prompt, model)
            if inputs["input_ids"][0].tolist() != [reader.placeholder if token < 0 else token for token in sequence]:
                return "the processor gives other tokens"
            expected.append(module(**inputs).logits[0, -1].float().cpu())
    ways: dict[str, Callable[[TokenBatch], Tensor]] = {"": model.unchecked_last_logits}
    if model.no_extension(max(map(len, sequences))) is None:
        ways["in two parts, "] = lambda batch: _in_two_parts(model, batch)
    with model.exclusive(), without_hooks(model.modules()):
        for way, read in ways.items():
            for together, batches in (("", [[one] for one in sequences]), ("in a batch, ", [sequences])):
                found = torch.cat([read(pad(batch, device=model.device)) for batch in batches])
                off = deviation(found.float().cpu(), torch.stack(expected))
                if not off <= allowed:
                    return (
                        f"{way}{together}logits after images differ by {off:.2g} standard deviations (rounding explains "
                        f"{allowed:g})"
                    )
    return None


def _in_two_parts(model: LanguageModel, batch: TokenBatch) -> Tensor:
    """Next-token logits if the last token is read after the rest, as the replay does."""
    before, last = batch.last_apart()
    return model.extend(NewTokens.following(last, [model.prefill(before)]), last_only=True)[:, -1]


def _sample(number: int, size: tuple[int, int]) -> Image:
    from PIL import Image as Pillow

    noise = torch.randint(0, 256, (3 * size[0] * size[1],), generator=torch.Generator().manual_seed(number))
    return as_image(Pillow.frombytes("RGB", size, bytes(noise.tolist())), name="a sample image")


def _processed(reader: ImageReader, prompt: list[str | Image], model: LanguageModel) -> dict[str, Tensor]:
    """What the processor makes of a prompt, as it is called by its users."""
    text = "".join(reader.token if isinstance(part, Image) else part for part in prompt)
    images: Any = [[part.open() for part in prompt if isinstance(part, Image)]]
    found = reader.processor(
        text=[text], images=images if images[0] else None, add_special_tokens=False, return_tensors="pt"
    )
    return {name: one.to(model.device, model.dtype if one.is_floating_point() else None) for name, one in found.items()}
