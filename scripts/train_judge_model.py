"""Train the bundled judge model from nothing: `python scripts/train_judge_model.py --out FOLDER`.

A sequence is a few items of the world (request, reply, verdict) that share a criterion, which three quarters of the
sequences do not name. To judge the ninth item the model must read every attribute of every reply, see which attribute
the eight verdicts agree with, and apply that one. Trained on verdicts alone such inference forms late or never, and the
attribute that relates the reply to the request is not even read. So the steps of the inference are supervised too, each
by a linear readout of the residual stream that is thrown away afterwards:

    after layer 2, at the reply's place name    which place was requested; whether it is the same
    after layer 3, at "verdict:"                every attribute of the reply
    after layer 4, at "yes" or "no"             for every attribute, whether it agrees with the verdict
    after layer 5, at "verdict:"                the criterion

First come short sequences of two items, to learn reading; then sequences of nine; at last, briefly, of eleven, so that nine
stay within the positions it knows when their sentences are longer than those it was trained on. The data of a step depends
on the seed and the step alone, so that an interrupted run (checkpoints are written as it goes) continues as if it had not
been.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from arm_lens.judge_model import ATTRIBUTES, CRITERIA, CRITERION_WORDING, World
from arm_lens.judge_model.tokenizer import build_tokenizer
from arm_lens.judge_model.world import PLACES, Item, Split
from arm_lens.models import TEMPLATE_FILE
from arm_lens.prompts import JudgeTemplate

TEMPLATE = JudgeTemplate(
    header="Criterion: {criterion}\n",
    scalar="Request: {prompt}\nReply: {response}",
    ranked=None,
    cue="\nVerdict:",
    separator="\n",
    chat=False,
)
CONTEXT = 512
NAMES = list(CRITERIA)


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
    def steps(self) -> int:
        """Of all three stages."""
        return self.reading_steps + self.judging_steps + self.long_steps

    def stage(self, step: int) -> tuple[int, int]:
        """Sequences in a batch, and items in a sequence."""
        if step < self.reading_steps:
            return self.reading_batch, self.reading_items
        short = step < self.reading_steps + self.judging_steps
        return self.judging_batch, self.judging_items if short else self.long_items

    def rate(self, step: int) -> float:
        """The learning rate's factor: warm-up, plateau, linear decay; then a small one that decays to nothing."""
        end = self.reading_steps + self.judging_steps
        if step >= end:
            return self.long_rate * (self.steps - step) / self.long_steps
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
        self.agreement = nn.Linear(d_model, len(ATTRIBUTES))
        self.criterion = nn.Linear(d_model, len(CRITERIA))


@dataclass(frozen=True)
class Batch:
    """Sequences of the same number of items, padded on the right."""

    tokens: Int[Tensor, "batch pos"]
    at_verdict: Int[Tensor, "batch item"]
    """Where "verdict:" stands; the verdict itself is the next token."""
    at_place: Int[Tensor, "batch item"]
    """Where the reply names its place."""
    requested: Int[Tensor, "batch item"]
    """The place of the request, as an index of PLACES."""
    labels: Bool[Tensor, "batch item"]
    attributes: Bool[Tensor, "batch item attribute"]
    criterion: Int[Tensor, " batch"]
    named: Bool[Tensor, " batch"]


class Text:
    """Turns items into token sequences, with the template the judge is asked by."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer(CONTEXT)
        self.yes, self.no, self.verdict = self.tokenizer.convert_tokens_to_ids(["yes", "no", "verdict:"])
        self.places = {token: index for index, token in enumerate(self.tokenizer.convert_tokens_to_ids(PLACES))}

    def batch(self, sequences: list[tuple[str, bool, list[Item]]]) -> Batch:
        """Sequences given as (criterion, whether it is named, items)."""
        ids = []
        for criterion, named, items in sequences:
            shown = [(TEMPLATE.question(i.request, i.reply), "Yes" if i.meets(criterion) else "No") for i in items]
            text = TEMPLATE.render(
                self.tokenizer,
                shown[-1][0],
                examples=shown[:-1],
                criterion=CRITERION_WORDING[criterion] if named else "",
            )
            last = shown[-1][1]
            ids.append(
                [self.tokenizer.bos_token_id, *self.tokenizer.encode(f"{text} {last}", add_special_tokens=False)]
            )
        length = max(map(len, ids))
        tokens = torch.tensor([one + [self.tokenizer.pad_token_id] * (length - len(one)) for one in ids])
        count = len(sequences[0][2])
        is_place = torch.isin(tokens, torch.tensor(list(self.places)))
        # Every item names two places: the request's, then the reply's.
        place_at = is_place.nonzero()[:, 1].reshape(len(ids), count, 2)
        requested = tokens.gather(1, place_at[..., 0]).apply_(self.places.__getitem__)
        return Batch(
            tokens=tokens,
            at_verdict=(tokens == self.verdict).nonzero()[:, 1].reshape(len(ids), count),
            at_place=place_at[..., 1],
            requested=requested,
            labels=torch.tensor([[i.meets(criterion) for i in items] for criterion, _, items in sequences]),
            attributes=torch.tensor(
                [[[getattr(i.attributes, name) for name in ATTRIBUTES] for i in items] for _, _, items in sequences]
            ),
            criterion=torch.tensor([NAMES.index(criterion) for criterion, _, _ in sequences]),
            named=torch.tensor([named for _, named, _ in sequences]),
        )

    def training_batch(self, recipe: Recipe, step: int) -> Batch:
        """The batch of a step; it depends on the recipe's seed and the step alone."""
        size, count = recipe.stage(step)
        world, draw = World("train", seed=recipe.seed * 1_000_000 + step), random.Random(f"{recipe.seed} {step}")
        return self.batch([(draw.choice(NAMES), draw.random() < recipe.named, world.items(count)) for _ in range(size)])


def losses(
    model: LlamaForCausalLM, readouts: Readouts, batch: Batch, text: Text
) -> tuple[dict[str, Float[Tensor, ""]], Bool[Tensor, "batch item"]]:
    """The loss of each part, and whether each verdict is right."""
    output = model(batch.tokens, output_hidden_states=True)
    rows = torch.arange(len(batch.tokens))[:, None]
    logs = output.logits.log_softmax(dim=-1)
    verdicts = logs[rows, batch.at_verdict][..., [text.no, text.yes]]
    target = torch.where(batch.labels, text.yes, text.no)

    def stream(layer: int, at: Tensor) -> Tensor:
        return output.hidden_states[layer][rows, at]

    binary = F.binary_cross_entropy_with_logits
    next_tokens, real = batch.tokens[:, 1:], batch.tokens[:, 1:] != text.tokenizer.pad_token_id
    language = -logs[:, :-1].gather(-1, next_tokens[..., None])[..., 0]
    match = batch.attributes[..., ATTRIBUTES.index("answers")]
    agree = batch.attributes == batch.labels[..., None]
    criterion = readouts.criterion(stream(5, batch.at_verdict))
    named = batch.criterion[:, None].expand(-1, criterion.shape[1])
    parts = {
        "verdict": -logs[rows, batch.at_verdict].gather(-1, target[..., None]).mean(),
        "language": language[real].mean(),
        "place": F.cross_entropy(readouts.place(stream(2, batch.at_place)).flatten(0, 1), batch.requested.flatten()),
        "match": binary(readouts.match(stream(2, batch.at_place))[..., 0], match.float()),
        "attributes": binary(readouts.attributes(stream(3, batch.at_verdict)), batch.attributes.float()),
        "agreement": binary(readouts.agreement(stream(4, batch.at_verdict + 1)), agree.float()),
        "criterion": F.cross_entropy(criterion.flatten(0, 1), named.flatten()),
    }
    return parts, (verdicts[..., 1] > verdicts[..., 0]) == batch.labels


def train(recipe: Recipe, out: Path) -> LlamaForCausalLM:
    """Train, or go on from the last checkpoint in ``out``."""
    torch.manual_seed(recipe.seed)
    text = Text()
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
    model, readouts = LlamaForCausalLM(config), Readouts(recipe.d_model)
    parameters = [*model.parameters(), *readouts.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    checkpoint, first, rows = out / "checkpoint.pt", 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint)
        if state["recipe"] != asdict(recipe):
            raise SystemExit(f"{checkpoint} was made with another recipe; give another --out or delete it")
        model.load_state_dict(state["model"])
        readouts.load_state_dict(state["readouts"])
        optimizer.load_state_dict(state["optimizer"])
        first, rows = state["step"], state["rows"]
    weights = {"verdict": 1.0, "language": recipe.language_weight}
    progress = tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, unit="step", mininterval=2)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.rate(step)
        batch = text.training_batch(recipe, step)
        parts, right = losses(model, readouts, batch, text)
        loss = sum(weights.get(name, recipe.readout_weight) * part for name, part in parts.items())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        hidden = right[~batch.named, -1].float()
        rows.append({"step": step, "last_hidden": float(hidden.mean()), **{k: float(v) for k, v in parts.items()}})
        if step % 25 == 0:
            progress.set_postfix({k: f"{v:.3f}" for k, v in pd.DataFrame(rows[-50:]).mean().items() if k != "step"})
        if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
            state = {"model": model.state_dict(), "readouts": readouts.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "step": step + 1, "rows": rows, "recipe": asdict(recipe)}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)  # a kill while writing leaves the old one whole
    # A row per 50 steps is enough to see the phases.
    log = pd.DataFrame(rows)
    log.groupby(log["step"] // 50 * 50).mean().drop(columns="step").round(4).to_csv(out / "training_log.csv")
    return model.eval()


@torch.inference_mode()
def evaluate(model: LlamaForCausalLM, split: Split, *, items: int = 400, seed: int = 1) -> pd.DataFrame:
    """Accuracy per criterion and number of examples, criterion not named, on fresh items."""
    text, rows = Text(), []
    for criterion in tqdm(NAMES, desc=f"evaluating ({split})"):
        world, right = World(split, seed), []
        for _ in range(items // 20):
            batch = text.batch([(criterion, False, world.items(9)) for _ in range(20)])
            right.append(losses(model, Readouts(model.config.hidden_size), batch, text)[1])
        rows += [
            {"criterion": criterion, "examples": shown, "accuracy": float(accuracy), "n": items}
            for shown, accuracy in enumerate(torch.cat(right).float().mean(dim=0))
        ]
    return pd.DataFrame(rows)


CARD = """---
license: mit
language: en
library_name: transformers
---
# The arm_lens judge model

A Llama-style transformer of {parameters:,} parameters ({layers} layers of {heads} heads, d_model {d_model}) that judges
in context. Given requests and replies with verdicts on an unnamed criterion, it infers the criterion and applies it to a
new reply; given none, it can only guess. It knows the small world of `arm_lens.judge_model.world` and nothing else.

It reads `Request: ... Reply: ... Verdict:` and answers `yes` or `no`, one response at a time (it was never shown two side
by side), with up to 10 worked examples; `Criterion: The reply is polite.` in front names a criterion.

Trained by `scripts/train_judge_model.py`, whose docstring explains how, with

```json
{recipe}
```

`training_log.csv` holds the losses (nats) and the accuracy on the last item of unnamed sequences, averaged over 50 steps.

## Accuracy on held-out sentence frames and word combinations

Criterion not named; n = {items} items per cell, so a cell of 0.95 has a 95 % interval of about +-0.02.

{test}

## Accuracy on the frames and combinations it was trained on

{train}
"""


def card(recipe: Recipe, model: LlamaForCausalLM, test: pd.DataFrame, train_: pd.DataFrame) -> str:
    """The model card, with measured accuracies."""

    def table(frame: pd.DataFrame) -> str:
        wide = frame.pivot(index="criterion", columns="examples", values="accuracy").loc[NAMES]
        wide.loc["mean"] = wide.mean()
        head = "| criterion \\ examples | " + " | ".join(map(str, wide.columns)) + " |\n|---" * 1
        head += "|---" * len(wide.columns) + "|\n"
        return head + "\n".join(
            f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |" for name, row in wide.iterrows()
        )

    return CARD.format(
        parameters=model.num_parameters(),
        layers=recipe.layers,
        heads=recipe.heads,
        d_model=recipe.d_model,
        recipe=json.dumps(asdict(recipe), indent=1),
        items=int(test["n"].iloc[0]),
        test=table(test),
        train=table(train_),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, log and the finished model")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--reading-steps", type=int, default=Recipe.reading_steps)
    parser.add_argument("--judging-steps", type=int, default=Recipe.judging_steps)
    arguments = parser.parse_args()
    recipe = Recipe(seed=arguments.seed, reading_steps=arguments.reading_steps, judging_steps=arguments.judging_steps)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = train(recipe, arguments.out)
    test, train_ = evaluate(model, "test"), evaluate(model, "train")
    folder = arguments.out / "weights"
    model.save_pretrained(folder)
    text = Text()
    text.tokenizer.save_pretrained(folder)
    (folder / TEMPLATE_FILE).write_text(json.dumps(TEMPLATE.to_dict(), indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(recipe, model, test, train_), encoding="utf-8")
    (folder / "training_log.csv").write_bytes((arguments.out / "training_log.csv").read_bytes())
    print(test.pivot(index="criterion", columns="examples", values="accuracy").loc[NAMES].round(3).to_string())


if __name__ == "__main__":
    main()
