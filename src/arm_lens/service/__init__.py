"""Saved reward models behind HTTP: requests of many clients are batched, and all reward models share each pass.

``served`` loads the judges, ``batching`` collects what waits, ``scoring`` asks the language model, ``app`` is the interface,
``guard`` what every request passes first, and ``run`` the process. The package needs the extra ``serve``.
"""

from __future__ import annotations

from arm_lens.service.batching import Batcher, QueueFullError
from arm_lens.service.options import ServiceOptions

__all__ = ["Batcher", "QueueFullError", "ServiceOptions"]
