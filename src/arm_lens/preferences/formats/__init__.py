"""The published formats of preference data: how each is recognised by its fields, and how its rows are read.

A format is an entry of the registry (`registry.py`): its name, the fields it needs, the fields it is recognised by, and
one small function from a row to preferences. `general.py` holds the general format, TRL's; `rewardbench.py`
and `benchmarks.py` hold those of the benchmarks.
"""

from arm_lens.preferences.formats import benchmarks, general, rewardbench
from arm_lens.preferences.formats.registry import Format, known_formats, recognise, register, registered

for _format in (*general.FORMATS, *rewardbench.FORMATS, *benchmarks.FORMATS):
    register(_format)

__all__ = ["Format", "known_formats", "recognise", "register", "registered"]
