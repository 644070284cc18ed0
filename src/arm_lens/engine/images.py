"""Images in prompts: from a mark in a text to placeholder tokens, and from these to pixels.

In a text an image is a mark of its content (`arm_lens.preferences.images`). What the model's processor makes of the image
decides how many placeholder tokens stand for it. In a list of token ids these are negative numbers, made of the image and
of the place within it, so that prompts with different images are different lists: what prompts have in common, what was
read before, and what is padded is found as for text. When the tokens are read (`ImageReader.inputs`), the model's own
placeholder takes their place, and the processor gives the pixels.

The processor is the model's own. An image is never cut: all of its tokens are read in the same pass, because some models'
image tokens attend to each other in both directions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import AutoProcessor, PreTrainedTokenizerBase

from arm_lens.engine.tokens import MarkedText, PromptError, encode_text
from arm_lens.preferences.images import Image, split_at_images

PLACE_BITS, KEY_BITS = 21, 42
"""Of the negative token ids: which of an image's placeholders it is, and which image."""
TYPES = ("mm_token_type_ids", "token_type_ids")
"""What processors call the tensor that says of each token whether it stands for an image."""
OF_TEXT = ("input_ids", "attention_mask", *TYPES)
"""What processors return for the tokens; the rest is for the pixels."""
NAMES = ("processor_class", "image_processor_type")
"""What in a processor's settings are names of classes."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
EDGES = frozenset("\ufdd0\ufdd1")
"""The characters at the edges of marks."""

_TOKENS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, str] = weakref.WeakKeyDictionary()
"""What stands for an image in the chat templates of tokenizers whose models read images."""


class NoImagesError(PromptError):
    """A model cannot read a prompt, because it has an image in it."""


def image_token_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What a chat template writes for an image; None if the tokenizer's model reads text only."""
    return _TOKENS.get(tokenizer)


def has_images(tokens: Sequence[int]) -> bool:
    """Whether some of the tokens stand for an image."""
    return min(tokens, default=0) < 0


def beyond_image(text: str, at: int) -> int:
    """The first place from ``at`` on where a text can be cut, which is not within the mark of an image."""
    start = 0
    for piece in split_at_images(text):
        end = start + len(piece.mark if isinstance(piece, Image) else piece)
        if isinstance(piece, Image) and start < at < end:
            return end
        start = end
    return at


def pieces_of(text: str) -> list[MarkedText | Image]:
    """A text cut at its images, with the parts of it that were given."""
    whole, pieces, start = MarkedText.joined([text]), list[MarkedText | Image](), 0
    for piece in split_at_images(text):
        end = start + len(piece.mark if isinstance(piece, Image) else piece)
        pieces.append(piece if isinstance(piece, Image) else whole.between(start, end))
        start = end
    return pieces


@dataclass(frozen=True)
class Patches:
    """Which of an image's placeholders are a picture of the whole, row by row; others are of tiles, or separate rows."""

    start: int
    rows: int
    columns: int
    region: tuple[float, float, float, float]
    """Left, top, right and bottom of what they show, as shares of width and height."""


@dataclass(frozen=True)
class _Placed:
    """An image as it is read in a prompt."""

    image: Image
    text: str
    """What the processor writes for it."""
    count: int
    """How many of the tokens of this text are placeholders."""
    patches: Patches | None
    """None if it is not known how the processor cuts images."""


@dataclass(frozen=True)
class SeenImage:
    """An image in a prompt of token ids."""

    image: Image
    positions: list[int]
    """Those of its placeholders."""
    patches: Patches | None


class ImageReader:
    """What a model's processor makes of images.

    Args:
        processor: the model's, with its tokenizer and its image processor.
        tokenizer: the model's tokenizer, as arm_lens uses it.
        config: the model's config.

    Raises:
        ValueError: if the processor or the config does not say which token stands for an image.
    """

    def __init__(self, processor: Any, tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
        token, placeholder = getattr(processor, "image_token", None), getattr(config, "image_token_id", None)
        if not isinstance(token, str) or not isinstance(placeholder, int):
            raise ValueError(f"{type(processor).__name__} does not say which token stands for an image")
        self.processor, self.tokenizer, self.token, self.placeholder = processor, tokenizer, token, placeholder
        self.both_ways = False
        """Whether tokens of an image attend to each other in both directions (Gemma), known once there was an image."""
        self._placed: dict[int, _Placed] = {}
        _TOKENS[tokenizer] = token

    @property
    def backend(self) -> str:
        """The class that makes pixels of an image: those of PIL and of torchvision differ a little."""
        return type(self.processor.image_processor).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """How the processor makes tokens and pixels of an image: sizes, tiles, means; without the names of classes."""
        own, pixels = self.processor.to_dict(), json.loads(self.processor.image_processor.to_json_string())
        known = {name: value for name, value in own.items() if isinstance(value, (str, int, float, bool))}
        return {name: value for name, value in (known | pixels).items() if name not in NAMES}

    # ------------------------------------------------------------------------------------------ from text to tokens

    def encode(self, text: str, name: str = "a text") -> list[int]:
        """The token ids of a text with marks of images; negative ones stand for images.

        Raises:
            PromptError: naming the text, if it has a part of a mark, or the processor does not read an image.
        """
        try:
            return self._encoded(text)
        except PromptError as error:
            raise type(error)(f"{name}: {error}") from error

    def _encoded(self, text: str) -> list[int]:
        pieces = pieces_of(text)
        if cut := next((one for one in pieces if isinstance(one, str) and EDGES & {*one}), None):
            raise PromptError(f"a part of an image's mark is in the text: {cut[:40]!r}")
        keys = self._keys_of([one for one in pieces if isinstance(one, Image)], text)
        places = iter(keys)
        written = [self._placed[next(places)].text if isinstance(one, Image) else one for one in pieces]
        ids = encode_text(self.tokenizer, MarkedText.joined(written))
        ours = iter([_token(key, place) for key in keys for place in range(self._placed[key].count)])
        found = [next(ours, None) if one == self.placeholder else one for one in ids]
        if None in found or next(ours, None) is not None:
            raise PromptError(
                f"the tokenizer reads {ids.count(self.placeholder)} placeholders of images where the processor has "
                f"{sum(self._placed[key].count for key in keys)}"
            )
        return [one for one in found if one is not None]

    def _keys_of(self, images: Sequence[Image], text: str) -> list[int]:
        """The key of each image of a prompt, by which it is found again when its tokens are read."""
        alone = [self._place([image], 0, "") for image in images]
        if len(images) < 2 or self._placeholders(images) == sum(self._placed[key].count for key in alone):
            return alone
        # Some processors cut an image that is alone in its prompt into more tiles. Then the images of a prompt belong to it,
        # and are not shared with prompts that begin alike.
        return [self._place([image] * len(images), number, str(text)) for number, image in enumerate(images)]

    def _place(self, images: Sequence[Image], number: int, prompt: str) -> int:
        """Find out what the processor writes for an image in a prompt with so many, and store it under its key."""
        image = images[0]
        name = repr((image.digest, len(images), number, prompt)) if prompt else image.digest
        key = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 64 - KEY_BITS
        known = self._placed.get(key)
        if known is None:
            found = self._accepted(images)
            self.both_ways = self.both_ways or _marks_images(found, "token_type_ids")
            ids = found["input_ids"][0].tolist()
            ids = ids[: len(ids) // len(images)]
            count = ids.count(self.placeholder)
            text = self._written(ids)
            if count >= 1 << PLACE_BITS or encode_text(self.tokenizer, text) != ids:
                raise PromptError(f"{image.name}: the tokenizer does not read what the processor writes for an image")
            known = self._placed[key] = _Placed(image, text, count, self._patches(image, found, count))
        if known.image.digest != image.digest:
            raise PromptError(f"{image.name} and {known.image.name} have the same key")  # one in 10^12 pairs
        return key

    def _written(self, ids: Sequence[int]) -> str:
        """The text of tokens, control tokens as they are."""
        control = set(self.tokenizer.added_tokens_decoder)
        pieces = []
        for is_control, some in groupby(ids, lambda one: one in control):
            part = list(some)
            names = [str(self.tokenizer.added_tokens_decoder[one]) for one in part] if is_control else []
            pieces.append("".join(names) if is_control else str(self.tokenizer.decode(part)))
        return "".join(pieces)

    def _placeholders(self, images: Sequence[Image]) -> int:
        return int((self._accepted(images)["input_ids"] == self.placeholder).sum())

    def _accepted(self, images: Sequence[Image]) -> dict[str, Tensor]:
        """What the processor makes of the images of a prompt; a `NoImagesError` if it does not accept them."""
        try:
            return self._processed([images])
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            names = ", ".join(dict.fromkeys(f"{one.name}, {one.size[0]} x {one.size[1]}" for one in images))
            reason = " ".join(str(error).split())[:300]
            raise NoImagesError(f"{names}: {type(self.processor).__name__} does not read it ({reason})") from error

    def _processed(self, rows: Sequence[Sequence[Image]]) -> dict[str, Tensor]:
        """What the processor makes of the images of each row, and of a text of nothing else."""
        found = self.processor(
            text=[self.token * len(row) for row in rows],
            images=[[image.open() for image in row] for row in rows],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        )
        return dict(found)

    def forget(self, digest: str) -> None:
        """Forget what is known of an image; prompts that were encoded with it cannot be read any more."""
        for key in [key for key, placed in list(self._placed.items()) if placed.image.digest == digest]:
            self._placed.pop(key, None)

    # ------------------------------------------------------------------------------------------ from tokens to pixels

    def inputs(self, tokens: Int[Tensor, "row pos"]) -> tuple[Int[Tensor, "row pos"], dict[str, Tensor]]:
        """Tokens with the model's own placeholder, and what the model reads besides, on the tokens' device.

        Raises:
            ValueError: if an image is cut.
        """
        stands = tokens < 0
        if not bool(stands.any()):
            return tokens, {}
        rows = [[one.image for one in self.seen_in(row.tolist())] for row in tokens]
        found = self._processed([row for row in rows if row])
        pixels = {name: value.to(tokens.device) for name, value in found.items() if name not in OF_TEXT}
        types = {name: stands.long() for name in TYPES if _marks_images(found, name)}
        return tokens.masked_fill(stands, self.placeholder), pixels | types

    def seen_in(self, tokens: Sequence[int]) -> list[SeenImage]:
        """The images in a prompt, in order.

        Raises:
            ValueError: if one is cut.
        """
        negative, found, at = [place for place, one in enumerate(tokens) if one < 0], list[SeenImage](), 0
        while at < len(negative):
            key = (-1 - tokens[negative[at]]) >> PLACE_BITS
            placed = self._placed[key]
            positions = negative[at : at + placed.count]
            if [tokens[one] for one in positions] != [_token(key, place) for place in range(placed.count)]:
                raise ValueError(f"{placed.image.name} is cut: all tokens of an image are read together")
            found.append(SeenImage(placed.image, positions, placed.patches))
            at += placed.count
        return found

    def described(self, tokens: Sequence[int]) -> str:
        """A prompt as text, each image as ``[image 1a2b3c4d, 640 x 480]`` in place of its first placeholder."""
        first = {one.positions[0]: str(one.image) for one in self.seen_in(tokens)}
        pieces = []
        for stands, some in groupby(enumerate(tokens), lambda one: one[1] < 0):
            part = [*some]
            if stands:
                pieces += [first[place] for place, _ in part if place in first]
            else:
                pieces.append(str(self.tokenizer.decode([token for _, token in part])))
        return "".join(pieces)

    def _patches(self, image: Image, processed: Mapping[str, Tensor], count: int) -> Patches | None:
        """Where in an image's placeholders the picture of the whole is, as far as its processor says."""
        pixels = self.processor.image_processor
        if "image_grid_thw" in processed:  # Qwen-VL: no tiles
            rows, columns = (int(one) // pixels.merge_size for one in processed["image_grid_thw"][0, 1:])
            return Patches(0, rows, columns, WHOLE)
        names = ("image_seq_len", "num_image_tokens", "image_seq_length")
        own = [one for one in (getattr(self.processor, name, None) for name in names) if isinstance(one, int)]
        whole = own[0] if own else count
        if "image_sizes" in processed and not own:  # LLaVA-NeXT: the picture of the whole comes first
            size = processed["pixel_values"].shape[-1]
            whole = (size // int(self.processor.patch_size)) ** 2
        side = math.isqrt(whole)
        if side * side != whole or whole > count:
            return None
        width, height = image.size
        cropped = getattr(pixels, "do_center_crop", False) and "image_sizes" not in processed
        across, down = (min(1.0, height / width), min(1.0, width / height)) if cropped else (1.0, 1.0)
        region = ((1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2)
        last = "pixel_attention_mask" in processed  # Idefics: it comes after the tiles
        return Patches(count - whole if last else 0, side, side, region)


def _marks_images(processed: Mapping[str, Tensor], name: str) -> bool:
    """Whether a processor gives the tensor, and it says which tokens stand for images; those of BERT are about sentences."""
    return name in processed and bool(processed[name].any())


def _token(key: int, place: int) -> int:
    return -1 - (key << PLACE_BITS | place)


def same_image(tokens: Int[Tensor, "row pos"]) -> Bool[Tensor, "row pos pos"]:
    """Which two tokens stand for the same image in the same place."""
    stands, place = tokens < 0, (-1 - tokens) & ((1 << PLACE_BITS) - 1)
    number = (stands & (place == 0)).cumsum(dim=1)
    return (number[:, :, None] == number[:, None, :]) & stands[:, :, None] & stands[:, None, :]


def processor_of(name: str, config: Any, **hub: Any) -> tuple[Any, str | None]:
    """The processor of a model that reads images by its configuration; or why there is none. Nothing is installed."""
    if getattr(config, "vision_config", None) is None:
        return None, None
    untyped: Any = AutoProcessor
    try:
        found = untyped.from_pretrained(name, **hub)
        if not hasattr(found, "image_processor"):
            raise ValueError(f"{type(found).__name__} reads no images")
        return found, None
    except Exception as error:  # processors fail in many ways, most often because torchvision is missing
        reason = " ".join(str(error).split())[:300]
        return None, (
            f"the processor of {name} cannot be loaded ({reason}); pip install 'arm-lens[vision]' has the packages that "
            "processors need"
        )


_BOOTING = threading.Lock()


@contextlib.contextmanager
def processor_given(processor: Any) -> Iterator[None]:
    """Within, TransformerLens finds this processor, or None, for any model.

    It would look for one itself, on the hub too, and install packages if that fails. Nor does it warn that hooks of the
    vision tower have no other names: they are not used.
    """
    with _BOOTING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Hook alias .*vision")
        own = vars(AutoProcessor)["from_pretrained"]
        AutoProcessor.from_pretrained = staticmethod(lambda *_, **__: processor)  # type: ignore[method-assign]
        try:
            yield
        finally:
            AutoProcessor.from_pretrained = own  # type: ignore[method-assign]
