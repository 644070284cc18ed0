"""Denoised means, against numpy's own decompositions and planted signals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import transformers
from einops import einsum

from arm_lens.engine import VerdictTokens, last_logits, mean_heads, pad, read_batch
from arm_lens.reward.denoising import Denoise, denoised_means, principal_part

SEQUENCES = [
    [1, 9, 30, 41, 52], [1, 77, 14], [1, 20, 21, 22, 23, 24, 25, 26, 27], [1, 8], [1, 60, 61, 62], [1, 33, 90, 12],
    [1, 54, 3, 3, 17, 66],
]  # fmt: skip
RIGHT = [True, False, False, True, True, False, True]
VERDICTS = VerdictTokens((5,), (6, 7))


def moments(z):
    """Mean and second moment of ``[example layer head d_head]``."""
    return z.mean(dim=0), einsum(z, z, "n layer head d, n layer head e -> layer head d e") / len(z)


def by_hand(z, weights, explained):
    """Of one head's ``[example, d_head]``: directions from a singular value decomposition of what was read itself."""
    weights = weights / weights.sum()
    _, singular, directions = np.linalg.svd(np.sqrt(weights)[:, None] * z, full_matrices=False)
    share = singular**2 / (singular**2).sum()
    count = next(k for k in range(1, len(share) + 1) if share[:k].sum() >= explained - 1e-12)
    mean = (weights[:, None] * z).sum(axis=0)
    return directions[:count].T @ (directions[:count] @ mean), count


def read_one_by_one(model):
    """hook_z and the log-odds of the positive verdict of each prompt alone, in float64."""
    z = torch.cat([read_batch(model, pad([sequence])) for sequence in SEQUENCES]).double()
    logits = torch.cat([last_logits(model, pad([sequence])) for sequence in SEQUENCES]).double()
    return z, logits[:, 5] - logits[:, 6:8].logsumexp(dim=-1)


# ------------------------------------------------------------------------------------------ the projection


@pytest.mark.parametrize("explained", [0.3, 0.8, 0.95, 1.0])
def test_the_kept_directions_are_those_numpy_finds(generator, explained):
    z = torch.randn(9, 2, 3, 6, generator=generator, dtype=torch.float64) + 0.5
    found = principal_part(*moments(z), explained)
    counts = set()
    for layer in range(2):
        for head in range(3):
            expected, count = by_hand(z[:, layer, head].numpy(), np.ones(9), explained)
            counts.add(count)
            np.testing.assert_allclose(found[layer, head].numpy(), expected, atol=1e-9)
    assert counts == {6} if explained == 1.0 else max(counts) < 6


def test_projecting_again_changes_nothing_and_nothing_grows_longer(generator):
    mean, moment = moments(torch.randn(20, 3, 4, 8, generator=generator, dtype=torch.float64) + 0.3)
    for explained in (0.2, 0.5, 0.9):
        once = principal_part(mean, moment, explained)
        torch.testing.assert_close(principal_part(once, moment, explained), once)
        assert (once.norm(dim=-1) <= mean.norm(dim=-1) + 1e-12).all()
        assert (once.norm(dim=-1) < 0.999 * mean.norm(dim=-1)).any()
        # What was taken out stands at right angles to what was kept.
        across = einsum(once, mean - once, "layer head d, layer head d -> layer head")
        torch.testing.assert_close(across, torch.zeros_like(across), atol=1e-12, rtol=0)


def test_the_more_is_to_be_explained_the_more_of_the_mean_is_kept(generator):
    mean, moment = moments(torch.randn(20, 3, 4, 8, generator=generator, dtype=torch.float64) + 0.3)
    lengths = [principal_part(mean, moment, share).norm(dim=-1) for share in (0.1, 0.4, 0.7, 0.9, 1.0)]
    assert all((longer >= shorter - 1e-12).all() for shorter, longer in itertools.pairwise(lengths))


def test_all_of_the_mean_is_kept_where_everything_is_to_be_explained(generator):
    few = torch.randn(4, 3, 4, 8, generator=generator, dtype=torch.float64)  # fewer prompts than dimensions
    mean, moment = moments(few)
    torch.testing.assert_close(principal_part(mean, moment, 1.0), mean, atol=1e-7, rtol=0)


def test_what_every_prompt_shares_is_kept_however_little_is_to_be_explained(generator):
    one = torch.randn(1, 3, 4, 8, generator=generator, dtype=torch.float64)
    mean, moment = moments(one.expand(5, -1, -1, -1))
    torch.testing.assert_close(principal_part(mean, moment, 0.01), one[0])


def test_a_head_that_is_always_silent_stays_silent():
    assert torch.equal(principal_part(torch.zeros(2, 2, 4), torch.zeros(2, 2, 4, 4), 0.9), torch.zeros(2, 2, 4))


def planted(seed, *, spread):
    """Prompts whose heads hold a known mean and a spread about it in two directions, and noise in all 32: z, truth."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.linalg.qr(torch.randn(4, 5, 32, 2, generator=generator, dtype=torch.float64)).Q
    along = spread * torch.randn(24, 4, 5, 2, generator=generator, dtype=torch.float64)
    along = along - along.mean(dim=0)  # so that what is off in the plain mean is noise alone
    noise = 0.1 * torch.randn(24, 4, 5, 32, generator=generator, dtype=torch.float64)
    truth = 0.5 * plane[..., 0]
    return truth + einsum(plane, along, "layer head d k, n layer head k -> n layer head d") + noise, truth


def errors(z, truth, explained):
    """How far the plain and the denoised mean of each head are from the truth."""
    mean, moment = moments(z)
    return (mean - truth).norm(dim=-1), (principal_part(mean, moment, explained) - truth).norm(dim=-1)


@pytest.mark.parametrize("seed", range(5))
def test_where_prompts_differ_along_a_planted_signal_it_comes_out_clearer_than_in_the_plain_mean(seed):
    before, after = errors(*planted(seed, spread=1.5), 0.9)
    assert (after < before).all()
    assert after.mean() < 0.6 * before.mean()


def test_where_prompts_differ_by_noise_alone_the_mean_is_its_own_leading_direction_and_stays_as_noisy():
    """A limit of the method: the noise of the mean is in the moment as well."""
    z, truth = planted(0, spread=0.0)
    before, after = errors(z, truth, 0.4)
    assert 0.7 < after.mean() / before.mean() < 1.1


# ------------------------------------------------------------------------------------------ on a model


@pytest.mark.tl4
@pytest.mark.parametrize("model_family", ["llama", "gpt2"])
def test_unweighted_and_with_everything_explained_it_is_the_plain_mean(model_of, model_family, model_class):
    model = model_of(model_family, model_class)
    options = Denoise(explained=1.0, weighted=False)
    found = denoised_means(model, SEQUENCES, RIGHT, VERDICTS, options, batch_size=3)
    plain = mean_heads(model, SEQUENCES)
    torch.testing.assert_close(found.values, plain.values, atol=1e-5, rtol=0)
    assert (found.count, found.values.dtype, found.values.device.type) == (7, torch.float32, "cpu")


@pytest.mark.tl4
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("explained", [0.5, 0.9, 1.0])
def test_the_denoised_mean_is_what_numpy_makes_of_prompts_read_one_by_one(model_of, model_class, explained, weighted):
    model = model_of("llama", model_class)
    z, log_odds = read_one_by_one(model)
    right = torch.sigmoid(torch.where(torch.tensor(RIGHT), log_odds, -log_odds))
    assert right.min() < 0.3 and right.max() > 0.7  # so that weights matter
    weights = right if weighted else torch.ones(7)
    found = denoised_means(model, SEQUENCES, RIGHT, VERDICTS, Denoise(explained=explained, weighted=weighted))
    for layer in range(3):
        for head in range(4):
            expected, _ = by_hand(z[:, layer, head].numpy(), weights.double().numpy(), explained)
            np.testing.assert_allclose(found.values[layer, head].numpy(), expected, atol=1e-4)


@pytest.mark.tl4
def test_the_batch_size_does_not_matter(model_of, model_class):
    model = model_of("gpt2", model_class)
    one, three, all_at_once = (
        denoised_means(model, SEQUENCES, RIGHT, VERDICTS, Denoise(), batch_size=size).values for size in (1, 3, 16)
    )
    torch.testing.assert_close(three, one, atol=1e-4, rtol=0)
    torch.testing.assert_close(all_at_once, one, atol=1e-4, rtol=0)


@pytest.fixture
def certain(fresh):
    """A model that is all but certain of each verdict, whatever it is."""
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = fresh(config)
    with torch.no_grad():
        model.original_model.get_output_embeddings().weight.mul_(100.0)
    return model


def test_a_prompt_whose_right_verdict_is_next_to_impossible_hardly_counts(certain):
    z, log_odds = read_one_by_one(certain)
    assert (log_odds.abs() > 20).all()
    right = (log_odds > 0).tolist()
    right[2] = not right[2]
    found = denoised_means(certain, SEQUENCES, right, VERDICTS, Denoise(explained=1.0)).values
    others = z[[0, 1, 3, 4, 5, 6]].mean(dim=0).float()
    torch.testing.assert_close(found, others, atol=1e-5, rtol=0)
    assert not torch.allclose(found, z.mean(dim=0).float(), atol=1e-2)


def test_where_every_verdict_is_next_to_impossible_prompts_still_count_by_their_probabilities(certain):
    """One minus a probability that float32 rounds to 1 would be 0, and the sum of such weights too."""
    z, log_odds = read_one_by_one(certain)
    positive = (log_odds > 20).nonzero().flatten().tolist()
    assert len(positive) >= 2
    some = [SEQUENCES[place] for place in positive]
    found = denoised_means(certain, some, [False] * len(some), VERDICTS, Denoise(explained=1.0)).values
    weights = torch.sigmoid(-log_odds[positive])
    expected = einsum(weights / weights.sum(), z[positive], "n, n layer head d -> layer head d")
    torch.testing.assert_close(found, expected.float(), atol=1e-3, rtol=0)


@pytest.mark.tl4
def test_no_prompts_or_verdicts_for_others_are_refused(model_of):
    with pytest.raises(ValueError, match="0 prompts"):
        denoised_means(model_of("llama"), [], [], VERDICTS, Denoise())
    with pytest.raises(ValueError, match="3 for 7 prompts"):
        denoised_means(model_of("llama"), SEQUENCES, RIGHT[:3], VERDICTS, Denoise())


@pytest.mark.parametrize("explained", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(explained):
    with pytest.raises(ValueError, match=r"explained\n.*(greater than 0|less than or equal to 1|finite number)"):
        Denoise(explained=explained)
