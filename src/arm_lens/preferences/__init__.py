"""Preference data: responses for a judge to assess, and the verdicts that people or a rule gave.

A *preference* takes one of two forms. A `PreferencePair` holds a prompt and two responses, one of which was chosen over
the other. A `LabelledResponse` holds a prompt, one response, and whether that response meets the criterion; activation
reward models are fitted on this scalar form. `unpair` turns pairs into labelled responses: the chosen response meets
the criterion, the rejected one does not.

A *criterion* is what responses are judged by. It may be written out ("is polite"), or left empty and inferred from the
examples. The same prompt under two criteria makes two different questions.

Prompts and responses are plain text or conversations: messages with a role and a content. `text_of` gives the plain
text of either. A prompt may be empty, for texts that are classified. Messages may have images
(``{"type": "image", "image": "cat.png"}``), which stand in texts as marks of their content (`Image`).

`read_preferences` reads the common formats (TRL's prompt, chosen, rejected; its implicit prompts and unpaired labels; two
responses and a winner; the transcripts of HH-RLHF) and the published benchmarks (`known_formats`) from files, data frames,
Hugging Face data sets and the hub. What labels and winners mean is declared, and no row is dropped silently.
`read_responses` reads prompts and responses without labels, for scoring. `write_preferences` writes preferences to a file,
`split_preferences` divides them so that no prompt is in two parts (or no text, if there are no prompts), `check_overlap`
refuses examples that are also tested, and `add_bias` makes a response long, formatted or flattering without changing what
it says.

    >>> pair = PreferencePair("Name a prime.", chosen="7", rejected="9", criterion="is correct")
    >>> [example.label for example in unpair([pair])]
    [True, False]
"""

from arm_lens.preferences.biases import BIASES, add_bias
from arm_lens.preferences.fields import PreferenceFieldError
from arm_lens.preferences.formats import known_formats
from arm_lens.preferences.images import Image, UnknownImageError
from arm_lens.preferences.messages import Message, Prompt, as_prompts, text_of
from arm_lens.preferences.overlap import Overlap, OverlapError, OverlapWarning, check_overlap, find_overlap
from arm_lens.preferences.problems import PreferenceDataError, PreferenceDataWarning, PreferenceProblem
from arm_lens.preferences.readers import read_preferences
from arm_lens.preferences.responses import ResponseTable, read_responses
from arm_lens.preferences.splits import Stratify, clusters, split_preferences
from arm_lens.preferences.types import LabelledResponse, Preference, PreferencePair, TiedPair, unpair
from arm_lens.preferences.writers import write_preferences

__all__ = [
    "BIASES",
    "Image",
    "LabelledResponse",
    "Message",
    "Overlap",
    "OverlapError",
    "OverlapWarning",
    "Preference",
    "PreferenceDataError",
    "PreferenceDataWarning",
    "PreferenceFieldError",
    "PreferencePair",
    "PreferenceProblem",
    "Prompt",
    "ResponseTable",
    "Stratify",
    "TiedPair",
    "UnknownImageError",
    "add_bias",
    "as_prompts",
    "check_overlap",
    "clusters",
    "find_overlap",
    "known_formats",
    "read_preferences",
    "read_responses",
    "split_preferences",
    "text_of",
    "unpair",
    "write_preferences",
]
