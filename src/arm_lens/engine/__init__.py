"""Everything that touches a model: reading and writing ``hook_z``, prefix cache, exact replay, gates, verdict tokens.

Every function takes a `TransformerBridge`, a `HookedTransformer`, or a Hugging Face model with its tokenizer, and uses it as
a `LanguageModel`.
"""

from arm_lens.engine.finite import NotFiniteError
from arm_lens.engine.gates import gap_slopes, gated_slopes, gated_verdicts
from arm_lens.engine.identity import ModelMismatchError, UncheckedModelWarning, UnsupportedModelError
from arm_lens.engine.images import NoImagesError
from arm_lens.engine.kv_segments import KVSegment
from arm_lens.engine.language_model import ModelLike, describe, language_model, last_logits
from arm_lens.engine.loading import load_model
from arm_lens.engine.memory import memory_limit
from arm_lens.engine.model_info import BUNDLED_IMAGE_NAME, BUNDLED_NAME, ModelClass, ModelInfo, bundled_model_path
from arm_lens.engine.prefix_cache import Prefixes
from arm_lens.engine.protocol import LanguageModel
from arm_lens.engine.reading import HeadMeans, fingerprint, mean_heads, read_all, read_batch, read_heads
from arm_lens.engine.replay import Replay, SlowReplayWarning
from arm_lens.engine.sampling import sample_tokens
from arm_lens.engine.sharing import shared_readings
from arm_lens.engine.steering import Injection, steer
from arm_lens.engine.tokens import MixedLengthsError, PromptTooLongError, TokenBatch, chunks, pad
from arm_lens.engine.verdict_tokens import (
    VerdictPieceWarning,
    VerdictScores,
    VerdictTokenError,
    VerdictTokens,
    resolve_verdicts,
    verdict_scores,
)

__all__ = [
    "BUNDLED_IMAGE_NAME",
    "BUNDLED_NAME",
    "HeadMeans",
    "Injection",
    "KVSegment",
    "LanguageModel",
    "MixedLengthsError",
    "ModelClass",
    "ModelInfo",
    "ModelLike",
    "ModelMismatchError",
    "NoImagesError",
    "NotFiniteError",
    "Prefixes",
    "PromptTooLongError",
    "Replay",
    "SlowReplayWarning",
    "TokenBatch",
    "UncheckedModelWarning",
    "UnsupportedModelError",
    "VerdictPieceWarning",
    "VerdictScores",
    "VerdictTokenError",
    "VerdictTokens",
    "bundled_model_path",
    "chunks",
    "describe",
    "fingerprint",
    "gap_slopes",
    "gated_slopes",
    "gated_verdicts",
    "language_model",
    "last_logits",
    "load_model",
    "mean_heads",
    "memory_limit",
    "pad",
    "read_all",
    "read_batch",
    "read_heads",
    "resolve_verdicts",
    "sample_tokens",
    "shared_readings",
    "steer",
    "verdict_scores",
]
