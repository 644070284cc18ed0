"""Figures: one function per figure, a tidy data frame in, a plotly figure out; nothing is shown or saved.

Where a table (its columns are in `arm_lens.frames`) can be made from the objects themselves (head sets, selections, reward
models, attributions, also by name), they may be given instead.

Every function raises ValueError, which names the table, the column and the value, if a column is missing, no row is left,
two rows have the same key, an argument is not in the table, or a choice is needed that was not made; and `NoRoomError` if
the figure is higher than the page.

Figures carry their own size in pixels (``figure.layout.width`` and ``height``), one look (`TEMPLATE`), and one colour and
symbol per judge, so that a reader who has seen one figure can read the others, in greyscale too. Figures are laid out for
the screen; for a paper make them within ``with themed(COLUMN):`` or ``themed(PAGE)``, for one or two columns, and write
them with `save_figure`.
"""

from arm_lens.plots.comparison_matrices import (
    agreement_matrix,
    correlation_matrix,
    head_matrix,
    interaction_matrix,
    mean_cosines,
    overlap_matrix,
    transfer_matrix,
)
from arm_lens.plots.export import one_browser, save_figure
from arm_lens.plots.head_card import head_card_figure
from arm_lens.plots.head_maps import attribution_maps, selected_heads, selection_probabilities
from arm_lens.plots.image_attention import image_attention_figure
from arm_lens.plots.judges import accuracy_by_judge, accuracy_by_subset, bias_grid, differences
from arm_lens.plots.measure_scatter import measures_against_each_other
from arm_lens.plots.rewards import ranking_quality, reliability, reward_histograms, roc_curves
from arm_lens.plots.selection_steps import selection_steps, selection_trajectories, training_curves
from arm_lens.plots.speed import selection_speed
from arm_lens.plots.stability import depth_profile, stability_by_group
from arm_lens.plots.studies import accuracy_by_axis, accuracy_by_examples, accuracy_by_heads, accuracy_by_noise
from arm_lens.plots.theme import COLUMN, PAGE, SCREEN, TEMPLATE, NoRoomError, Theme, base_layout, judge_styles, themed
from arm_lens.plots.upset import upset

__all__ = [
    "COLUMN",
    "PAGE",
    "SCREEN",
    "TEMPLATE",
    "NoRoomError",
    "Theme",
    "accuracy_by_axis",
    "accuracy_by_examples",
    "accuracy_by_heads",
    "accuracy_by_judge",
    "accuracy_by_noise",
    "accuracy_by_subset",
    "agreement_matrix",
    "attribution_maps",
    "base_layout",
    "bias_grid",
    "correlation_matrix",
    "depth_profile",
    "differences",
    "head_card_figure",
    "head_matrix",
    "image_attention_figure",
    "interaction_matrix",
    "judge_styles",
    "mean_cosines",
    "measures_against_each_other",
    "one_browser",
    "overlap_matrix",
    "ranking_quality",
    "reliability",
    "reward_histograms",
    "roc_curves",
    "save_figure",
    "selected_heads",
    "selection_probabilities",
    "selection_speed",
    "selection_steps",
    "selection_trajectories",
    "stability_by_group",
    "themed",
    "training_curves",
    "transfer_matrix",
    "upset",
]
