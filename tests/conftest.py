"""Small random models of several families, saved to disk in Hugging Face format, and jaxtyping checks on.

Libraries that take seconds to import are imported by the fixtures that use them: not every test needs them.
"""

from __future__ import annotations

import copy
import os
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

# Shapes in signatures are checked by beartype while tests run, and never in use.
install_import_hook("arm_lens", "beartype.beartype")

import pytest  # noqa: E402

if TYPE_CHECKING:
    import torch
    import transformers

    from arm_lens.engine import ModelClass, ModelLike

SHARED = Path(__file__).resolve().parents[2] / "shared"
HOOKED = Path(find_spec("transformer_lens").origin).with_name("HookedTransformer.py").exists()


def _config(family: str, vocab: int) -> transformers.PretrainedConfig:
    import transformers

    common = {"vocab_size": vocab, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    llama_like = common | {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "head_dim": 12,  # other than d_model / n_heads
        "tie_word_embeddings": False,
    }
    if family == "llama":
        return transformers.LlamaConfig(**llama_like)
    if family == "qwen2":
        return transformers.Qwen2Config(**(llama_like | {"head_dim": 8}))
    if family == "qwen3":
        return transformers.Qwen3Config(**llama_like)
    if family == "gpt2":
        return transformers.GPT2Config(**common, n_embd=32, n_layer=3, n_head=4, n_positions=512)
    if family == "gpt_neox":
        return transformers.GPTNeoXConfig(
            **common,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=512,
            rotary_pct=0.5,
            tie_word_embeddings=False,
        )
    raise ValueError(family)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> transformers.PreTrainedTokenizerFast:
    import transformers

    from arm_lens.judge_model.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")  # TransformerLens wants one that came from disk
    build_tokenizer(512).save_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, tokenizer):
    """folder_of(family): a random model of that family on disk."""
    import torch
    import transformers

    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            torch.manual_seed(0)
            config = _config(family, len(tokenizer))
            model = transformers.AutoModelForCausalLM.from_config(config).eval()
            with torch.no_grad():  # large enough for steering to show, biases included
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
            folder = tmp_path_factory.mktemp("models") / f"random-{family}"
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[family] = folder
        return made[family]

    return make


@pytest.fixture(scope="session")
def model_of(folder_of, tokenizer):
    """model_of(family, model_class): a loaded random model; shared by tests, which must not change it."""
    from arm_lens import load_model

    loaded: dict[tuple[str, str], ModelLike] = {}

    def load(family: str = "llama", model_class: ModelClass = "TransformerBridge") -> ModelLike:
        if (family, model_class) not in loaded:
            loaded[family, model_class] = load_model(
                folder_of(family), model_class=model_class, tokenizer=copy.deepcopy(tokenizer)
            )
        return loaded[family, model_class]

    return load


@pytest.fixture
def fresh(tmp_path, tokenizer):
    """fresh(config, model_class): a random model of which nothing is known yet."""
    import torch
    import transformers

    from arm_lens import load_model

    def make(config, model_class="TransformerBridge", auto=transformers.AutoModelForCausalLM):
        torch.manual_seed(0)
        model = auto.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return load_model(tmp_path, model_class=model_class, tokenizer=copy.deepcopy(tokenizer))

    return make


@pytest.fixture(scope="session")
def raw_of(folder_of):
    """raw_of(family): the Hugging Face model in float64, without TransformerLens."""
    import torch
    import transformers

    loaded = {}

    def load(family):
        if family not in loaded:
            auto = transformers.AutoModelForCausalLM
            model = auto.from_pretrained(folder_of(family), attn_implementation="eager", dtype=torch.float64)
            loaded[family] = model.eval().requires_grad_(False)
        return loaded[family]

    return load


def pytest_configure(config: pytest.Config) -> None:
    """Import here what the warnings of other processes are made of: pytest-xdist makes them again in this process, in a
    thread for each of the others, and two that import the same modules for the first time get halves of them.
    """
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        for name in ("transformer_lens", "arm_lens.attribution", "arm_lens.benchmark"):
            import_module(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What draws images or opens pages needs a browser, whether a test says so or one of its fixtures.

    The files that take minutes come first: pytest merges arguments that contain each other, so that naming them first on
    the command line does not help, and at the end one process would wait for the other.
    """
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
    long = {item.path for item in items if any(item.get_closest_marker(name) for name in ("notebook", "real"))}
    items.sort(key=lambda item: item.path not in long)


MODEL_CLASSES = [
    "TransformerBridge",
    pytest.param(
        "HookedTransformer",
        marks=pytest.mark.skipif(not HOOKED, reason="this TransformerLens has no HookedTransformer"),
    ),
]
FAMILIES = ["llama", "gpt2", "qwen2", "gpt_neox"]


@pytest.fixture(params=MODEL_CLASSES)
def model_class(request: pytest.FixtureRequest) -> ModelClass:
    return request.param


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def generator() -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium. CI installs one; elsewhere, tests that draw images or open pages may do without."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        explanation = (
            "images are drawn and pages opened with Chromium, which is not installed: apt-get install chromium"
        )
        pytest.fail(explanation) if os.environ.get("CI") else pytest.skip(explanation)
    return found


@pytest.fixture(scope="session")
def judge() -> ModelLike:
    """The bundled judge model."""
    from arm_lens import load_model

    return load_model()
