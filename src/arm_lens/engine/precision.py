"""The dtype in which a model computes, if its user names none: what its weights and the machine are good at.

Weights in half precision, or unpacked from quantised blocks, have no more to give than bfloat16 keeps, and some hardware
multiplies bfloat16 several times as fast as float32; other hardware takes longer. So:

- weights in float32 compute in float32;
- all others in bfloat16 if a GPU of CUDA has units for it (compute capability 8.0 or more), or if a CPU multiplies two
  bfloat16 matrices at least `CLEARLY` times as fast as it does in float32, which is measured once per process;
- otherwise in float32, on other devices too.

Never in float16, in which the activations of some models overflow. The choice is logged, once per model. A fitted judge
records the dtype, and is loaded in it on every machine.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import Literal, TypeAlias

import torch

DtypeName: TypeAlias = Literal["auto", "float64", "float32", "bfloat16", "float16"]
"""A dtype by name, or ``auto``: see `arm_lens.engine.precision`."""
QUANTISED = torch.uint8
"""Stands for weights in quantised blocks, of any kind."""
CLEARLY = 1.5
"""The smallest ratio of times at which bfloat16 is chosen."""
SIZE, REPEATS = 512, 30
"""Rows of the square matrices that are multiplied, and how often."""
BFLOAT16_CAPABILITY = (8, 0)
"""The CUDA compute capability from which on GPUs have units for bfloat16."""
LOG = logging.getLogger("arm_lens")


def chosen_dtype(name: str, weights: torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype for a model that is loaded without one; the choice is logged if there was one.

    Args:
        name: the model's name, for the log.
        weights: the dtype of its weights on disk, or `QUANTISED`; without one, or with torch.float32, there is nothing to
            choose.
        device: where it will compute.
    """
    if weights not in (torch.bfloat16, torch.float16, QUANTISED):
        return torch.float32
    dtype, reason = _fast_on(device)
    kind = "quantised" if weights == QUANTISED else f"in {_named(weights)}"
    _say_once(f"{name} computes in {_named(dtype)}: its weights are {kind}, and {reason} (dtype chooses another)")
    return dtype


def dtype_of(name: DtypeName | torch.dtype) -> torch.dtype | None:
    """The torch dtype of a name; None for ``auto``.

    Raises:
        ValueError: if there is no such floating-point dtype.
    """
    dtype = name if isinstance(name, torch.dtype) else getattr(torch, name, None)
    if name == "auto":
        return None
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be 'auto', 'float32', 'bfloat16', 'float16' or a torch dtype, not {name!r}")
    return dtype


def _fast_on(device: torch.device) -> tuple[torch.dtype, str]:
    """The faster of float32 and bfloat16 on a device, and why."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        units = "has" if capability >= BFLOAT16_CAPABILITY else "has no"
        reason = f"{torch.cuda.get_device_name(device)} {units} units for bfloat16"
        return torch.bfloat16 if capability >= BFLOAT16_CAPABILITY else torch.float32, reason
    if device.type != "cpu":
        return torch.float32, f"bfloat16 is not measured on devices of the kind {device.type}"
    ratio = cpu_speedup()
    if ratio >= CLEARLY:
        return torch.bfloat16, f"this CPU multiplies bfloat16 {ratio:.1f} times as fast as float32"
    return torch.float32, f"this CPU does not multiply bfloat16 clearly faster than float32 ({ratio:.1f} times as fast)"


@functools.cache
def cpu_speedup() -> float:
    """How many times as fast as float32 the CPU multiplies bfloat16 matrices, measured once per process.

    It takes about a tenth of a second. The ratio is that of the shortest times: what else the machine does can only add to a
    time, and processes of one run should choose alike.
    """
    matrices = {dtype: torch.ones(SIZE, SIZE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in matrices}
    with torch.inference_mode():
        for _ in range(REPEATS):  # in turn, so that what else the machine does meets both
            for dtype, matrix in matrices.items():
                start = time.perf_counter()
                torch.mm(matrix, matrix)
                seconds[dtype].append(time.perf_counter() - start)
    return min(seconds[torch.float32]) / min(seconds[torch.bfloat16])


@functools.cache
def _say_once(text: str) -> None:
    """Log a text at its first occurrence, to standard error unless the user has set up logging."""
    if not LOG.hasHandlers():
        LOG.addHandler(logging.StreamHandler())
    if LOG.level == logging.NOTSET:
        LOG.setLevel(logging.INFO)
    LOG.info(text)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
