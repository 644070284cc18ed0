"""Activation Reward Models: few-shot reward models made by reading attention heads instead of training.

    >>> from arm_lens import ActivationRewardModel, load_model, read_preferences
    >>> model = load_model("meta-llama/Llama-3.2-1B-Instruct")
    >>> reward = ActivationRewardModel.fit(model, read_preferences("preferences.jsonl"))
    >>> reward.score(["How do I boil an egg?"], ["Eight minutes in simmering water."])

Further names are in the packages: `arm_lens.engine` reads and steers models, `arm_lens.judges` and `arm_lens.selection`
have every judge and every way of choosing heads, `arm_lens.benchmark`, `arm_lens.attribution`, `arm_lens.comparison`,
`arm_lens.study`, `arm_lens.sweep`, `arm_lens.plots` and `arm_lens.reports` work with the results.
"""

from importlib.metadata import version
from pathlib import Path

import lazy_loader

# Names and packages are imported when they are first used: __init__.pyi lists them, for type checkers too. A star import
# takes the names only.
__getattr__, __dir__, _exported = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in _exported if not (Path(__file__).parent / name).is_dir()]

__version__ = version("arm-lens")
