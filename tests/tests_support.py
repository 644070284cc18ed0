"""Independent computations that several tests compare with."""

from __future__ import annotations

import contextlib
import gc
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from arm_lens import Head, HeadSet, JudgeTemplate, LabelledResponse, load_model
from arm_lens.engine import HeadMeans, last_logits
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import questions_of
from arm_lens.reward.fitting import judging_objective

OUTPUT_PROJECTION = {
    "llama": "model.layers.{}.self_attn.o_proj",
    "qwen2": "model.layers.{}.self_attn.o_proj",
    "qwen3": "model.layers.{}.self_attn.o_proj",
    "gpt2": "transformer.h.{}.attn.c_proj",
    "gpt_neox": "gpt_neox.layers.{}.attention.dense",
}


def raw_inputs_while(bridge, family, batch):
    """What enters the raw Hugging Face output projection of each layer, [batch, pos, head * d_head], in one pass."""
    seen, handles = [], []
    for layer in range(bridge.cfg.n_layers):
        wrapped = bridge.original_model.get_submodule(OUTPUT_PROJECTION[family].format(layer))
        raw = getattr(wrapped, "original_component", wrapped)
        handles.append(raw.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone())))
    try:
        with torch.no_grad():
            last_logits(bridge, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@dataclass(frozen=True)
class Planted:
    """A model in which it is known by construction what each head does to the verdict."""

    model: object
    template: JudgeTemplate
    examples: list[LabelledResponse]
    means: HeadMeans
    heads: HeadSet
    """Writing the means here takes away a bias towards No, a third of it each."""
    reader: Head
    """Tells warm from cold; writing its mean makes the model blind."""
    harmful: HeadSet
    """Writing the means here puts a further bias towards No in."""


def planted_model(tokenizer, tmp_path_factory, *, seed):
    """A Llama without MLPs whose attention is uniform, so that each head adds a known multiple to Yes minus No.

    The residual stream holds a constant in dimension 0, warm (+1) or cold (-1) in dimension 1, the verdict in dimension
    2, and a large constant in dimension 3 that keeps the norm nearly fixed. Per head, z is one number: 1 for the three
    planted heads (whose output is a bias towards No) and +-1 / length for the reader; the means are 0 there. At the
    harmful heads z is 0 and the mean 1. All other heads write nothing.
    """
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed)).tolist()
    heads = [Head(*divmod(index, 4)) for index in order]
    reader, planted, harmful = heads[0], heads[1:4], heads[4:6]
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=8, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=128, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    length, scale = 9, 10 / 32**0.5  # tokens in a prompt; the norm's divisor
    values = torch.zeros(3, 4, 8)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.model.embed_tokens.weight[:, 3] = 10.0
        for word, sign in (("warm", 1.0), ("cold", -1.0)):
            model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(word), 1] = sign
        for layer, head in heads:
            attention = model.model.layers[layer].self_attn
            if (layer, head) == reader:
                attention.v_proj.weight[head * 8, 1] = scale
                attention.o_proj.weight[2, head * 8] = 2.0 * length
            elif (layer, head) in planted:
                attention.v_proj.weight[head * 8, 0] = scale
                attention.o_proj.weight[2, head * 8] = -1.0
            elif (layer, head) in harmful:
                attention.o_proj.weight[2, head * 8] = -1.5
                values[layer, head, 0] = 1.0
        yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
        model.lm_head.weight[:, 0] = -30.0 * scale
        model.lm_head.weight[[yes, no], 0] = 0.0
        model.lm_head.weight[yes, 2], model.lm_head.weight[no, 2] = scale / 2, -scale / 2
    folder = tmp_path_factory.mktemp("planted") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    places = ["garden", "river", "mill", "church", "hotel", "farm"]
    return Planted(
        model=load_model(folder),
        template=JudgeTemplate(
            header="", scalar="request: {prompt} reply: it is {response} .", cue=" verdict:", chat=False
        ),
        examples=[LabelledResponse(place, word, word == "warm") for place in places for word in ("warm", "cold")],
        means=HeadMeans(values, 1),
        heads=HeadSet.of(3, 4, planted),
        reader=reader,
        harmful=HeadSet.of(3, 4, harmful),
    )


@contextlib.contextmanager
def no_graph_left():
    """No tensor made within holds on to a graph afterwards."""
    gc.freeze()  # what is there already need not be looked through
    try:
        yield
        gc.collect()
        assert not [one for one in gc.get_objects() if type(one) is torch.Tensor and one.grad_fn is not None]
    finally:
        gc.unfreeze()


def planted_objective(tokenizer, tmp_path_factory, *, seed, reward="two_way"):
    """A `planted_model`, and its examples as an objective for head masks."""
    planted = planted_model(tokenizer, tmp_path_factory, seed=seed)
    judge = GenerativeJudge(planted.model, question=QuestionOptions(template=planted.template))
    questions = questions_of(planted.examples, planted.template)
    return planted, judging_objective(judge, questions, planted.means, reward=reward)
