"""Train the bundled judge model from nothing: `python scripts/train_judge_model.py --out FOLDER`.

A sequence is a few items of the world (request, reply, verdict) that share a criterion, which three quarters of the
sequences do not name. To judge the ninth item the model must read every attribute of every reply, see which attribute
the eight verdicts agree with, and apply that one. Trained on verdicts alone such inference forms late or never, and the
attribute that relates the reply to the request is not even read. So the steps of the inference are supervised too, each
by a linear readout of the residual stream that is thrown away afterwards:

    after layer 2, at the reply's place name    which place was requested; whether it is the same
    after layer 3, right behind the reply       every attribute of the reply
    after layer 4, at the verdict               for every attribute, whether it agrees with the verdict
    after layer 4, at "verdict:"                every attribute of the first of two replies
    after layer 5, at "verdict:"                the criterion

First come short sequences of two items, to learn reading; then sequences of nine; then, briefly, of eleven, so that nine
stay within the positions it knows when their sentences are longer than those it was trained on. A last stage teaches to
judge *ranked* items too: one request, a first and a second reply of which one meets the criterion, verdict "first" or
"second". Half of its sequences are as before, so that nothing is forgotten. Six ranked items fill the context.

The ranked tokens begin as copies: "second:" of "reply:" and "verdict:", "second" of "yes", "first" of "no". So the model
judges the second reply as it would judge an only one, which is good enough for half of the criteria at once; what is
left to learn is to read the first reply and to weigh both. The last stage can be run on its own, from the finished
weights of the others (``--from``; ``--ranked-steps 0`` stops before it), since its optimizer and readouts are new in any
case; so it was for the bundled weights, whose third stage had been run apart from the first two already. The data of a
step depends on the seed and the step alone, so that an interrupted run (checkpoints are written as it goes) continues as
if it had not been.
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
from jaxtyping import Bool, Float, Int
from judge_model_card import card
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from arm_lens.judge_model import ATTRIBUTES, CRITERIA, CRITERION_TEXT, World
from arm_lens.judge_model.tokenizer import build_tokenizer
from arm_lens.judge_model.world import PLACES, Item, Split
from arm_lens.judges.template import TEMPLATE_FILE, JudgeTemplate
from arm_lens.storage import replacing, write_bytes, write_text

TEMPLATE = JudgeTemplate(
    header="Criterion: {criterion}\n",
    scalar="Request: {prompt}\nReply: {response}",
    ranked="Request: {prompt}\nFirst: {response_a}\nSecond: {response_b}",
    first=("First",),
    second=("Second",),
    cue="\nVerdict:",
    separator="\n",
    chat=False,
)
CONTEXT = 512
VERDICTS = {1: (TEMPLATE.no[0], TEMPLATE.yes[0]), 2: (TEMPLATE.second[0], TEMPLATE.first[0])}
"""For one reply and for two: the verdict if the first does not meet the criterion, and if it does."""
COPIES = {"first:": ["reply:"], "second:": ["reply:", "verdict:"], "first": ["no"], "second": ["yes"]}
"""What the tokens of ranked questions begin as; of several, the mean."""
SPLITS: tuple[Split, ...] = ("test", "train")
NAMES = list(CRITERIA)
LOG_FILE = "training_log.csv"


@dataclass(frozen=True)
class Recipe:
    """Everything the outcome depends on."""

    seed: int = 0
    layers: int = 6
    d_model: int = 128
    heads: int = 8
    d_mlp: int = 256
    reading_steps: int = 400
    reading_items: int = 2
    reading_batch: int = 64
    judging_steps: int = 1800
    judging_items: int = 9
    judging_batch: int = 16
    long_steps: int = 250
    long_items: int = 11
    long_rate: float = 0.15
    ranked_steps: int = 1200
    ranked_items: int = 6
    ranked_batch: int = 8
    ranked_rates: tuple[tuple[int, float], ...] = ((0, 0.0), (100, 0.5), (600, 0.5), (950, 0.3056), (1200, 0.0))
    """Steps of the last stage, and the learning rate's factor there. That the fall would be steeper from step 950 on was
    decided while it ran, since it had learned what it was to learn."""
    named: float = 0.25
    learning_rate: float = 2e-3
    warm_up: int = 100
    decay_from: float = 0.7
    final_rate: float = 0.02
    weight_decay: float = 0.05
    clip: float = 1.0
    readout_weight: float = 0.3
    language_weight: float = 0.05

    @property
    def ranked_from(self) -> int:
        """The first step of the last stage, before which no two replies were seen side by side."""
        return self.reading_steps + self.judging_steps + self.long_steps

    @property
    def steps(self) -> int:
        """Of all four stages."""
        return self.ranked_from + self.ranked_steps

    def stage(self, step: int) -> list[tuple[int, int, int]]:
        """For each batch of a step: its sequences, their items, and the replies of an item."""
        if step < self.reading_steps:
            return [(self.reading_batch, self.reading_items, 1)]
        if step < self.reading_steps + self.judging_steps:
            return [(self.judging_batch, self.judging_items, 1)]
        if step < self.ranked_from:
            return [(self.judging_batch, self.long_items, 1)]
        return [(self.ranked_batch, self.long_items, 1), (self.ranked_batch, self.ranked_items, 2)]

    def rate(self, step: int) -> float:
        """The learning rate's factor: warm-up, plateau, linear decay; a small one that decays; linear between knots."""
        end = self.reading_steps + self.judging_steps
        if step >= self.ranked_from:
            return float(np.interp(step + 1 - self.ranked_from, *zip(*self.ranked_rates, strict=True)))
        if step >= end:
            return self.long_rate * (self.ranked_from - step) / self.long_steps
        start = self.decay_from * end
        decay = 1.0 if step < start else max(self.final_rate, (end - step) / (end - start))
        return min(1.0, (step + 1) / self.warm_up) * decay


class Readouts(nn.Module):
    """Linear readouts of the residual stream, for training only."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.place = nn.Linear(d_model, len(PLACES))
        self.match = nn.Linear(d_model, 1)
        self.attributes = nn.Linear(d_model, len(ATTRIBUTES))
        self.carried = nn.Linear(d_model, len(ATTRIBUTES))
        self.agreement = nn.Linear(d_model, len(ATTRIBUTES))
        self.criterion = nn.Linear(d_model, len(CRITERIA))


Sequence = tuple[str, bool, list[tuple[Item, ...]]]
"""A criterion, whether it is named, and items of one reply to judge, or of two to one request."""


@dataclass(frozen=True)
class Batch:
    """Sequences of the same number of items, padded on the right."""

    tokens: Int[Tensor, "batch pos"]
    at_verdict: Int[Tensor, "batch item"]
    """Where "verdict:" stands; the verdict itself is the next token."""
    at_end: Int[Tensor, "batch item reply"]
    """The marker behind each reply: "second:" or "verdict:"."""
    at_place: Int[Tensor, "batch item reply"]
    """Where each reply names its place."""
    requested: Int[Tensor, "batch item"]
    """The place of the request, as an index of PLACES."""
    labels: Bool[Tensor, "batch item"]
    """Whether the (first) reply meets the criterion; of two replies, the other does not."""
    attributes: Bool[Tensor, "batch item reply attribute"]
    criterion: Int[Tensor, " batch"]
    named: Bool[Tensor, " batch"]


class Text:
    """Turns items into token sequences, with the template the judge is asked by."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer(CONTEXT)
        self.ends = torch.tensor(self.ids("second:", "verdict:"))
        self.places = dict(zip(self.ids(*PLACES), range(len(PLACES)), strict=True))
        self.verdicts = {replies: self.ids(*words) for replies, words in VERDICTS.items()}

    def ids(self, *words: str) -> list[int]:
        """Of single tokens."""
        return self.tokenizer.convert_tokens_to_ids([word.lower() for word in words])

    def shown(self, replies: tuple[Item, ...], criterion: str) -> tuple[str, str]:
        """The question about one reply or two, and the right verdict."""
        ask = TEMPLATE.question if len(replies) == 1 else TEMPLATE.ranked_question
        question = ask(replies[0].request, *(item.reply for item in replies))
        return question, VERDICTS[len(replies)][replies[0].meets(criterion)]

    def batch(self, sequences: list[Sequence]) -> Batch:
        """Sequences with the same number of items, and of replies in an item."""
        ids = []
        for criterion, named, items in sequences:
            *before, (question, last) = [self.shown(replies, criterion) for replies in items]
            criterion_text = CRITERION_TEXT[criterion] if named else ""
            text = TEMPLATE.render(self.tokenizer, question, examples=before, criterion=criterion_text)
            ids.append(
                [self.tokenizer.bos_token_id, *self.tokenizer.encode(f"{text} {last}", add_special_tokens=False)]
            )
        length = max(map(len, ids))
        tokens = torch.tensor([one + [self.tokenizer.pad_token_id] * (length - len(one)) for one in ids])
        shape = (len(sequences), len(sequences[0][2]), len(sequences[0][2][0]))
        is_place = torch.isin(tokens, torch.tensor(list(self.places)))
        # Every item names the request's place, then one in each reply.
        place_at = is_place.nonzero()[:, 1].reshape(*shape[:2], 1 + shape[2])
        requested = tokens.gather(1, place_at[..., 0]).apply_(self.places.__getitem__)
        at_end = torch.isin(tokens, self.ends).nonzero()[:, 1].reshape(shape)
        attributes = [
            [[[getattr(r.attributes, name) for name in ATTRIBUTES] for r in replies] for replies in items]
            for _, _, items in sequences
        ]
        return Batch(
            tokens=tokens,
            at_verdict=at_end[..., -1],
            at_end=at_end,
            at_place=place_at[..., 1:],
            requested=requested,
            labels=torch.tensor([[i[0].meets(criterion) for i in items] for criterion, _, items in sequences]),
            attributes=torch.tensor(attributes),
            criterion=torch.tensor([NAMES.index(criterion) for criterion, _, _ in sequences]),
            named=torch.tensor([named for _, named, _ in sequences]),
        )

    def training_batches(self, recipe: Recipe, step: int) -> list[Batch]:
        """The batches of a step; they depend on the recipe's seed and the step alone."""
        world, draw = World("train", seed=recipe.seed * 1_000_000 + step), random.Random(f"{recipe.seed} {step}")

        def sequence(count: int, replies: int) -> Sequence:
            criterion, named = draw.choice(NAMES), draw.random() < recipe.named
            return criterion, named, items_of(world, criterion, count, replies, draw)

        return [
            self.batch([sequence(count, replies) for _ in range(size)]) for size, count, replies in recipe.stage(step)
        ]


def items_of(world: World, criterion: str, count: int, replies: int, draw: random.Random) -> list[tuple[Item, ...]]:
    """Items of one reply; or of two, one of which meets the criterion, in either order."""
    if replies == 1:
        return [(item,) for item in world.items(count)]
    pairs = [world.pair(criterion) for _ in range(count)]
    return [(one, two) if draw.random() < 0.5 else (two, one) for one, two in pairs]


def log_verdicts(
    logits: Float[Tensor, "batch pos vocab"], batch: Batch, text: Text
) -> tuple[Float[Tensor, "batch item 2"], Bool[Tensor, "batch item"]]:
    """Log-probabilities of the two verdicts, the one that the first reply meets the criterion last; which are right."""
    due = logits[torch.arange(len(batch.tokens))[:, None], batch.at_verdict].log_softmax(dim=-1)
    found = due[..., text.verdicts[batch.at_end.shape[2]]]
    return found, (found[..., 1] > found[..., 0]) == batch.labels


def losses(
    model: LlamaForCausalLM, readouts: Readouts, batch: Batch, text: Text
) -> tuple[dict[str, Float[Tensor, ""]], Bool[Tensor, "batch item"]]:
    """The loss of each part, and whether each verdict is right."""
    output = model(batch.tokens, output_hidden_states=True)
    rows = torch.arange(len(batch.tokens))
    replies = batch.at_end.shape[2]
    verdicts, right = log_verdicts(output.logits, batch, text)

    def stream(layer: int, at: Tensor) -> Tensor:
        return output.hidden_states[layer][rows.view(-1, *[1] * (at.ndim - 1)), at]

    binary = F.binary_cross_entropy_with_logits
    match = batch.attributes[..., ATTRIBUTES.index("answers")]
    requested = batch.requested[..., None].expand_as(match)
    # A second reply speaks for the opposite verdict; where the two are alike, they speak for neither.
    speaks_for = torch.stack([batch.labels, ~batch.labels][:replies], dim=-1)[..., None]
    agree = (batch.attributes == speaks_for).float().mean(dim=2)
    criterion = readouts.criterion(stream(5, batch.at_verdict))
    named = batch.criterion[:, None].expand(-1, criterion.shape[1])
    target = batch.labels.long()[..., None]
    parts = {
        "verdict": -verdicts.gather(-1, target).mean(),
        "language": F.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), batch.tokens[:, 1:].flatten(), ignore_index=text.tokenizer.pad_token_id
        ),
        "place": F.cross_entropy(readouts.place(stream(2, batch.at_place)).flatten(0, 2), requested.flatten()),
        "match": binary(readouts.match(stream(2, batch.at_place))[..., 0], match.float()),
        "attributes": binary(readouts.attributes(stream(3, batch.at_end)), batch.attributes.float()),
        "agreement": binary(readouts.agreement(stream(4, batch.at_verdict + 1)), agree),
        "criterion": F.cross_entropy(criterion.flatten(0, 1), named.flatten()),
    }
    if replies == 2:
        first = batch.attributes[:, :, 0].float()
        parts["carried"] = binary(readouts.carried(stream(4, batch.at_verdict)), first)
    return parts, right


def fresh_model(recipe: Recipe, text: Text) -> LlamaForCausalLM:
    """With random weights."""
    config = LlamaConfig(
        vocab_size=len(text.tokenizer),
        hidden_size=recipe.d_model,
        intermediate_size=recipe.d_mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=CONTEXT,
        bos_token_id=text.tokenizer.bos_token_id,
        eos_token_id=text.tokenizer.eos_token_id,
        pad_token_id=text.tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def introduce_pairs(model: LlamaForCausalLM, text: Text) -> None:
    """Give the tokens of ranked questions their first embeddings."""
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        for token, sources in COPIES.items():
            table[text.ids(token)] = table[text.ids(*sources)].mean(dim=0)


def with_readouts(model: LlamaForCausalLM, recipe: Recipe) -> tuple[nn.ModuleDict, torch.optim.Optimizer]:
    """The model with new readouts, and a new optimizer for both."""
    both = nn.ModuleDict({"model": model, "readouts": Readouts(recipe.d_model)})
    return both, torch.optim.AdamW(
        both.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )


def update(
    both: nn.ModuleDict, optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, text: Text
) -> dict[str, float]:
    """One step; gives the losses, and the accuracy on the last item of sequences that do not name the criterion."""
    row: dict[str, float] = {"step": step}
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * recipe.rate(step)
    weights = {"verdict": 1.0, "language": recipe.language_weight}
    batches = text.training_batches(recipe, step)
    optimizer.zero_grad()
    for batch in batches:
        parts, right = losses(both["model"], both["readouts"], batch, text)
        loss = sum(weights.get(name, recipe.readout_weight) * part for name, part in parts.items())
        (loss / len(batches)).backward()
        kind = "ranked_" if batch.at_end.shape[2] == 2 else ""
        row[f"{kind}last_hidden"] = right[~batch.named, -1].float().mean().item()
        row |= {kind + name: part.item() for name, part in parts.items()}
    nn.utils.clip_grad_norm_(both.parameters(), recipe.clip)
    optimizer.step()
    return row


def train(recipe: Recipe, out: Path, finished: Path | None) -> LlamaForCausalLM:
    """Train from nothing or, with the last stage alone, from finished weights; or go on from a checkpoint in ``out``."""
    torch.manual_seed(recipe.seed)
    text = Text()
    model = LlamaForCausalLM.from_pretrained(finished) if finished else fresh_model(recipe, text)
    model.resize_token_embeddings(len(text.tokenizer), mean_resizing=False)
    both, optimizer = with_readouts(model, recipe)
    checkpoint, first, rows = out / "checkpoint.pt", recipe.ranked_from if finished else 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint)
        if state["recipe"] != asdict(recipe):
            raise SystemExit(f"{checkpoint} was made with another recipe; give another --out or delete it")
        both.load_state_dict(state["both"])
        optimizer.load_state_dict(state["optimizer"])
        first, rows = state["step"], state["rows"]
    progress = tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, unit="step", mininterval=2)
    for step in progress:
        if step == recipe.ranked_from:
            introduce_pairs(model, text)
            both, optimizer = with_readouts(model, recipe)
        rows.append(update(both, optimizer, recipe, step, text))
        if step % 25 == 0:
            progress.set_postfix({k: f"{v:.3f}" for k, v in pd.DataFrame(rows[-50:]).mean().items() if k != "step"})
        if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
            state = {"both": both.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "rows": rows, "recipe": asdict(recipe)}
            with replacing(checkpoint) as aside:
                torch.save(state, aside)
    # A row per 50 steps is enough to see the phases.
    log = pd.DataFrame(rows)
    log = log.groupby(log["step"] // 50 * 50).mean().drop(columns="step")
    if finished:
        log = pd.concat([pd.read_csv(finished / LOG_FILE, index_col="step").loc[: recipe.ranked_from - 1], log])
    write_text(out / LOG_FILE, log.round(4).to_csv())
    return model.eval()


@torch.inference_mode()
def evaluate(model: LlamaForCausalLM, split: Split, *, replies: int, items: int = 400, seed: int = 1) -> pd.DataFrame:
    """Accuracy per criterion and number of examples, criterion not named, on fresh items of one reply or two."""
    text, rows, count = Text(), [], {1: 9, 2: 6}[replies]
    for criterion in tqdm(NAMES, desc=f"evaluating ({split}, {replies})"):
        world, draw, right = World(split, seed), random.Random(seed), []
        for _ in range(items // 5):  # small batches of long sequences are the quicker ones
            batch = text.batch([(criterion, False, items_of(world, criterion, count, replies, draw)) for _ in range(5)])
            right.append(log_verdicts(model(batch.tokens).logits, batch, text)[1])
        rows += [
            {"criterion": criterion, "examples": shown, "accuracy": float(accuracy), "n": items}
            for shown, accuracy in enumerate(torch.cat(right).float().mean(dim=0))
        ]
    return pd.DataFrame(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and the finished model")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--reading-steps", type=int, default=Recipe.reading_steps)
    parser.add_argument("--judging-steps", type=int, default=Recipe.judging_steps)
    parser.add_argument("--ranked-steps", type=int, default=Recipe.ranked_steps)
    finished = "run the last stage alone, from the finished weights of the others, with their log, in this folder"
    parser.add_argument("--from", dest="finished", type=Path, help=finished)
    parser.add_argument("--items", type=int, default=400, help="per cell of the card's tables")
    arguments = parser.parse_args()
    of_recipe = ("seed", "reading_steps", "judging_steps", "ranked_steps")
    recipe = Recipe(**{name: getattr(arguments, name) for name in of_recipe})
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = train(recipe, arguments.out, arguments.finished)
    folder = arguments.out / "weights"
    model.save_pretrained(folder)
    Text().tokenizer.save_pretrained(folder)
    write_text(folder / TEMPLATE_FILE, json.dumps(TEMPLATE.to_dict(), indent=1) + "\n")
    write_bytes(folder / LOG_FILE, (arguments.out / LOG_FILE).read_bytes())
    tables = {
        (replies, split): evaluate(model, split, replies=replies, items=arguments.items)
        for replies in (1, 2)
        for split in SPLITS
    }
    text = card(
        asdict(recipe),
        tables,
        parameters=model.num_parameters(),
        ranked_from=recipe.ranked_from,
        apart=bool(arguments.finished),
    )
    write_text(folder / "README.md", text)
    for frame in (tables[1, "test"], tables[2, "test"]):
        print(frame.pivot(index="criterion", columns="examples", values="accuracy").loc[NAMES].round(3).to_string())


if __name__ == "__main__":
    main()
