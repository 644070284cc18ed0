"""An objective whose reward is the sum of what heads add."""

from __future__ import annotations

import torch


class Additive:
    """Each head adds its effect, in proportion to its gate; two examples lie evenly around the sum.

    It remembers the masks that it was asked for on all examples, as tuples.
    """

    def __init__(self, effects):
        self.effects = torch.tensor(effects)
        self.shape = tuple(self.effects.shape)
        self.asked = []

    def __len__(self):
        return 2

    def __call__(self, masks, examples=None):
        if examples is None:
            self.asked += [tuple(mask.flatten().tolist()) for mask in masks]
        return (masks * self.effects).sum(dim=(1, 2))

    def gated(self, gates):
        reward = (self.effects * gates).sum()
        return torch.stack([reward + 0.5, reward - 0.5])
