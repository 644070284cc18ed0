"""Sparse Attention Vectors, against a computation from raw Hugging Face activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from arm_lens import HeadSet, LabelledResponse
from arm_lens.engine import bundled_model_path
from arm_lens.judge_model import labelled_responses, preference_pairs
from arm_lens.judges import fit_judge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.probe import HeadProbe
from arm_lens.judges.sav import SparseAttentionVectors, leave_one_out_accuracy

pytestmark = pytest.mark.tl4


def raw_head_outputs(texts):
    """What enters each output projection at the last token, [text, layer, head, d_head], by Hugging Face alone."""
    path = bundled_model_path()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    seen = {}
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.o_proj.register_forward_pre_hook(
            lambda _, inputs, number=number: seen.__setitem__(number, inputs[0][0, -1].numpy().copy())
        )
    found = []
    for text in texts:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        with torch.no_grad():
            model(torch.tensor([ids]))
        found.append(np.stack([seen[number] for number in range(len(seen))]).reshape(len(seen), 8, -1))
    return np.stack(found).astype(np.float64)


def published_sav(train, labels, test, k):
    """Sparse Attention Vectors in twenty lines: leave-one-out accuracy per head, the k best, their votes."""

    def cosine(a, b):
        return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)

    def votes(z, positive, negative):
        difference = cosine(z, positive) - cosine(z, negative)
        return np.where(abs(difference) < 1e-6, 0.5, difference > 0)

    right = np.zeros(train.shape[1:3])
    for i in range(len(train)):
        rest = np.arange(len(train)) != i
        vote = votes(train[i], train[rest & labels].mean(0), train[rest & ~labels].mean(0))
        right += vote if labels[i] else 1 - vote
    best = sorted(range(right.size), key=lambda j: (-right.flat[j], j))[:k]
    ballots = votes(test, train[labels].mean(0), train[~labels].mean(0)).reshape(len(test), -1)[:, best]
    return right / len(train), sorted(best), ballots.mean(1)


@pytest.mark.slow
@pytest.mark.parametrize(("criterion", "k"), [("polite", 20), ("answers", 7), ("list", 48)])
def test_predictions_equal_a_computation_from_raw_hugging_face_activations(judge, criterion, k):
    train = labelled_responses(criterion, 20, split="train", seed=1)
    test = labelled_responses(criterion, 40, split="test", seed=2)
    text = "Request: {}\nReply: {}\nVerdict:"
    raw = [raw_head_outputs([text.format(one.prompt, one.response) for one in part]) for part in (train, test)]
    labels = np.array([one.label for one in train])
    accuracy, best, share = published_sav(raw[0], labels, raw[1], k)

    fitted = SparseAttentionVectors.fit(judge, train, heads=k)
    found = fitted.score([one.prompt for one in test], [one.response for one in test])
    np.testing.assert_allclose(fitted.head_scores.values.numpy(), accuracy, atol=1e-6)
    assert fitted.heads == HeadSet.of(6, 8, [divmod(place, 8) for place in best])
    np.testing.assert_allclose(found.numpy(), share, atol=1e-6)
    assert share.std() > 0  # not all the same, or the comparison would say little


def test_an_example_has_no_part_in_the_mean_it_is_compared_with():
    """Two classes of unit vectors with noise that makes each nearest to itself: resubstitution would be perfect."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(8, 1, 1, 400, generator=generator)
    labels = torch.tensor([True, False] * 4)
    means = z[labels].mean(dim=0), z[~labels].mean(dim=0)
    near = torch.cosine_similarity(z, means[0], dim=-1) > torch.cosine_similarity(z, means[1], dim=-1)
    assert (near[:, 0, 0] == labels).all()
    assert leave_one_out_accuracy(z, labels)[0, 0] < 0.8


def test_a_head_that_always_says_the_same_but_for_rounding_is_at_chance():
    generator = torch.Generator().manual_seed(0)
    z = torch.ones(10, 1, 1, 16) + 1e-7 * torch.randn(10, 1, 1, 16, generator=generator)
    assert leave_one_out_accuracy(z, torch.arange(10) % 2 == 0)[0, 0] == 0.5


def test_an_example_that_is_alone_in_its_class_is_not_counted():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])[:, None, None]
    assert leave_one_out_accuracy(z, torch.tensor([True, True, False]))[0, 0] == 1.0
    with pytest.raises(ValueError, match="there is one of each"):
        leave_one_out_accuracy(z[1:], torch.tensor([True, False]))


@pytest.mark.parametrize("heads", [0, -1])
def test_no_heads_to_vote_is_an_error(judge, heads):
    examples = labelled_responses("polite", 8, split="train", seed=0)
    with pytest.raises(ValueError, match=f"heads is {heads}: at least one head votes"):
        SparseAttentionVectors.fit(judge, examples, heads=heads)
    with pytest.raises(ValueError, match="heads"):
        fit_judge("sav", judge, examples, {"heads": heads})


def test_examples_of_one_kind_are_refused(judge):
    with pytest.raises(ValueError, match="all 3 are positive"):
        SparseAttentionVectors.fit(judge, [LabelledResponse("Hello.", f"Thanks {n}.", True) for n in range(3)])


@pytest.mark.slow
def test_pairs_are_preferred_by_the_share_of_votes(judge, model_class):
    import arm_lens

    model = arm_lens.load_model(model_class=model_class)
    fitted = SparseAttentionVectors.fit(model, preference_pairs("polite", 10, split="train", seed=3))
    pair = preference_pairs("polite", 1, split="test", seed=4)[0]
    shares = fitted.score([pair.prompt] * 2, [pair.chosen, pair.rejected])
    verdict = fitted.prefer(pair.prompt, pair.chosen, pair.rejected)
    assert verdict.margin == pytest.approx(float(shares[0] - shares[1]))
    assert verdict.preferred == "a"


@pytest.mark.parametrize("judge", [SparseAttentionVectors, HeadProbe])
def test_a_readout_of_two_responses_at_once_is_refused_before_it_is_fitted(model_of, judge):
    pairs = preference_pairs("polite", 3, split="train", seed=0)
    with pytest.raises(ValueError, match=f"{judge.kind!r} scores single responses: use layout='scalar'"):
        judge.fit(model_of(), pairs, question=QuestionOptions(layout="ranked"))
