"""Preference data: what a judge is shown, and what it should say about it.

A *preference* comes in one of two forms. A `PreferencePair` holds a prompt and two responses, one of which was chosen
over the other by people or by a rule. A `LabelledResponse` holds a prompt, one response and whether that response meets
the criterion: the scalar form, which an activation reward model is fitted on. `unpair` turns the first form into the
second: a chosen response meets its criterion, a rejected one does not.

A *criterion* says in what respect one response is better. It may be written out ("is polite"), or left empty, to be
inferred from examples. The same prompt under two criteria is two different questions.

Prompts and responses are plain text or conversations, that is, messages with a role and a content. `text_of` gives the
plain text of either. `read_preferences` reads the forms in which the ecosystem keeps such data (TRL's prompt, chosen,
rejected; its implicit prompts and unpaired labels; the transcripts of HH-RLHF) and the published benchmarks
(`known_formats`) from files, data frames, Hugging Face data sets and the hub, and never drops a row in silence;
`write_preferences` keeps them; `split_preferences` divides them so that no prompt is in two parts; `add_bias` makes a
response long, formatted or flattering without changing what it says.

    >>> pair = PreferencePair("Name a prime.", chosen="7", rejected="9", criterion="is correct")
    >>> [example.label for example in labelled([pair])]
    [True, False]
"""

from arm_lens.preferences.biases import BIASES, add_bias
from arm_lens.preferences.formats import known_formats
from arm_lens.preferences.problems import PreferenceDataError, PreferenceDataWarning, PreferenceProblem
from arm_lens.preferences.readers import read_preferences
from arm_lens.preferences.splits import Stratify, split_preferences
from arm_lens.preferences.types import (
    LabelledResponse,
    Message,
    Preference,
    PreferenceFieldError,
    PreferencePair,
    Prompt,
    text_of,
    unpair,
)
from arm_lens.preferences.writers import write_preferences

__all__ = [
    "BIASES",
    "LabelledResponse",
    "Message",
    "Preference",
    "PreferenceDataError",
    "PreferenceDataWarning",
    "PreferenceFieldError",
    "PreferencePair",
    "PreferenceProblem",
    "Prompt",
    "Stratify",
    "add_bias",
    "known_formats",
    "read_preferences",
    "split_preferences",
    "text_of",
    "unpair",
    "write_preferences",
]
