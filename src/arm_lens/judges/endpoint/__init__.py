"""A language model behind an OpenAI-compatible endpoint as a judge."""

from arm_lens.judges.endpoint.judge import EndpointJudge

__all__ = ["EndpointJudge"]
