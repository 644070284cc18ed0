"""What is sampled is what raw Hugging Face models generate, whatever else is in the batch and however it is read."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
import transformers

from arm_lens import HeadSet, steer
from arm_lens.engine import last_logits, pad
from arm_lens.engine.sampling import choose_tokens, sample_tokens

pytestmark = pytest.mark.tl4

SEQUENCES = [[1, 9, 30, 41, 52, 8], [5], [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17], [1, 9], [90, 80, 70, 60, 50, 40]]
STEPS = 7


def raw_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def numbers(rows, steps=STEPS, seed=0):
    return torch.rand(rows, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def written_by(next_logits, sequence, uniforms, temperature=1.0):
    """Inverse-CDF sampling in so many words, with one full pass for each token."""
    said = []
    for number in uniforms.tolist():
        logits = next_logits([*sequence, *said]).double().numpy()
        if temperature == 0:
            said.append(int(logits.argmax()))
            continue
        weights = np.exp(logits / temperature - (logits / temperature).max())
        passed = itertools.accumulate(weights / weights.sum())
        said.append(next(token for token, so_far in enumerate(passed) if so_far > number))
    return said


def raw_passes(folder):
    model = raw_model(folder)

    def next_logits(tokens):
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0, -1]

    return next_logits


def lens_passes(model):
    return lambda tokens: last_logits(model, pad([tokens]))[0]


def test_without_temperature_it_is_greedy_generation(model_of, folder_of, family, model_class):
    raw = raw_model(folder_of(family))
    raw.generation_config.eos_token_id = None
    expected = [
        raw.generate(torch.tensor([one]), max_new_tokens=STEPS, do_sample=False, pad_token_id=0)[0, len(one) :].tolist()
        for one in SEQUENCES
    ]
    found = sample_tokens(model_of(family, model_class), SEQUENCES, numbers(len(SEQUENCES)), temperature=0.0)
    assert found == expected


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_tokens_are_where_the_cumulative_distribution_passes_the_numbers(
    model_of, folder_of, family, model_class, temperature
):
    uniforms = numbers(len(SEQUENCES))
    passes = raw_passes(folder_of(family))
    expected = [
        written_by(passes, one, row, temperature) for one, row in zip(SEQUENCES, uniforms, strict=True)
    ]  # fmt: skip
    found = sample_tokens(model_of(family, model_class), SEQUENCES, uniforms, temperature=temperature)
    assert found == expected
    assert len({*map(tuple, found)}) == len(SEQUENCES)


@pytest.mark.parametrize("sliding", ["gpt_neo", "mistral"])
def test_attention_windows_slide_along_while_the_model_writes(fresh, tokenizer, tmp_path, sliding):
    if sliding == "gpt_neo":
        config = transformers.GPTNeoConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_layers=2, num_heads=4, intermediate_size=128, window_size=8,
            attention_types=[[["global", "local"], 1]], max_position_embeddings=64, pad_token_id=0,
        )  # fmt: skip
    else:
        config = transformers.MistralConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, sliding_window=8,
            num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64, pad_token_id=0,
        )  # fmt: skip
    model = fresh(config)
    uniforms = numbers(len(SEQUENCES), 12)
    passes = raw_passes(tmp_path)
    expected = [written_by(passes, one, row) for one, row in zip(SEQUENCES, uniforms, strict=True)]
    assert sample_tokens(model, SEQUENCES, uniforms) == expected


def test_what_a_row_says_does_not_depend_on_the_others(model_of, model_class):
    model, uniforms = model_of("llama", model_class), numbers(len(SEQUENCES))
    together = sample_tokens(model, SEQUENCES, uniforms)
    for row, sequence in enumerate(SEQUENCES):
        assert sample_tokens(model, [sequence], uniforms[[row]]) == [together[row]]
    order = [3, 0, 4, 1, 2, 0]
    assert sample_tokens(model, [SEQUENCES[row] for row in order], uniforms[order]) == [together[row] for row in order]
    # Nor on how far it may go on.
    shorter = sample_tokens(model, SEQUENCES, uniforms[:, :3])
    assert shorter == [one[:3] for one in together]


def test_a_row_ends_at_a_stop_token_and_the_others_go_on(model_of, model_class):
    model, uniforms = model_of("llama", model_class), numbers(len(SEQUENCES))
    free = sample_tokens(model, SEQUENCES, uniforms)
    stop = {free[0][2], free[1][0]}
    places = [next((place for place, token in enumerate(one) if token in stop), STEPS) for one in free]
    assert places[:2] == [2, 0] and max(places) == STEPS
    found = sample_tokens(model, SEQUENCES, uniforms, stop=stop)
    assert found == [one[:place] for one, place in zip(free, places, strict=True)]


def add_token_before(_, inputs, embedded):
    return embedded + torch.nn.functional.pad(embedded, (0, 0, 1, -1))


@pytest.mark.slow
def test_a_model_that_cannot_go_on_from_keys_and_values_reads_everything_again(fresh, tokenizer, model_class):
    """Its embedding of a token has that of the token before in it, which keys and values do not tell."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = fresh(transformers.LlamaConfig(**shape, vocab_size=len(tokenizer), pad_token_id=0), model_class)
    even = [SEQUENCES[0], SEQUENCES[4]]  # of one length: with padding, its embedding would be of what comes before
    uniforms = numbers(2)
    handle = model.embed.register_forward_hook(add_token_before)
    expected = [written_by(lens_passes(model), one, row) for one, row in zip(even, uniforms, strict=True)]
    assert sample_tokens(model, even, uniforms) == expected
    handle.remove()
    plain = [written_by(lens_passes(model), one, row) for one, row in zip(even, uniforms, strict=True)]
    assert sample_tokens(model, even, uniforms) == plain != expected


@pytest.mark.slow
def test_where_positions_are_stretched_by_length_the_whole_is_read_again(fresh, tokenizer, tmp_path):
    """The prompt is within what stretches nothing, the continuation goes beyond it."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}
    config = transformers.LlamaConfig(
        **shape, vocab_size=len(tokenizer), max_position_embeddings=12, rope_parameters=rope, pad_token_id=0
    )
    model = fresh(config)
    model.cfg.n_ctx = 48  # what is beyond is what it is stretched for
    sequence, uniforms = SEQUENCES[2][:9], numbers(1, 20)
    expected = written_by(raw_passes(tmp_path), sequence, uniforms[0])
    assert sample_tokens(model, [sequence], uniforms) == [expected]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_steered_model_is_steered_at_the_last_token_of_what_there_is_so_far(model_of, family, model_class):
    model, uniforms = model_of(family, model_class), numbers(len(SEQUENCES))
    cfg = model.cfg
    values = torch.randn(cfg.n_layers, cfg.n_heads, cfg.d_head, generator=torch.Generator().manual_seed(0))
    plain = sample_tokens(model, SEQUENCES, uniforms)
    heads = HeadSet.of(
        cfg.n_layers, cfg.n_heads, [(0, 0), (0, 1)]
    )  # what later layers keep of a token changes with them
    with steer(model, heads, 5 * values):
        passes = lens_passes(model)
        expected = [written_by(passes, one, row) for one, row in zip(SEQUENCES, uniforms, strict=True)]
        assert sample_tokens(model, SEQUENCES, uniforms) == expected != plain


def test_nothing_is_written_beyond_the_context(model_of):
    model = model_of("llama")
    long = [5] * 500
    assert len(sample_tokens(model, [long], torch.zeros(1, 12), temperature=0.0)[0]) == 12
    with pytest.raises(ValueError, match="may take 513 tokens, the model's context 512"):
        sample_tokens(model, [[5], long], torch.zeros(2, 13))


def test_what_makes_no_sense_is_refused(model_of):
    model = model_of("llama")
    with pytest.raises(ValueError, match="1 rows of numbers for 2 sequences"):
        sample_tokens(model, SEQUENCES[:2], torch.zeros(1, 3))
    with pytest.raises(ValueError, match="0 or above, not -1"):
        sample_tokens(model, SEQUENCES[:1], torch.zeros(1, 3), temperature=-1.0)
    assert sample_tokens(model, [], torch.zeros(0, 3)) == []


def test_tokens_come_as_often_as_softmax_says(model_of, folder_of):
    temperature, rows = 0.8, 3000
    logits = raw_passes(folder_of("llama"))(SEQUENCES[0]).double()
    chances = (logits / temperature).softmax(dim=-1)
    found = sample_tokens(
        model_of("llama"), [SEQUENCES[0]] * rows, numbers(rows, 1, seed=1), temperature=temperature
    )  # fmt: skip
    counts = Counter(token for (token,) in found)
    common = chances.topk(20).indices.tolist()
    observed = [counts[token] for token in common]
    expected = [rows * float(chances[token]) for token in common]
    observed.append(rows - sum(observed))
    expected.append(rows - sum(expected))
    assert min(expected) > 5
    assert scipy.stats.chisquare(observed, expected).pvalue > 0.001
    flat = [rows / len(observed)] * len(observed)
    assert scipy.stats.chisquare(observed, flat).pvalue < 1e-6


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_a_token_without_probability_is_never_drawn(number):
    logits = torch.randn(2000, 40, generator=torch.Generator().manual_seed(0)).double()
    logits[:, :3] = logits[:, -3:] = -math.inf
    uniforms = torch.full((len(logits),), number, dtype=torch.float64)
    assert (choose_tokens(logits, uniforms, 1.0) == (3 if number == 0 else 36)).all()
