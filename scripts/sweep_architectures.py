"""Every architecture that TransformerLens lists, made tiny and loaded through arm_lens: right, refused, or not to be made.

    python scripts/sweep_architectures.py run results.json          # with the TransformerLens that is installed
    python scripts/sweep_architectures.py table results*.json       # docs/architectures.md

A model is made from a small config with random weights, saved and loaded with each model class. It is right if its logits
after prompts of up to 40 tokens, alone and in padded batches, are those of the Hugging Face model to 1e-4 of their standard
deviation. It may be refused, in words. Anything else fails the run.
"""
# ruff: noqa: E402 (libraries read the environment when they are imported)

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

# TransformerLens installs torchvision by itself if a processor needs it, and looks for models on the hub.
OFFLINE = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
if __name__ == "__main__":  # before libraries read it, but not where this is imported
    os.environ |= OFFLINE

import torch
import transformers
from torch import Tensor
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

from arm_lens import load_model
from arm_lens.engine import (
    ModelClass,
    NotFiniteError,
    UncheckedModelWarning,
    UnsupportedModelError,
    language_model,
    last_logits,
    pad,
)
from arm_lens.engine.hooked import HookedTransformer
from arm_lens.judge_model.tokenizer import build_tokenizer

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
Verdict = Literal["right", "refused", "not made", "wrong", "failed"]
ALLOWED = 1e-4
"""By how much the logits of a right model may differ from those of transformers, in standard deviations."""
SECONDS = 120
"""How long one architecture may take."""
VOCABULARY = 512
SEQUENCES = [
    torch.randint(20, 200, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (40, 17, 3)
]

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 0,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "model_dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim",
         "intermediate_size_mlp", "shared_expert_intermediate_size", "dense_intermediate_size"), 64
    ),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "moe_shared_expert_intermediate_size"), 16),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
         "num_decoder_layers"), 2
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
         "attention_heads", "linear_num_value_heads"), 4
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "linear_num_key_heads", "num_global_key_value_heads"), 2),
    **dict.fromkeys(
        ("head_dim", "kv_channels", "d_kv", "linear_key_head_dim", "linear_value_head_dim", "qk_nope_head_dim", "v_head_dim",
         "attention_head_dim"), 8
    ),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 4),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 8),
    **dict.fromkeys(
        ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "num_total_experts"), 4
    ),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"), 128),
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state"), 8),
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
}  # fmt: skip
"""Small values for the fields of configs, by name."""
OVERRIDES: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": {"n_inner": None},
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 1]], "intermediate_size": None},
    "GPTJForCausalLM": {"n_inner": None},
    "BambaForCausalLM": {"mamba_n_heads": 4, "mamba_d_head": 16},
    "GraniteMoeHybridForCausalLM": {
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "layer_types": ["mamba", "attention"],
        "shared_intermediate_size": 64,
    },
    "Emu3ForConditionalGeneration": {"vocabulary_map": {"<image>": 5}},
    "Mamba2ForCausalLM": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "Lfm2ForCausalLM": {"layer_types": ["conv", "full_attention"]},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
}
"""What a config needs in addition, by architecture."""


@dataclass(frozen=True)
class Outcome:
    """What came of an architecture with a model class."""

    verdict: Verdict
    detail: str


# ------------------------------------------------------------------------------------------ tiny models


def known_to_hooked_transformer() -> list[str]:
    """The Hugging Face classes that TransformerLens converts to a HookedTransformer."""
    source = Path(import_module("transformer_lens.loading_from_pretrained").__file__ or "").read_text(encoding="utf-8")
    return [
        name for name in dir(transformers) if name.endswith(("ForCausalLM", "LMHeadModel")) and f'"{name}"' in source
    ]


def tiny_config(architecture: str) -> transformers.PretrainedConfig:
    """A small config of an architecture.

    Raises:
        LookupError: if transformers has no class of this name.
    """
    kind = getattr(transformers, architecture, None)
    if kind is None or getattr(kind, "config_class", None) is None:
        raise LookupError(
            "transformers has no class of this name (its code is on the hub, or it is not a language model)"
        )
    return shrunk(kind.config_class, OVERRIDES.get(architecture, {}))


def shrunk(kind: type[transformers.PretrainedConfig], changes: dict[str, Any]) -> transformers.PretrainedConfig:
    """A config of a class with small values for all fields that `SMALL` knows."""
    default = kind()
    fields = default.to_dict()
    options = {name: value for name, value in SMALL.items() if name in fields}
    if "qk_rope_head_dim" in fields:  # of which head_dim is another name
        options.pop("head_dim", None)
        options["num_key_value_heads"] = options["num_attention_heads"]
    for name, value in fields.items():
        if isinstance(value, dict) and isinstance(part := getattr(default, name), transformers.PretrainedConfig):
            options[name] = shrunk(type(part), {}).to_dict()
        elif name in ("layer_types", "layers_block_type", "mlp_layer_types") and isinstance(value, list):
            kinds = list(dict.fromkeys(value))[:2]
            options[name] = kinds if len(kinds) == 2 else value[:2]
    return kind(**options | changes)


def save_tiny(architecture: str, folder: Path) -> Any:
    """A random model of an architecture, saved with a tokenizer."""
    torch.manual_seed(0)
    config = tiny_config(architecture)
    model: Any = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and "A_log" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    build_tokenizer(VOCABULARY).save_pretrained(folder)
    return model


# ------------------------------------------------------------------------------------------ one architecture


@torch.no_grad()
def deviation(found: Any, raw: Any) -> float:
    """The largest difference from transformers in standard deviations: alone, and padded on either side."""
    expected = torch.stack([raw(torch.tensor([sequence]), use_cache=False).logits[0, -1] for sequence in SEQUENCES])
    alone = torch.cat([last_logits(found, pad([sequence])) for sequence in SEQUENCES])
    sides: list[Tensor] = [last_logits(found, pad(SEQUENCES, side=side)) for side in ("left", "right")]
    return max(float((one - expected).abs().max() / expected.std()) for one in (alone, *sides))


def outcome(architecture: str, model_class: ModelClass) -> Outcome:
    """Make an architecture tiny, load it and compare it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        try:
            raw = save_tiny(architecture, folder)
        except Exception as error:  # any config of transformers may want other fields
            return Outcome("not made", f"{type(error).__name__}: {error}")
        try:
            model = load_model(folder, model_class=model_class, tokenizer=build_tokenizer(VOCABULARY))
        except (UnsupportedModelError, NotFiniteError) as error:
            return Outcome("refused", str(error).replace(f"{folder}: ", ""))
        except (OSError, ImportError) as error:
            return Outcome("not made", f"{type(error).__name__}: {error}".replace(str(folder), "the folder"))
        except Exception as error:
            return Outcome("failed", f"{type(error).__name__}: {error}")
        kind = type(raw)
        if not hasattr(raw, "get_output_embeddings") or raw.get_output_embeddings() is None:
            kind = transformers.AutoModelForCausalLM  # of which this was the body
        raw = kind.from_pretrained(folder).eval()  # as it was saved: some tie weights that were not tied
        off = deviation(model, raw)
        found = language_model(model)
        shape = f"{found.n_layers} x {found.n_heads} heads of {found.d_head}"
        return Outcome("right" if off <= ALLOWED else "wrong", f"{off:.1g} ({shape})")


def apart(architecture: str, model_class: ModelClass) -> Outcome:
    """`outcome` in a process of its own, so that no architecture can stop the others."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def work(answer: Connection) -> None:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", UncheckedModelWarning)
        try:
            answer.send(outcome(architecture, model_class))
        except BaseException as error:
            answer.send(Outcome("failed", f"{type(error).__name__}: {error}"))

    process = context.Process(target=work, args=(there,))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(SECONDS) else Outcome("failed", f"not done after {SECONDS} seconds")
    except EOFError:
        return Outcome("failed", "the process ended without an answer")
    finally:
        process.kill()
        process.join()


def sweep(architectures: Sequence[str]) -> Iterator[tuple[str, ModelClass, Outcome]]:
    """The outcomes of architectures with each model class of the TransformerLens that is installed."""
    hooked = known_to_hooked_transformer() if HookedTransformer is not None else []
    for architecture in architectures:
        if architecture in SUPPORTED_ARCHITECTURES:
            yield architecture, "TransformerBridge", apart(architecture, "TransformerBridge")
        if architecture in hooked:
            yield architecture, "HookedTransformer", apart(architecture, "HookedTransformer")


def everything() -> list[str]:
    """All architectures that the TransformerLens that is installed lists."""
    hooked = known_to_hooked_transformer() if HookedTransformer is not None else []
    return sorted({*SUPPORTED_ARCHITECTURES, *hooked})


# ------------------------------------------------------------------------------------------ results


def run(path: Path, architectures: Sequence[str]) -> int:
    """Sweep and write the results as JSON; 1 if any model is wrong or failed without being refused."""
    results: list[dict[str, str]] = []
    for architecture, model_class, found in sweep(architectures):
        print(f"{architecture:40s} {model_class:18s} {found.verdict:9s} {found.detail[:200]}", flush=True)
        results.append({"architecture": architecture, "model_class": model_class, **asdict(found)})
    versions = {name: version(name) for name in ("transformer-lens", "transformers", "torch")}
    path.write_text(json.dumps({"versions": versions, "results": results}, indent=1), encoding="utf-8")
    return int(any(result["verdict"] in ("wrong", "failed") for result in results))


def cell(result: dict[str, str] | None) -> str:
    """A result as a table's cell."""
    if result is None:
        return ""
    detail = " ".join(result["detail"].split()).replace("|", "\\|")
    return f"**{result['verdict']}** {detail[:160]}{'…' if len(detail) > 160 else ''}"


def table(paths: Sequence[Path]) -> str:
    """The page of results."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    columns = {
        (number, kind): f"{kind} of TransformerLens {one['versions']['transformer-lens']}"
        for number, one in enumerate(runs)
        for kind in dict.fromkeys(result["model_class"] for result in one["results"])
    }
    found = {
        (number, result["model_class"], result["architecture"]): result
        for number, one in enumerate(runs)
        for result in one["results"]
    }
    names = sorted({name for *_, name in found})
    rows = [
        f"| `{name}` | " + " | ".join(cell(found.get((*column, name))) for column in columns) + " |" for name in names
    ]
    versions = ", ".join(f"{name} {one}" for name, one in runs[0]["versions"].items() if name != "transformer-lens")
    counts = [
        f"- {title}: "
        + ", ".join(
            f"{sum(result['verdict'] == verdict for (*key, _), result in found.items() if tuple(key) == column)} {verdict}"
            for verdict in ("right", "refused", "not made", "wrong", "failed")
        )
        for column, title in columns.items()
    ]
    return "\n".join(
        [
            "# Architectures",
            "",
            "Every architecture that TransformerLens lists, as a tiny random model loaded through `arm_lens.load_model`",
            f"({versions}). Written by `scripts/sweep_architectures.py`.",
            "",
            "- **right**: logits after 40, 17 and 3 tokens, alone and padded on either side, are those of transformers; the",
            "  number is the largest difference in standard deviations (at most 1e-4), then layers, heads and d_head.",
            "- **refused**: `load_model` and `language_model` raise an error that says why, and what to use instead.",
            "- **not made**: transformers cannot make a tiny model of this architecture here, for the reason that follows.",
            "",
            *counts,
            "",
            "| architecture | " + " | ".join(columns.values()) + " |",
            "|" + "---|" * (len(columns) + 1),
            *rows,
            "",
        ]
    )


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="sweep, and write the results as JSON")
    running.add_argument("results", type=Path)
    running.add_argument("architectures", nargs="*", help="by default all")
    writing = commands.add_parser("table", help=f"write {PAGE.name} from results")
    writing.add_argument("results", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "run":
        return run(given.results, given.architectures or everything())
    PAGE.write_text(table(given.results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
