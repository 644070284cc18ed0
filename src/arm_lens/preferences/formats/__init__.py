"""The published formats of preference data: how each is recognised by its fields, and how its rows are read.

A format is an entry of the registry (`registry.py`): its name, the fields it needs, the fields it is recognised by, and
one small function from a row to preferences. `general.py` has the general format, TRL's, and `vision.py` its images;
`rewardbench.py`, `benchmarks.py` and `multimodal.py` have those of the benchmarks.
"""

from arm_lens.preferences.formats import benchmarks, general, multimodal, rewardbench
from arm_lens.preferences.formats.registry import Format, known_formats, recognise, register, registered

for _format in (*general.FORMATS, *rewardbench.FORMATS, *benchmarks.FORMATS, *multimodal.FORMATS):
    register(_format)

__all__ = ["Format", "known_formats", "recognise", "register", "registered"]
