"""The published search on the replay against the same search as published, one hooked full pass for every mask."""

from __future__ import annotations

import pytest
import torch
from published_loop import published_loop

from arm_lens import PUBLISHED, Reinforce
from arm_lens.engine import Replay, VerdictTokens
from arm_lens.selection import JudgingObjective, reinforce

SEQUENCES = [[1, 9, 30, 41, 52], [1, 77, 14, 8], [1, 20, 21, 22, 23, 24], [1, 8, 60]]
VERDICTS = VerdictTokens((5,), (6, 7))
LABELS = [True, False, False, True]


@pytest.mark.slow
def test_both_see_the_same_rewards_and_choose_the_same_heads(model_of, model_class):
    model = model_of("llama", model_class)
    values = torch.randn(model.cfg.n_layers, model.cfg.n_heads, 12, generator=torch.Generator().manual_seed(1))
    targets = [VERDICTS.positive if label else VERDICTS.negative for label in LABELS]
    chosen, rewards = published_loop(model, SEQUENCES, targets, values, steps=12, masks_per_step=6, seed=3)
    options = Reinforce(**{**PUBLISHED.model_dump(), "steps": 12, "masks": 6})
    objective = JudgingObjective(Replay(model, SEQUENCES, VERDICTS), values, LABELS, "log_prob")
    found = reinforce(objective, model.cfg.n_layers, model.cfg.n_heads, n_examples=len(LABELS), options=options, seed=3)
    torch.testing.assert_close(torch.tensor(found.history["reward"].to_numpy()).float(), torch.tensor(rewards))
    assert torch.equal(found.heads.mask, chosen)
    assert 0 < len(found.heads) < chosen.numel()
