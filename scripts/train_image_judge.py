"""Train the judge that sees from the bundled judge model: `python scripts/train_image_judge.py --out FOLDER`.

The language part begins with the bundled model's weights, which already infer a criterion from verdicts on texts. A small
patch encoder, a projector and the words for colours, forms and numbers are new. As in ``train_judge_model.py`` the steps of
the inference are supervised by linear readouts that are thrown away afterwards:

    the projected patches               which colour, which form and how many shapes the picture has
    after layer 2, at the caption's     whether it is the number, the colour, the form of the picture
        number, colour and form
    after layer 3, behind the reply     every attribute of the reply
    after layer 4, at the verdict       for every attribute, whether it agrees with the verdict
    after layer 5, at "verdict:"        the criterion

First the encoder alone learns to see; then come short sequences of two items, to learn reading; then sequences of nine. A
sequence has items with pictures or items of `arm_lens.judge_model.world` without, never both: that what was learned of one
carries over to the other is for others to measure. In half of the sequences with pictures that do not name their criterion
every verdict is reversed; so nothing can be told of a verdict before there are demonstrations.

The data of a step depends on the seed and the step alone, so that an interrupted run continues as if it had not been.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import train_judge_model as text_only
from image_judge_card import card
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from train_judge_model import CONTEXT, LOG_FILE, TEMPLATE
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from arm_lens.engine.model_info import BUNDLED_NAME, bundled_model_path
from arm_lens.judge_model.pictures import (
    CELL,
    CELLS,
    COLOURS,
    FORMS,
    NUMBERS,
    PICTURE_ATTRIBUTES,
    PICTURE_CRITERION_TEXT,
    SIZE,
    PictureItem,
    PictureWorld,
    plural,
)
from arm_lens.judge_model.tokenizer import IMAGE, build_tokenizer
from arm_lens.judge_model.world import Split
from arm_lens.judges.template import TEMPLATE_FILE
from arm_lens.storage import replacing, write_bytes, write_text

JUDGE_TEMPLATE = TEMPLATE.to_dict() | {"ranked": None}
"""As the bundled model's, but it is not taught to judge two replies about a picture side by side."""
COLOUR_NAMES = list(COLOURS)
PATCHES = CELLS**2
VERDICTS = (TEMPLATE.no[0], TEMPLATE.yes[0])


@dataclass(frozen=True)
class Recipe:
    """Everything the outcome depends on."""

    seed: int = 0
    d_vision: int = 64
    d_vision_mlp: int = 128
    vision_layers: int = 2
    vision_heads: int = 4
    seeing_steps: int = 300
    seeing_batch: int = 64
    reading_steps: int = 500
    reading_items: int = 2
    reading_batch: int = 48
    judging_steps: int = 900
    judging_items: int = 9
    judging_batch: int = 10
    text_share: float = 0.3
    """Sequences without pictures in a step, for one with them."""
    named: float = 0.25
    reversed: float = 0.5
    learning_rate: float = 1.5e-3
    warm_up: int = 50
    decay_from: float = 0.6
    final_rate: float = 0.02
    weight_decay: float = 0.05
    clip: float = 1.0
    readout_weight: float = 0.3
    language_weight: float = 0.05

    @property
    def steps(self) -> int:
        """Of all stages."""
        return self.seeing_steps + self.reading_steps + self.judging_steps

    def stage(self, step: int) -> tuple[int, int]:
        """The sequences with pictures of a step after the first stage, and their items."""
        if step < self.seeing_steps + self.reading_steps:
            return self.reading_batch, self.reading_items
        return self.judging_batch, self.judging_items

    def rate(self, step: int) -> float:
        """The learning rate's factor: warm-up in the first two stages, plateau, linear decay."""
        done = step if step < self.seeing_steps else step - self.seeing_steps
        start = self.decay_from * self.steps
        decay = 1.0 if step < start else max(self.final_rate, (self.steps - step) / (self.steps - start))
        return min(1.0, (done + 1) / self.warm_up) * decay


class Readouts(nn.Module):
    """Linear readouts for training only."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.scene = nn.ModuleList(nn.Linear(d_model, len(names)) for names in (COLOUR_NAMES, FORMS, NUMBERS))
        self.match = nn.ModuleList(nn.Linear(d_model, 1) for _ in range(3))
        self.attributes = nn.Linear(d_model, len(PICTURE_ATTRIBUTES))
        self.agreement = nn.Linear(d_model, len(PICTURE_ATTRIBUTES))
        self.criterion = nn.Linear(d_model, 2 * len(PICTURE_ATTRIBUTES))


@dataclass(frozen=True)
class Sequence:
    """Items with pictures that are judged by one criterion."""

    criterion: str
    named: bool
    reversed: bool
    items: list[PictureItem]

    def verdicts(self) -> list[bool]:
        """The verdict of each item."""
        return [item.meets(self.criterion) != self.reversed for item in self.items]


@dataclass(frozen=True)
class Batch:
    """Sequences of the same number of items with pictures, padded on the right."""

    tokens: Int[Tensor, "batch pos"]
    pixels: Float[Tensor, "picture 3 height width"]
    """Of all items, in order."""
    scenes: Int[Tensor, "picture 3"]
    """Colour, form and number of each picture, as indices."""
    at_end: Int[Tensor, "batch item"]
    """Where "verdict:" stands; the verdict itself is the next token."""
    at_form: Int[Tensor, "batch item"]
    """Where the caption ends with a form; number and colour stand before it."""
    same: Bool[Tensor, "batch item 3"]
    """Whether number, colour and form of the caption are the picture's."""
    labels: Bool[Tensor, "batch item"]
    attributes: Bool[Tensor, "batch item attribute"]
    criterion: Int[Tensor, " batch"]
    """Numbers of criteria; those of reversed ones follow."""
    named: Bool[Tensor, " batch"]


def pixels_of(items: list[PictureItem]) -> Float[Tensor, "picture 3 height width"]:
    """What the processor makes of the items' pictures."""
    stacked = torch.from_numpy(np.stack([item.pixels for item in items]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def scenes_of(items: list[PictureItem]) -> Int[Tensor, "picture 3"]:
    """Colour, form and number of each picture, as indices."""
    scenes = [item.scene for item in items]
    return torch.tensor([[COLOUR_NAMES.index(s.colour), FORMS.index(s.form), s.number - 1] for s in scenes])


def same_words(item: PictureItem) -> list[bool]:
    """Whether number, colour and form of the caption are the picture's."""
    words = set(item.reply.lower().replace(".", " ").replace("!", " ").split())
    scene = item.scene
    return [NUMBERS[scene.number - 1] in words, scene.colour in words, bool({scene.form, plural(scene.form)} & words)]


class Text:
    """Turns items into token sequences, with the template the judge is asked by."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer(CONTEXT, pictures=True)
        ids = self.tokenizer.convert_tokens_to_ids
        self.end, self.image, self.verdicts = ids("verdict:"), ids(IMAGE), ids([one.lower() for one in VERDICTS])
        self.forms = torch.tensor(ids([*FORMS, *map(plural, FORMS)]))

    def batch(self, sequences: list[Sequence]) -> Batch:
        """Sequences with the same number of items."""
        rows = []
        for one in sequences:
            questions = [TEMPLATE.question(f"{IMAGE * PATCHES}\n{item.request}", item.reply) for item in one.items]
            *before, (question, last) = [(q, VERDICTS[v]) for q, v in zip(questions, one.verdicts(), strict=True)]
            criterion = PICTURE_CRITERION_TEXT[one.criterion] if one.named else ""
            text = TEMPLATE.render(self.tokenizer, question, examples=before, criterion=criterion)
            rows.append(
                [self.tokenizer.bos_token_id, *self.tokenizer.encode(f"{text} {last}", add_special_tokens=False)]
            )
        length, shape = max(map(len, rows)), (len(sequences), len(sequences[0].items))
        tokens = torch.tensor([row + [self.tokenizer.pad_token_id] * (length - len(row)) for row in rows])
        items = [item for one in sequences for item in one.items]
        criteria = [PICTURE_ATTRIBUTES.index(s.criterion) + s.reversed * len(PICTURE_ATTRIBUTES) for s in sequences]
        return Batch(
            tokens=tokens,
            pixels=pixels_of(items),
            scenes=scenes_of(items),
            at_end=(tokens == self.end).nonzero()[:, 1].reshape(shape),
            at_form=torch.isin(tokens, self.forms).nonzero()[:, 1].reshape(shape),
            same=torch.tensor([same_words(item) for item in items]).reshape(*shape, 3),
            labels=torch.tensor([one.verdicts() for one in sequences]),
            attributes=torch.tensor([[item.meets(name) for name in PICTURE_ATTRIBUTES] for item in items]).reshape(
                *shape, -1
            ),
            criterion=torch.tensor(criteria),
            named=torch.tensor([one.named for one in sequences]),
        )

    def training_batch(self, recipe: Recipe, step: int) -> Batch:
        """The sequences with pictures of a step; they depend on the recipe's seed and the step alone."""
        world = PictureWorld("train", recipe.seed * 1_000_000 + step)
        draw, (size, count) = random.Random(f"{recipe.seed} {step}"), recipe.stage(step)

        def sequence() -> Sequence:
            named = draw.random() < recipe.named
            turned = not named and draw.random() < recipe.reversed
            return Sequence(draw.choice(PICTURE_ATTRIBUTES), named, turned, world.items(count))

        return self.batch([sequence() for _ in range(size)])


def text_batch(text: text_only.Text, recipe: Recipe, step: int) -> text_only.Batch:
    """The sequences without pictures of a step."""
    world = text_only.World("train", seed=recipe.seed * 1_000_000 + step)
    draw, (size, count) = random.Random(f"text {recipe.seed} {step}"), recipe.stage(step)
    return text.batch(
        [
            (draw.choice(text_only.NAMES), draw.random() < recipe.named, [(item,) for item in world.items(count)])
            for _ in range(max(1, round(size * recipe.text_share)))
        ]
    )


def log_verdicts(
    logits: Float[Tensor, "batch pos vocab"], batch: Batch, text: Text
) -> tuple[Float[Tensor, "batch item 2"], Bool[Tensor, "batch item"]]:
    """Log-probabilities of No and Yes; which verdicts are right."""
    due = logits[torch.arange(len(batch.tokens))[:, None], batch.at_end].log_softmax(dim=-1)[..., text.verdicts]
    return due, (due[..., 1] > due[..., 0]) == batch.labels


def scene_loss(
    features: Float[Tensor, "picture patch d"], readouts: Readouts, scenes: Int[Tensor, "picture 3"]
) -> Float[Tensor, ""]:
    """The loss of reading colour, form and number off each patch."""
    parts = [
        F.cross_entropy(read(features).flatten(0, 1), target.repeat_interleave(PATCHES))
        for read, target in zip(readouts.scene, scenes.T, strict=True)
    ]
    return torch.stack(parts).mean()


def scene_right(
    features: Float[Tensor, "picture patch d"], readouts: Readouts, scenes: Int[Tensor, "picture 3"]
) -> Bool[Tensor, "picture 3"]:
    """Whether colour, form and number are read rightly, patches taken together."""
    found = [read(features).mean(dim=1).argmax(dim=-1) for read in readouts.scene]
    return torch.stack(found, dim=-1) == scenes


def losses(
    model: LlavaForConditionalGeneration, readouts: Readouts, batch: Batch, text: Text
) -> tuple[dict[str, Float[Tensor, ""]], Bool[Tensor, "batch item"], Float[Tensor, " 3"]]:
    """The loss of each part; whether each verdict is right; how often the pictures are."""
    output = model(batch.tokens, pixel_values=batch.pixels, output_hidden_states=True)
    rows = torch.arange(len(batch.tokens))[:, None]
    verdicts, right = log_verdicts(output.logits, batch, text)
    targets = batch.tokens[:, 1:].masked_fill(batch.tokens[:, 1:] == text.image, text.tokenizer.pad_token_id)
    features = output.image_hidden_states.reshape(len(batch.pixels), PATCHES, -1)
    binary = F.binary_cross_entropy_with_logits
    states = output.hidden_states
    criterion = readouts.criterion(states[5][rows, batch.at_end])
    parts = {
        "verdict": -verdicts.gather(-1, batch.labels.long()[..., None]).mean(),
        "language": F.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=text.tokenizer.pad_token_id
        ),
        "scene": scene_loss(features, readouts, batch.scenes),
        "match": binary(
            torch.cat(
                [
                    read(states[2][rows, batch.at_form + at])
                    for read, at in zip(readouts.match, (-2, -1, 0), strict=True)
                ],
                dim=-1,
            ),
            batch.same.float(),
        ),
        "attributes": binary(readouts.attributes(states[3][rows, batch.at_end]), batch.attributes.float()),
        "agreement": binary(
            readouts.agreement(states[4][rows, batch.at_end + 1]),
            (batch.attributes == batch.labels[..., None]).float(),
        ),
        "criterion": F.cross_entropy(
            criterion.flatten(0, 1), batch.criterion[:, None].expand(-1, criterion.shape[1]).flatten()
        ),
    }
    return parts, right, scene_right(features, readouts, batch.scenes).float().mean(dim=0)


def fresh_model(recipe: Recipe, text: Text) -> LlavaForConditionalGeneration:
    """The bundled model's weights with a new encoder and new words."""
    language = LlamaForCausalLM.from_pretrained(bundled_model_path())
    language.resize_token_embeddings(len(text.tokenizer), mean_resizing=False)
    language.config._name_or_path = BUNDLED_NAME  # not a folder of this machine
    config = LlavaConfig(
        text_config=language.config,
        vision_config=CLIPVisionConfig(
            hidden_size=recipe.d_vision,
            intermediate_size=recipe.d_vision_mlp,
            num_hidden_layers=recipe.vision_layers,
            num_attention_heads=recipe.vision_heads,
            image_size=SIZE,
            patch_size=CELL,
            projection_dim=recipe.d_vision,
        ),
        image_token_index=text.image,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    return model


def processor(text: Text) -> LlavaProcessor:
    """What makes tokens and pixels of texts and pictures."""
    pixels = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(
        pixels,
        text.tokenizer,
        patch_size=CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def update(
    both: nn.ModuleDict, optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, text: Text, words: text_only.Text
) -> dict[str, float]:
    """One step; gives the losses, and the accuracy on the last item of sequences that do or do not name the criterion."""
    row: dict[str, float] = {"step": step}
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * recipe.rate(step)
    optimizer.zero_grad()
    model, weights = both["model"], {"verdict": 1.0, "language": recipe.language_weight}
    if step < recipe.seeing_steps:
        items = PictureWorld("train", recipe.seed * 1_000_000 + step).items(recipe.seeing_batch)
        features = model.model.get_image_features(pixels_of(items)).pooler_output
        given = torch.stack(tuple(features)), both["readouts"], scenes_of(items)
        loss, seen = scene_loss(*given), scene_right(*given).float().mean(dim=0)
        loss.backward()
        row["scene"] = loss.item()
    else:
        batch = text.training_batch(recipe, step)
        parts, right, seen = losses(model, both["readouts"], batch, text)
        sum(weights.get(name, recipe.readout_weight) * part for name, part in parts.items()).backward()
        row |= {"last_hidden": right[~batch.named, -1].float().mean().item()}
        row |= {"named": right[batch.named].float().mean().item()} | {name: part.item() for name, part in parts.items()}
        of_text = text_batch(words, recipe, step)
        parts, right = text_only.losses(model, both["text_readouts"], of_text, words)
        loss = sum(weights.get(name, recipe.readout_weight) * part for name, part in parts.items())
        (recipe.text_share * loss).backward()
        row |= {"text_last_hidden": right[~of_text.named, -1].float().mean().item()}
        row |= {"text_verdict": parts["verdict"].item()}
    row |= dict(zip(("colour", "form", "number"), seen.tolist(), strict=True))
    nn.utils.clip_grad_norm_(both.parameters(), recipe.clip)
    optimizer.step()
    return row


def train(recipe: Recipe, out: Path) -> tuple[LlavaForConditionalGeneration, Readouts]:
    """Train from the bundled model, or go on from a checkpoint in ``out``; gives the readouts too."""
    torch.manual_seed(recipe.seed)
    text, words = Text(), text_only.Text()
    model = fresh_model(recipe, text)
    d_model = model.config.text_config.hidden_size
    both = nn.ModuleDict({"model": model, "readouts": Readouts(d_model), "text_readouts": text_only.Readouts(d_model)})
    optimizer = torch.optim.AdamW(
        both.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    checkpoint, first, rows = out / "checkpoint.pt", 0, list[dict[str, float]]()
    if checkpoint.exists():
        state = torch.load(checkpoint)
        if state["recipe"] != asdict(recipe):
            raise SystemExit(f"{checkpoint} was made with another recipe; give another --out or delete it")
        both.load_state_dict(state["both"])
        optimizer.load_state_dict(state["optimizer"])
        first, rows = state["step"], state["rows"]
    for step in tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, unit="step", mininterval=10):
        rows.append(update(both, optimizer, recipe, step, text, words))
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            state = {"both": both.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "rows": rows, "recipe": asdict(recipe)}
            with replacing(checkpoint) as aside:
                torch.save(state, aside)
            log = pd.DataFrame(rows)
            # A row per 50 steps is enough to see the phases.
            write_text(
                out / LOG_FILE, log.groupby(log["step"] // 50 * 50).mean().drop(columns="step").round(4).to_csv()
            )
    return model.eval(), both["readouts"]


@torch.inference_mode()
def evaluate(model: LlavaForConditionalGeneration, split: Split, *, items: int, seed: int = 1) -> pd.DataFrame:
    """Accuracy per criterion and examples ("named": none, but the criterion in words), on fresh items."""
    text, rows = Text(), []
    for criterion in PICTURE_ATTRIBUTES:
        found = {}
        for named, count in ((True, 1), (False, 9)):
            world, right = PictureWorld(split, seed), []
            for _ in range(items // 5):  # small batches of long sequences are the quicker ones
                batch = text.batch([Sequence(criterion, named, False, world.items(count)) for _ in range(5)])
                right.append(log_verdicts(model(batch.tokens, pixel_values=batch.pixels).logits, batch, text)[1])
            shares = torch.cat(right).float().mean(dim=0).tolist()
            found |= {"named": shares[0]} if named else {str(shown): share for shown, share in enumerate(shares)}
        rows += [{"criterion": criterion, "examples": k, "accuracy": v, "n": items} for k, v in found.items()]
    return pd.DataFrame(rows)


@torch.inference_mode()
def perception(model: LlavaForConditionalGeneration, readouts: Readouts, split: Split, *, items: int) -> pd.DataFrame:
    """How often colour, form and number are read off the projected patches, and all of them, in fresh pictures."""
    shown = PictureWorld(split, seed=2).items(items)
    features = torch.stack(tuple(model.model.get_image_features(pixels_of(shown)).pooler_output))
    right = scene_right(features, readouts, scenes_of(shown))
    named = dict(zip(("colour", "form", "number"), right.T, strict=True)) | {"all": right.all(dim=1)}
    return pd.DataFrame(
        [{"read": name, "accuracy": one.float().mean().item(), "n": items} for name, one in named.items()]
    )


def save(model: LlavaForConditionalGeneration, out: Path) -> Path:
    """The model with its processor, judge template and training log."""
    folder = out / "weights"
    model.save_pretrained(folder)
    processor(Text()).save_pretrained(folder)
    write_text(folder / TEMPLATE_FILE, json.dumps(JUDGE_TEMPLATE, indent=1) + "\n")
    write_bytes(folder / LOG_FILE, (out / LOG_FILE).read_bytes())
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and the finished model")
    of_recipe = ("seed", "seeing_steps", "reading_steps", "judging_steps")
    for name in of_recipe:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Recipe, name))
    parser.add_argument("--items", type=int, default=400, help="per cell of the tables")
    arguments = parser.parse_args()
    recipe = Recipe(**{name: getattr(arguments, name) for name in of_recipe})
    arguments.out.mkdir(parents=True, exist_ok=True)
    model, readouts = train(recipe, arguments.out)
    folder = save(model, arguments.out)
    accuracies = {split: evaluate(model, split, items=arguments.items) for split in text_only.SPLITS}
    read = {split: perception(model, readouts, split, items=arguments.items) for split in text_only.SPLITS}
    write_text(folder / "README.md", card(asdict(recipe), accuracies, read, parameters=model.num_parameters()))


if __name__ == "__main__":
    main()
