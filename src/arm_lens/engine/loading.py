"""Loading models with unchanged weights.

Both classes then compute the same activations, so what is fitted on one may be used on the other. That they do is checked;
see `arm_lens.engine.identity`.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, overload

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from arm_lens.engine.bridge import for_transformer_lens
from arm_lens.engine.hooked import HookedTransformer
from arm_lens.engine.identity import UnsupportedModelError, other_than, verify
from arm_lens.engine.language_model import adapter_of
from arm_lens.engine.model_info import ModelClass, bundled_model_path


@overload
def load_model(
    name_or_path: str | Path | None = ...,
    *,
    model_class: Literal["TransformerBridge"] = "TransformerBridge",
    device: str | torch.device | None = ...,
    dtype: torch.dtype = ...,
    revision: str | None = ...,
    tokenizer: PreTrainedTokenizerBase | None = ...,
    trust_remote_code: bool = ...,
) -> TransformerBridge: ...


@overload
def load_model(
    name_or_path: str | Path | None = ...,
    *,
    model_class: Literal["HookedTransformer"],
    device: str | torch.device | None = ...,
    dtype: torch.dtype = ...,
    revision: str | None = ...,
    tokenizer: PreTrainedTokenizerBase | None = ...,
    trust_remote_code: bool = ...,
) -> HookedTransformer: ...


def load_model(
    name_or_path: str | Path | None = None,
    *,
    model_class: ModelClass = "TransformerBridge",
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    trust_remote_code: bool = False,
) -> TransformerBridge | HookedTransformer:
    """Load a model with its weights unchanged: no layer norm folded, nothing centred.

    Args:
        name_or_path: a Hugging Face hub name or local folder; by default the bundled judge model.
        model_class: `HookedTransformer` needs TransformerLens 3.
        device: by default CUDA if there is one, else the CPU.
        dtype: the dtype of weights and activations.
        revision: hub branch, tag or commit.
        tokenizer: used instead of the model's own, and not changed. (For some families, such as Qwen2, Transformers takes
            the family's tokenizer class whatever the folder's tokenizer files say.)
        trust_remote_code: passed to Hugging Face.

    Raises:
        FileNotFoundError: if a local folder lacks its ``config.json``.
        ValueError: if ``model_class`` is not available here.
        ModelMismatchError: if TransformerLens does not compute what the Hugging Face model in the folder computes; the
            error says what to use instead.
        UnsupportedModelError: if the model is not a causal language model with the same heads in every layer.
        NotFiniteError: if its logits are NaN or infinite, as in float16 those of some models are.
    """
    path = str(bundled_model_path() if name_or_path is None else name_or_path)
    if Path(path).is_dir() and not (Path(path) / "config.json").exists():
        raise FileNotFoundError(f"{path} is a folder without a config.json: not a model in Hugging Face format")
    if Path(path).is_dir():
        path = str(Path(path).resolve())  # so that a recorded path is valid in every working directory
    options: dict[str, Any] = {
        "device": device or ("cuda" if torch.cuda.is_available() else "cpu"),
        "dtype": dtype,
        "tokenizer": None if tokenizer is None else for_transformer_lens(tokenizer),
        "trust_remote_code": trust_remote_code,
    }
    raw = None
    model: TransformerBridge | HookedTransformer
    if model_class not in get_args(ModelClass):
        raise ValueError(f"model_class must be 'TransformerBridge' or 'HookedTransformer', not {model_class!r}")
    if model_class == "HookedTransformer" and HookedTransformer is None:
        raise ValueError("this TransformerLens has no HookedTransformer (removed in 4.0); use TransformerBridge")
    try:
        if model_class == "TransformerBridge":
            model = TransformerBridge.boot_transformers(path, revision=revision, **options)
        elif Path(path).is_dir():
            model, raw = _hooked_from_folder(path, **options)
        else:
            model = HookedTransformer.from_pretrained_no_processing(path, revision=revision, **options)
    except (OSError, ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # TransformerLens meets configs that it does not know with errors of any kind
        raise UnsupportedModelError(
            f"{path}: TransformerLens {version('transformer-lens')} cannot make a {model_class} of this model "
            f"({type(error).__name__}: {error}); use {other_than(model_class)}"
        ) from error
    if tokenizer is not None:
        _use_tokenizer(model, tokenizer)
    verify(adapter_of(model), raw)
    return model


def _hooked_from_folder(
    path: str,
    device: str | torch.device,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerBase | None,
    trust_remote_code: bool,
) -> tuple[HookedTransformer, PreTrainedModel]:
    """Do for a folder what `HookedTransformer.from_pretrained` does for hub names only; and the Hugging Face model."""
    loading = import_module("transformer_lens.loading_from_pretrained")
    hf_config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    with tempfile.TemporaryDirectory() as neutral:
        # The conversion guesses the architecture from the path ("llama") before it looks into the config, and needs a field
        # of GPT-2 that only old configs have.
        known = hf_config.to_dict()
        known.setdefault("n_ctx", known.get("n_positions"))
        (Path(neutral) / "config.json").write_text(json.dumps(known), encoding="utf-8")
        config = {key: value for key, value in loading.convert_hf_model_config(neutral).items() if value is not None}
    config |= {"model_name": path, "tokenizer_name": path, "device": str(device), "dtype": dtype}
    # TransformerLens caps or fixes some families' context; never let it exceed the model's own.
    config["n_ctx"] = min(config["n_ctx"], getattr(hf_config, "max_position_embeddings", None) or config["n_ctx"])
    d_head = getattr(hf_config, "head_dim", None)
    if d_head and d_head != config["d_head"]:  # for some families TransformerLens takes d_model // n_heads
        rotary = {"rotary_dim": d_head} if config.get("rotary_dim") == config["d_head"] else {}
        config |= {"d_head": d_head, **rotary}
    cfg = import_module("transformer_lens").HookedTransformerConfig.from_dict(config)
    hf_model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, trust_remote_code=trust_remote_code)
    state = loading.get_pretrained_state_dict(path, cfg, hf_model=hf_model, dtype=dtype)
    if tokenizer is None:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg, tokenizer=tokenizer)
    model.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval(), hf_model


def _use_tokenizer(model: TransformerBridge | HookedTransformer, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a TransformerLens model use a tokenizer object as it is; its setters load another one."""
    if isinstance(model, TransformerBridge):
        model._tokenizer = tokenizer  # type: ignore[assignment]
    else:
        model.tokenizer = tokenizer
    encoded = tokenizer.encode("a")
    model.cfg.tokenizer_prepends_bos = len(encoded) > 1 and encoded[0] == tokenizer.bos_token_id
