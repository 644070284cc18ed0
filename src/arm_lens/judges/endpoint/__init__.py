"""A language model behind an OpenAI-compatible endpoint as a judge."""

from arm_lens.judges.endpoint.judge import EndpointJudge
from arm_lens.judges.endpoint.options import EndpointOptions

__all__ = ["EndpointJudge", "EndpointOptions"]
