"""Head cards: attention rows and promoted tokens against raw Hugging Face models, tables, text and HTML."""

from __future__ import annotations

import html.parser
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import HOOKED
from tests_support import OUTPUT_PROJECTION, planted_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from arm_lens import ActivationRewardModel, Head, HeadSet, PreferencePair
from arm_lens.attribution.ablation import ablation
from arm_lens.attribution.head_card import head_card
from arm_lens.attribution.reading import attention_rows, direct_logits, token_texts
from arm_lens.engine import VerdictTokens, language_model
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.options import QuestionOptions, ReadingOptions
from arm_lens.plots import head_card_figure

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25], [1, 8, 100, 3]]
VERDICTS = VerdictTokens((5,), (6, 7))
OLD_CLASS = "HookedTransformer" if HOOKED else "TransformerBridge"
FAMILIES = [  # of llama, qwen2 and qwen3 two heads share their keys
    ("llama", "TransformerBridge"),
    ("llama", OLD_CLASS),
    ("gpt2", "TransformerBridge"),
    ("qwen3", "TransformerBridge"),
    ("gpt_neox", "TransformerBridge"),
    ("gpt_neox", OLD_CLASS),
]
FINAL_NORM = {
    "llama": "model.norm",
    "qwen3": "model.norm",
    "gpt2": "transformer.ln_f",
    "gpt_neox": "gpt_neox.final_layer_norm",
}


@pytest.fixture(params=FAMILIES, ids=lambda one: f"{one[0]}-{one[1]}")
def both(request, folder_of, model_of):
    """A family, its raw Hugging Face model, and the same as arm_lens has it."""
    family, model_class = request.param
    raw = AutoModelForCausalLM.from_pretrained(folder_of(family), attn_implementation="eager").eval()
    return family, raw, model_of(family, model_class)


def test_attention_rows_are_those_of_raw_hugging_face(both):
    _, raw, model = both
    for layer, head in [(0, 2), (1, 1), (2, 3)]:
        found = attention_rows(model, SEQUENCES, layer, head, batch_size=3)
        for sequence, row in zip(SEQUENCES, found, strict=True):
            with torch.no_grad():
                pattern = raw(torch.tensor([sequence]), output_attentions=True).attentions[layer]
            torch.testing.assert_close(row, pattern[0, head, -1], atol=1e-5, rtol=1e-4)
    assert float(torch.stack([row.max() - row.min() for row in found]).max()) > 0.01  # not a uniform pattern


def raw_direct_logits(family, raw, layer, head, vector):
    """By the weights alone: projection slice, final norm at the scale of each prompt's last residual, unembedding."""
    projection = raw.get_submodule(OUTPUT_PROJECTION[family].format(layer))
    d_head = len(vector)
    weight = projection.weight.T if family != "gpt2" else projection.weight  # a Conv1D keeps it the other way round
    write = vector.double() @ weight.detach().double()[head * d_head : (head + 1) * d_head]
    norm, seen = raw.get_submodule(FINAL_NORM[family]), []
    hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1].double()))
    with torch.no_grad():
        for sequence in SEQUENCES:
            raw(torch.tensor([sequence]))
    hook.remove()
    residuals = torch.stack(seen)
    if family in ("gpt2", "gpt_neox"):
        residuals, write = residuals - residuals.mean(dim=-1, keepdim=True), write - write.mean()
    epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
    scales = (residuals.square().mean(dim=-1) + epsilon).sqrt()
    read = write * norm.weight.detach().double() / scales[:, None]
    return read @ raw.get_output_embeddings().weight.detach().double().T


def test_promoted_tokens_are_those_of_raw_weights(both):
    family, raw, model = both
    layer, head = 1, 3
    vector = torch.randn(model.cfg.d_head, generator=torch.Generator().manual_seed(1))
    found, gap = direct_logits(model, SEQUENCES, layer, head, vector, VERDICTS, batch_size=3)
    each = raw_direct_logits(family, raw, layer, head, vector)
    expected = each.mean(dim=0)
    torch.testing.assert_close(found.double(), expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)
    with torch.no_grad():  # the negative verdict's two spellings count as they are probable
        shares = torch.stack([raw(torch.tensor([one])).logits[0, -1, [6, 7]].softmax(dim=-1) for one in SEQUENCES])
    slope = each[:, 5] - (shares * each[:, [6, 7]]).sum(dim=-1)
    assert gap == pytest.approx(float(slope.mean()), rel=1e-3, abs=1e-5) and abs(gap) > 1e-3


def test_a_card_leaves_the_model_as_it_was(model_of):
    model = model_of("llama")
    before = {name: weight.requires_grad for name, weight in model.named_parameters()}
    direct_logits(model, SEQUENCES, 1, 0, torch.ones(12), VERDICTS)
    attention_rows(model, SEQUENCES, 1, 0)
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == before
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.blocks[1].attn.hook_pattern._forward_hooks and not language_model(model).has_foreign_hooks()


# ------------------------------------------------------------------------------------------ planted heads


@pytest.fixture(scope="module")
def planted(tokenizer, tmp_path_factory):
    return planted_model(tokenizer, tmp_path_factory, seed=1)


@pytest.fixture(scope="module")
def planted_reward(planted):
    fitted = ActivationRewardModel.fit(
        planted.model,
        planted.examples,
        selector=planted.heads,
        question=QuestionOptions(template=planted.template),
        reading=ReadingOptions(readings=2, demonstrations=1),
    )
    return replace(fitted, means=planted.means)


SHRUNK = 10 * (102**-0.5 + 126**-0.5) / 2
"""The unembedding is scaled for a last residual of length 10; there it holds 10, 1 and -3 + 2 (warm) or -3 - 2 (cold)."""


def test_what_planted_means_write_is_known(planted, planted_reward):
    harmful = next(iter(planted.harmful))
    card = head_card(planted_reward, harmful, planted.examples)
    # z of 1 writes -1.5 in the verdict's dimension.
    assert card.gap_effect == pytest.approx(-1.5 * SHRUNK, rel=0.01) and not card.chosen
    promoted = card.tokens[card.tokens["direction"] == "promoted"].iloc[0]
    suppressed = card.tokens[card.tokens["direction"] == "suppressed"].iloc[0]
    assert promoted["token"] == "no" and promoted["effect"] == pytest.approx(0.75 * SHRUNK, rel=0.01)
    assert suppressed["token"] == "yes" and suppressed["effect"] == pytest.approx(-0.75 * SHRUNK, rel=0.01)
    assert card.attention["weight"].to_numpy() == pytest.approx(1 / 9, abs=1e-4)  # attention is uniform by construction
    assert card.plot().to_json() == head_card_figure(card.attention, card.tokens, title=card.name).to_json()


def test_centred_is_what_injecting_by_replacing_changes(planted, planted_reward):
    leaning = next(
        iter(planted.heads)
    )  # its z is 1 (0.99, by its layer's norm) and its mean 0: writing takes a lean towards No away
    plain = head_card(planted_reward, leaning, planted.examples)
    centred = head_card(planted_reward, leaning, planted.examples, centred=True)
    assert plain.gap_effect == pytest.approx(0, abs=1e-6) and plain.chosen
    assert centred.gap_effect == pytest.approx(SHRUNK, rel=0.02)


# ------------------------------------------------------------------------------------------ the bundled judge


@pytest.fixture(scope="module")
def bundled(judge):
    pool = labelled_responses("positive", 10, split="train", seed=0)
    questions = labelled_responses("positive", 6, split="test", seed=0)
    heads = HeadSet.of(6, 8, [(4, 3)])
    reward = ActivationRewardModel.fit(
        judge, pool, criterion="positive", selector=heads, reading=ReadingOptions(readings=4, demonstrations=4)
    )
    frame = ablation(reward.objective(questions), "zero", criterion="positive").frame()
    return reward, questions, pool, frame


@pytest.fixture(scope="module")
def card(bundled):
    reward, questions, pool, frame = bundled
    return head_card(reward, (4, 3), questions, attributions=frame, demonstrations_from=pool, top=4, max_examples=2)


@pytest.mark.slow
def test_a_card_knows_every_token_of_every_prompt(card, bundled):
    reward, questions, _, _ = bundled
    assert card.head == Head(4, 3) and card.chosen and card.n == 6
    totals = card.attention.groupby(["setting", "example"])["weight"].sum()
    assert len(totals) == 12 and totals.to_numpy() == pytest.approx(1, abs=1e-5)
    lengths = card.attention.groupby("setting").size()
    assert lengths["few-shot"] > 3 * lengths["zero-shot"]
    first = card.attention[(card.attention["setting"] == "zero-shot") & (card.attention["example"] == questions[0].id)]
    assert " ".join(first["token"]).startswith("<bos> request: ") and first["token"].iloc[-1] == "verdict:"
    assert first["verdict"].unique().tolist() == [
        reward.judge.template.yes[0] if questions[0].label else reward.judge.template.no[0]
    ]


def test_shares_add_up_over_tokens(card):
    for setting, own in card.attention_by_token.groupby("setting"):
        assert own["share"].sum() == pytest.approx(1, abs=1e-5)
        assert own["share"].is_monotonic_decreasing and (own["n"] == 6).all()
        rows = card.attention[(card.attention["setting"] == setting) & (card.attention["token"] == "verdict:")]
        one = own[own["token"] == "verdict:"].iloc[0]
        assert one["weight"] == pytest.approx(rows["weight"].mean()) and one["places"] == len(rows)
        assert one["share"] == pytest.approx(rows["weight"].sum() / 6) and one["prompts"] == 6


def test_scores_come_with_the_rank_among_all_heads(card, bundled):
    frame = bundled[3]
    for row in card.frame().itertuples():
        others = frame[frame["outcome"] == row.outcome]["score"]
        assert row.rank == (others > row.score).sum() + 1 and row.heads == 48
    assert set(card.frame()["outcome"]) == {"accuracy", "probability", "gap"}
    assert card.displayed_scores()["outcome"].tolist() == ["probability"]
    other = card.scores.assign(measure="direct", outcome="gap").head(1)
    mixed = replace(card, scores=pd.concat([card.scores, other]))
    assert mixed.displayed_scores()[["measure", "outcome"]].to_numpy().tolist() == [
        ["ablation_zero", "probability"],
        ["direct", "gap"],
    ]


def test_a_card_reads_in_a_terminal(card):
    text = repr(card)
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "Head L4H3 for 'positive' (written at)",
        "zero-shot",
        "few-shot",
        "Yes minus No",
        "promoted:",
        "of 48)",
    ):
        assert part in text
    assert "direct path only" in text


class Tags(html.parser.HTMLParser):
    """Checks that tags are closed in order, and gathers them and the text."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_a_card_shows_itself_in_a_notebook_without_scripts_or_fetches(card):
    page = card._repr_html_()
    tags = Tags()
    tags.feed(page)
    assert not tags.open and not tags.seen & {"script", "link", "img", "style", "iframe"} and "url(" not in page
    text = "".join(tags.text)
    for token in card.tokens["token"]:
        assert token in text
    assert "right: Yes" in text and "Yes minus No" in text and len(page) < 60_000


def test_texts_are_escaped(card):
    nasty = "<script>alert('1')</script> & \"q\""
    page = replace(
        card,
        criterion=nasty,
        model=nasty,
        attention=card.attention.assign(example=nasty, token=nasty),
        attention_by_token=card.attention_by_token.assign(token=nasty),
        tokens=card.tokens.assign(token=nasty),
        scores=card.scores.assign(criterion=nasty, measure=nasty),
    )._repr_html_()
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.seen and not tags.open
    assert "".join(tags.text).count("<script>alert('1')</script>") > 4


def test_questions_of_one_name_are_told_apart(bundled):
    reward = bundled[0]
    pairs = [
        PreferencePair(f"Describe the {place} to me.", "It is lovely.", "It is dull.", id="one")
        for place in ("mill", "farm")
    ]
    card = head_card(reward, (0, 0), pairs)
    names = ["one/chosen", "one/rejected", "one/chosen (2)", "one/rejected (2)"]
    assert card.attention["example"].unique().tolist() == names
    assert card.attention.drop_duplicates("example")["verdict"].tolist() == ["Yes", "No"] * 2
    assert not card.chosen and "Scores" not in repr(card)


def test_what_is_wrong_is_said(bundled):
    reward, questions, pool, frame = bundled
    with pytest.raises(ValueError, match="L6H0 is outside a model of 6 layers of 8 heads"):
        head_card(reward, (6, 0), questions)
    with pytest.raises(ValueError, match="no examples"):
        head_card(reward, (0, 0), [])
    with pytest.raises(ValueError, match="lacks the column 'score'"):
        head_card(reward, (0, 0), questions, attributions=frame.drop(columns="score"))
    with pytest.raises(
        ValueError, match=r"several rows of criterion 'positive', measure 'ablation_zero'.*layer 0, head 0"
    ):
        head_card(reward, (0, 0), questions, attributions=pd.concat([frame, frame]))
    with pytest.raises(ValueError, match="have no row of L4H3"):
        head_card(reward, (4, 3), questions, attributions=frame[frame["layer"] < 2])
    with pytest.raises(ValueError, match="40 demonstrations are wanted"):
        head_card(reward, (0, 0), questions, demonstrations_from=pool, demonstrations=40)


def test_tokens_are_written_as_a_person_reads_them():
    pieces = ["Ġgood", "good", "Ċ", "Ã", "©"]
    inner = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    assert token_texts(tokenizer, [0, 1, 2, 3]) == [" good", "good", "⏎", "Ã"]
    metaspace = Tokenizer(BPE({"▁good": 0, "good": 1}, []))
    metaspace.decoder = decoders.Metaspace()
    assert token_texts(PreTrainedTokenizerFast(tokenizer_object=metaspace), [0, 1]) == [" good", "good"]
