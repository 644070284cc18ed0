"""How far logits may differ to count as the same, in standard deviations of the logits."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.03}
"""By how much logits may differ, in standard deviations of the logits; 0.3 in other dtypes, for
rounding in bfloat16 was seen to explain 0.2."""
PROCESSED = 5
"""How much larger the tolerance is for weights that TransformerLens has folded or centred; at most `LARGEST`."""
LARGEST = 0.5
"""No rounding is allowed more."""
NEVER = 1000.0
"""Tokens whose logit is that much smaller than the largest are ruled out, however much smaller it is."""
QUANTISED = 0.3
"""The tolerance for quantised weights, whose activations may be rounded by batch."""


def tolerance(dtype: torch.dtype, *, processed: bool = False, quantised: bool = False) -> float:
    """By how much logits may differ, in standard deviations of the logits."""
    if quantised:
        return QUANTISED
    return min(TOLERANCE.get(dtype, 0.3) * (PROCESSED if processed else 1), LARGEST)


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference of logits in standard deviations; infinite where a number is not finite that should be."""
    if found.shape != expected.shape:
        return torch.inf
    ours, theirs = (logits < logits.amax(dim=-1, keepdim=True) - NEVER for logits in (found, expected))
    masked = ours & theirs  # tokens that some models never predict
    spread = expected[expected.isfinite() & ~masked]
    off = (found - expected).masked_fill(masked, 0.0).abs().max()
    scale = spread.std().clamp(min=1e-6 * float(spread.abs().max()) + 1e-30)
    return float((off / scale).nan_to_num(nan=torch.inf))
