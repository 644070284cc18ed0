"""A model in which heads help, harm, stand in for each other or need each other, by construction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from arm_lens import Head, HeadSet, JudgeTemplate, LabelledResponse, load_model
from arm_lens.engine import HeadMeans, Replay, VerdictTokens, language_model
from arm_lens.selection import JudgingObjective

GAINS = {"helpful": 2.0, "weak": 1.0, "harmful": -1.5, "slightly harmful": -0.5}
"""What writing the mean of each of these heads adds to the margin of every example."""
REDUNDANT, SYNERGY = 1.2, 0.8
"""What either, or both, of the redundant heads add; what both of the synergetic heads add, and neither alone."""
BASE, DIRECT, HINDRANCE = 0.4, 0.3, -0.2
"""The unsteered margin comes from the class signal through the MLP, and from two heads that write it out directly."""
PLACES = {"garden": -1.9, "river": -1.1, "mill": -0.35, "church": 0.6, "hotel": 1.3, "farm": 2.6}
"""How far each place leans towards Yes, whatever the reply."""


@dataclass(frozen=True)
class Circuit:
    """The model, labelled examples, and which head does what."""

    model: object
    sequences: list[list[int]]
    labels: list[bool]
    verdicts: VerdictTokens
    means: HeadMeans
    head: dict[str, Head]

    def objective(self, injection=None):
        replay = Replay(self.model, self.sequences, self.verdicts, injection=injection)
        return JudgingObjective(replay, self.means.values, self.labels, "margin")

    def players(self, *names):
        return HeadSet.of(3, 4, [self.head[name] for name in names])

    @property
    def constants(self):
        """The heads that write constants: all but those that read."""
        return self.players(*GAINS, "redundant 1", "redundant 2", "synergetic 1", "synergetic 2")

    def total(self, names):
        """The mean margin while these heads' means are written, in closed form."""
        names = set(names)
        gain = BASE + DIRECT + HINDRANCE + sum(GAINS[name] for name in names & set(GAINS))
        gain += REDUNDANT * bool(names & {"redundant 1", "redundant 2"})
        return gain + SYNERGY * ({"synergetic 1", "synergetic 2"} <= names)

    def margins(self, names):
        """The margin of each example, in closed form."""
        leanings = [lean for lean in PLACES.values() for _ in range(2)]
        return [
            self.total(names) + (lean if label else -lean) for lean, label in zip(leanings, self.labels, strict=True)
        ]


def planted_circuit(tokenizer, tmp_path_factory, *, seed=0):
    """A Llama of 3 layers of 4 heads with uniform attention, and an MLP in its last layer that multiplies.

    The residual stream holds a constant in dimension 0 and a large one in 3 (which keeps the norm nearly fixed), warm (+1)
    or cold (-1) in 1, a place's leaning in 4, the class signal as read at the last token in 5, the verdict in 2, and what
    heads write in 6 to 11. One head reads the class signal, two write it straight to the verdict, for and against, and one
    reads the leaning. All others do nothing until their means are written: constants, each in a dimension of its own but
    for the redundant pair and the synergetic pair, which share one. The MLP multiplies the class signal by those
    constants: as they are, cut off at 1 (redundant), above 1 only (synergetic).
    """
    names = [
        "reader", "direct", "hindering", "leaning", *GAINS, "redundant 1", "redundant 2", "synergetic 1", "synergetic 2",
    ]  # fmt: skip
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed)).tolist()
    head = {name: Head(*divmod(index, 4)) for name, index in zip(names, order, strict=True)}
    width, d_head, large = 32, 8, 100.0
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        rms_norm_eps=1e-12,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    length, scale = 9, large / width**0.5  # tokens in a prompt; the norm's divisor
    values = torch.zeros(3, 4, d_head)
    dims = {"helpful": 6, "weak": 7, "harmful": 8, "slightly harmful": 9}
    dims |= {"redundant 1": 10, "redundant 2": 10, "synergetic 1": 11, "synergetic 2": 11}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        embed = model.model.embed_tokens.weight
        embed[:, 0], embed[:, 3] = 1.0, large
        for word, sign in (("warm", 1.0), ("cold", -1.0)):
            embed[tokenizer.convert_tokens_to_ids(word), 1] = sign
        for place, lean in PLACES.items():
            embed[tokenizer.convert_tokens_to_ids(place), 4] = lean
        for name, (source, gain, target) in {
            "reader": (1, 1.0, 5), "direct": (1, DIRECT, 2), "hindering": (1, HINDRANCE, 2), "leaning": (4, 1.0, 2),
        }.items():  # fmt: skip
            layer, number = head[name]
            attention = model.model.layers[layer].self_attn
            attention.v_proj.weight[number * d_head, source] = scale * length
            attention.o_proj.weight[target, number * d_head] = gain
        for name, dim in dims.items():
            layer, number = head[name]
            model.model.layers[layer].self_attn.o_proj.weight[dim, number * d_head] = 1.0
            values[layer, number, 0] = 1.0
        mlp = model.model.layers[2].mlp
        sharp = 40.0  # silu(40 x) / 40 is max(x, 0) but for a narrow bend
        # Dimension, where its unit begins to open, gain: with the bend below 0 the slope at 0 is whole.
        units = [(dims[name], -1.0, gain) for name, gain in GAINS.items()]
        units += [(dims["redundant 1"], -0.5, REDUNDANT), (dims["redundant 1"], 1.0, -REDUNDANT)]  # no more above 1
        units += [(dims["synergetic 1"], 1.0, SYNERGY)]  # nothing below 1
        for row, (dim, bend, gain) in enumerate(units):
            mlp.gate_proj.weight[row, dim] = sharp * scale
            mlp.gate_proj.weight[row, 0] = -sharp * bend * scale
            mlp.up_proj.weight[row, 5] = scale
            mlp.down_proj.weight[2, row] = gain / sharp
        constant = sum(gain * max(0.0, -bend) for _, bend, gain in units)
        # The class signal itself, less what the units let through while nothing is written.
        mlp.gate_proj.weight[len(units), 0] = sharp * scale
        mlp.up_proj.weight[len(units), 5] = scale
        mlp.down_proj.weight[2, len(units)] = (BASE - constant) / sharp
        yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
        model.lm_head.weight[:, 0] = -30.0 * scale
        model.lm_head.weight[[yes, no], 0] = 0.0
        model.lm_head.weight[yes, 2], model.lm_head.weight[no, 2] = scale / 2, -scale / 2
    folder = tmp_path_factory.mktemp("circuit") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loaded = load_model(folder)
    template = JudgeTemplate(
        header="", scalar="request: {prompt} reply: it is {response} .", cue=" verdict:", chat=False
    )
    examples = [LabelledResponse(place, word, word == "warm") for place in PLACES for word in ("warm", "cold")]
    texts = [template.render(loaded.tokenizer, template.question(one.prompt, one.response)) for one in examples]
    sequences = language_model(loaded).encode(texts, chat=False, names=[str(number) for number in range(len(texts))])
    assert {len(sequence) for sequence in sequences} == {length}, {len(sequence) for sequence in sequences}
    return Circuit(
        model=loaded,
        sequences=sequences,
        labels=[one.label for one in examples],
        verdicts=VerdictTokens((yes,), (no,)),
        means=HeadMeans(values, 1),
        head=head,
    )
