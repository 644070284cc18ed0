"""What the benchmarks share: medians of alternating calls, peak memory, random models of real shapes, parts on disk."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from arm_lens import load_model
from arm_lens.judge_model.tokenizer import build_tokenizer
from arm_lens.storage import digest_of, digest_of_bytes, read_sealed, write_sealed

SHAPES: dict[str, dict[str, int]] = {
    "6 layers of 512": dict(
        num_hidden_layers=6, hidden_size=512, intermediate_size=1376, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=32_000,
    ),
    "GPT-2 small": dict(
        num_hidden_layers=12, hidden_size=768, intermediate_size=2048, num_attention_heads=12, num_key_value_heads=12,
        vocab_size=50_257,
    ),
    "0.5B": dict(
        num_hidden_layers=24, hidden_size=896, intermediate_size=4864, num_attention_heads=14, num_key_value_heads=2,
        vocab_size=151_936,
    ),
    "1.5B": dict(
        num_hidden_layers=28, hidden_size=1536, intermediate_size=8960, num_attention_heads=12, num_key_value_heads=2,
        vocab_size=151_936,
    ),
    "7B": dict(
        num_hidden_layers=28, hidden_size=3584, intermediate_size=18_944, num_attention_heads=28, num_key_value_heads=4,
        vocab_size=152_064,
    ),
}  # fmt: skip
"""Layers, widths and vocabularies of a small model of 6 layers, of GPT-2 small, and of Qwen2.5's 0.5B, 1.5B and 7B, all
with Llama's blocks."""


def synchronise() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(*functions: Callable[[], Any], repeats: int, patience: float = 30.0) -> list[float]:
    """The median time of each function, after one call of each to warm up; calls of them alternate.

    Slow ones are repeated less often, but at least twice, if ``patience`` seconds are spent.
    """
    times: list[list[float]] = [[] for _ in functions]
    begun = time.perf_counter()
    for repeat in range(repeats + 1):
        if repeat > 2 and time.perf_counter() - begun > patience:
            break
        for place, function in enumerate(functions):
            synchronise()
            started = time.perf_counter()
            function()
            synchronise()
            if repeat:
                times[place].append(time.perf_counter() - started)
    return [statistics.median(some) for some in times]


class TensorMemory(TorchDispatchMode):
    """Within, counts the bytes of all tensors made and not yet freed: ``live``, and ``peak``, the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and take note of storages not seen before."""
        made = func(*args, **(kwargs or {}))
        given = {id(one.untyped_storage()) for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in given and storage not in self._known:
                    self._known[storage] = True
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def _freed(self, size: int) -> None:
        self.live -= size


def peak_mib(function: Callable[[], Any], device: str) -> float:
    """How much memory tensors take at the peak of a call beyond what was there before, in MiB.

    On a GPU the allocator knows; on a CPU every operation is watched, which slows the call.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with TensorMemory() as memory:
        function()
    return memory.peak / 2**20


def random_model(shape: str, model_class: str, device: str, dtype: torch.dtype) -> Any:
    """A model of a real shape with random weights; HookedTransformer's loader wants it on disk, so all come from there."""
    config = transformers.LlamaConfig(
        **SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        build_tokenizer(512).save_pretrained(folder)
        with torch.device(device):
            transformers.LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
        return load_model(folder, model_class=model_class, device=device, dtype=dtype)


def free(device: str) -> None:
    """Give memory of deleted tensors back."""
    if device == "cuda":
        torch.cuda.empty_cache()


def claim(out: Path, made_of: dict[str, Any]) -> None:
    """Make a folder for the parts of one run; what they depend on, except what stands in their names, is ``made_of``.

    Raises:
        SystemExit: naming the difference, if the folder has parts that were made of something else.
    """
    path, now = out / "parts" / "made_of.json", json.loads(json.dumps(made_of))
    if not path.exists() and any((out / "parts").glob("*")):
        raise SystemExit(f"{out} has parts, but no record of what they were made of; choose another --out")
    known = json.loads(read_sealed(path)) if path.exists() else now
    for name in sorted({*known, *now}):
        if known.get(name) != now.get(name):
            change = f"{name} was {known.get(name)!r}, and is {now.get(name)!r}"
            raise SystemExit(f"{out} has parts of another run: {change}; choose another --out")
    write_sealed(path, json.dumps(now).encode())


def kept(out: Path, name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns, from DIR/parts if an earlier run got that far; `claim` says which runs may go on there."""
    path = out / "parts" / f"{name}.json"
    if not path.exists():
        made = make()
        write_sealed(path, json.dumps(made).encode())
    return json.loads(read_sealed(path))


def digest_of_files(folder: Path) -> str:
    """A digest of the data files in a folder."""
    return digest_of([[one.name, digest_of_bytes(one.read_bytes())] for one in sorted(folder.glob("*.jsonl"))])


def machine(device: str, dtype: str) -> dict[str, Any]:
    """What it ran on."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "device": gpu or "CPU", "cores": psutil.cpu_count(logical=False), "threads": torch.get_num_threads(),
        "dtype": dtype,
        **{package: version(package) for package in ("arm-lens", "torch", "transformer-lens", "transformers")},
    }  # fmt: skip
