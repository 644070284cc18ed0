"""A head card and its views in a notebook and in a terminal.

The HTML has inline styles only, without scripts; texts of prompts, tokens and criteria are escaped. Shades are opacities,
which suit a light and a dark page.
"""

from __future__ import annotations

import io
import textwrap
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from arm_lens.attribution.outcomes import Outcome
from arm_lens.display import LINE_WIDTH, Figure, card, frame_table, of_each_verdict, small_print
from arm_lens.display.maps import NEGATIVE, POSITIVE
from arm_lens.display.notebook import escaped
from arm_lens.display.words import number
from arm_lens.evaluation.trust import trust_notes
from arm_lens.heads import Head
from arm_lens.preferences.images import known_image

ZERO_SHOT, FEW_SHOT = "zero-shot", "few-shot"
"""The two kinds of prompts: the bare question, and the question behind demonstrations."""
HUES = {"promoted": POSITIVE, "suppressed": NEGATIVE}
MOST_TOKENS = 8
"""In a list of tokens attended to."""
MOST_PIXELS = 512
"""Of an image in a view, on each side."""
LONGEST = 24
"""Characters of a token in a table."""


@dataclass(frozen=True, eq=False)
class HeadCard:
    """What one head reads, what its mean writes, and its scores; see `head_card`."""

    head: Head
    criterion: str
    model: str
    chosen: bool
    """Whether the reward model writes at it."""
    n: int
    """Questions."""
    attention: pd.DataFrame
    """How much the last token attends to each token: setting (``zero-shot`` or ``few-shot``), example, verdict (the right
    one), position, token, weight; one row for each token of each prompt, and one for each image (``[image 1]``)."""
    attention_by_token: pd.DataFrame
    """The same by the token's text: setting, token, share (of a prompt's attention, all its places together; mean over
    prompts), weight (mean over its places), places, prompts (that contain it), n (prompts); highest share first."""
    patches: pd.DataFrame
    """The same within images: setting, example, verdict, picture (its number in the prompt), image (its digest), width,
    height, row, column, weight, and where the patch is (left, top, right, bottom, as shares of width and height)."""
    tokens: pd.DataFrame
    """What the mean does to logits by the direct path: direction (``promoted``, ``suppressed``), rank, token, token_id,
    effect (change of the logit)."""
    gap_effect: float
    """The change of the gap between the verdicts, positive minus negative, by the direct path."""
    verdicts: tuple[str, str]
    """The spellings of the positive and the negative verdict."""
    centred: bool
    """Whether the head's own mean on these questions was subtracted."""
    scores: pd.DataFrame
    """Rows of the given attributions for this head, with rank (1 for the highest score) and heads (how many there are), and
    if a measure is cheap, the columns of `arm_lens.evaluation.trust.with_trust`."""
    outcome: Outcome
    """The outcome whose scores the card displays; for measures without it, the first outcome they have."""
    max_examples: int
    """How many examples the card displays."""

    @property
    def name(self) -> str:
        """Its title."""
        return f"Head {self.head}" + (f" for '{self.criterion}'" if self.criterion else "")

    def frame(self) -> pd.DataFrame:
        """The scores; the other tables are `attention`, `attention_by_token` and `tokens`."""
        return self.scores

    def plot(self) -> Figure:
        """Attention, tokens and scores: `arm_lens.plots.head_card_figure`; of images see `image_attention_figure`."""
        from arm_lens.plots import head_card_figure  # plotly is optional

        return head_card_figure(self)

    def displayed_attention(self, setting: str = ZERO_SHOT) -> pd.DataFrame:
        """The rows of `attention` for the examples that the card displays, both verdicts in turn."""
        rows = self.attention[self.attention["setting"] == setting]
        return rows[rows["example"].isin(of_each_verdict(rows, self.max_examples))]

    @cached_property
    def pictures(self) -> dict[str, str]:
        """The images of `patches` by their digests, small, as ``data:`` URIs."""
        return {digest: _data_uri(digest) for digest in self.patches["image"].unique()}

    def displayed_scores(self) -> pd.DataFrame:
        """The rows of `scores` that the card displays: one outcome of each measure."""
        outcomes = self.scores.groupby("measure")["outcome"]
        known = outcomes.transform(lambda of_measure: (of_measure == self.outcome).any()).astype(bool)
        return self.scores[self.scores["outcome"] == outcomes.transform("first").where(~known, self.outcome)]

    def __repr__(self) -> str:
        chosen = "written at" if self.chosen else "not a chosen head"
        lines = [f"{self.name} ({chosen}), {self.model}, {self.n} questions"]
        for setting in self.attention["setting"].unique():
            lines += ["", f"Attends to, from the last token ({setting}), mean share:"]
            lines += _wrapped(_most_attended(self, setting))
            for name, rows in self.displayed_attention(setting).groupby("example", sort=False):
                most = rows.sort_values("weight", ascending=False, kind="stable").head(MOST_TOKENS)
                lines += _wrapped(f"{name} [{rows['verdict'].iloc[0]}]: {_listed(most, 'weight')}")
        lines += ["", f"{_written(self)} (direct path only):"]
        for direction in HUES:
            rows = self.tokens[self.tokens["direction"] == direction]
            effects = [
                f"{_cut(token)} {effect:+.2f}" for token, effect in zip(rows["token"], rows["effect"], strict=True)
            ]
            lines += _wrapped(f"{direction}: {', '.join(effects)}")
        lines += _wrapped(_gap(self))
        if len(self.scores):
            lines += ["", "Scores, with the rank among all heads:"]
            table = _score_table(self).to_string(line_width=LINE_WIDTH - 2)
            lines += [f"  {line}" for line in table.splitlines()]
            for note in (_outcomes(self), *trust_notes(self.displayed_scores())):
                lines += _wrapped(note)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        facts = {
            "model": self.model,
            "written at": "yes" if self.chosen else "no, not a chosen head",
            "questions": self.n,
        }
        parts = []
        for setting in self.attention["setting"].unique():
            rows = self.displayed_attention(setting)
            top = rows["weight"].max()
            parts.append(_heading(f"Attends to, from the last token ({setting})"))
            for name, example in rows.groupby("example", sort=False):
                seen = self.patches[(self.patches["setting"] == setting) & (self.patches["example"] == name)]
                parts.append(_shaded(str(name), example, top))
                parts += [_overlaid(one, self.pictures) for _, one in seen.groupby("picture")]
            shares = _most_attended(self, setting)
            parts.append(small_print(f"Darkest: weight {number(top)}. Mean share over {self.n} questions: {shares}."))
        tables = "".join(f'<div style="flex:0 1 auto">{_token_table(self, direction)}</div>' for direction in HUES)
        parts.append(_heading(_written(self)))
        parts.append(f'<div style="display:flex;gap:28px;flex-wrap:wrap">{tables}</div>')
        parts.append(small_print(f"{_gap(self)}. Direct path only: what later layers make of it is left out."))
        if len(self.scores):
            parts.append(_heading("Scores, with the rank among all heads"))
            parts.append(frame_table(_score_table(self), rows=60))
            parts += map(small_print, (_outcomes(self), *trust_notes(self.displayed_scores())))
        return f'<div style="max-width:900px">{card(self.name, facts, *parts)}</div>'


def _written(head: HeadCard) -> str:
    return "What its mean" + (", less its own mean here," if head.centred else "") + " does to logits"


def _gap(head: HeadCard) -> str:
    positive, negative = head.verdicts
    return f"{positive} minus {negative}: {head.gap_effect:+.3g}"


def _outcomes(head: HeadCard) -> str:
    scores = head.displayed_scores()
    others = scores.loc[scores["outcome"] != head.outcome, ["measure", "outcome"]].drop_duplicates()
    notes = [f"Scores are of the outcome '{head.outcome}'; positive helps the criterion"]
    notes += [f"{row.measure} is of '{row.outcome}'" for row in others.itertuples()]
    return "; ".join(notes) + "."


def _most_attended(head: HeadCard, setting: str) -> str:
    rows = head.attention_by_token
    return _listed(rows[rows["setting"] == setting].head(MOST_TOKENS), "share")


def _listed(rows: pd.DataFrame, column: str) -> str:
    pairs = zip(rows["token"], rows[column], strict=True)
    return ", ".join(f"{token.strip() or repr(token)} {value:.2f}" for token, value in pairs)


def _score_table(head: HeadCard) -> pd.DataFrame:
    """A row per measure and a column per criterion, as text."""
    rows = head.displayed_scores()
    cells = [
        "" if pd.isna(score) else f"{score:+.3f} ({rank:.0f} of {heads})"
        for score, rank, heads in zip(rows["score"], rows["rank"], rows["heads"], strict=True)
    ]
    table = rows.assign(cell=cells).pivot(index="measure", columns="criterion", values="cell")
    table = table.loc[rows["measure"].unique(), rows["criterion"].unique()].fillna("")
    return table.rename_axis(index=None, columns=None)


def _heading(text: str) -> str:
    return f'<div style="font-weight:600;margin:8px 0 2px;font-size:.95em">{escaped(text)}</div>'


def _shaded(name: str, rows: pd.DataFrame, top: float) -> str:
    """The tokens of a prompt, each on a background as dark as its weight."""
    red, green, blue = bytes.fromhex(POSITIVE[1:])
    # Tokens of words begin with the space before them, unless all tokens are words.
    gap = "" if rows["token"].str.startswith(" ").any() else " "
    spans = []
    for token, weight in zip(rows["token"], rows["weight"], strict=True):
        shade = 0.85 * weight / top if top > 0 else 0.0
        text = escaped(token)
        if shade >= 0.01:  # a long prompt has hundreds of tokens without
            text = f'<span title="{weight:.3f}" style="background:rgba({red},{green},{blue},{shade:.2f})">{text}</span>'
        spans.append(text + ("<br>" if token.endswith("⏎") else ""))
    title = f'<span style="opacity:.7">{escaped(name)}, right: {escaped(rows["verdict"].iloc[0])}</span>'
    style = "max-height:180px;overflow-y:auto;line-height:1.55;overflow-wrap:anywhere;white-space:pre-wrap"
    return f'<div style="margin:4px 0">{title}<div style="{style}">{gap.join(spans)}</div></div>'


def _data_uri(digest: str) -> str:
    """An image as a PNG of at most `MOST_PIXELS` on each side."""
    picture, out = known_image(digest).open(), io.BytesIO()
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    picture.save(out, "PNG")
    return f"data:image/png;base64,{b64encode(out.getvalue()).decode()}"


def _overlaid(patches: pd.DataFrame, pictures: Mapping[str, str]) -> str:
    """An image with its patches in darker shades of red the more attention they get."""
    wide, high = 200.0, 200.0 * float(patches["height"].iloc[0] / patches["width"].iloc[0])
    top = patches["weight"].max()
    shades = "".join(
        f'<rect x="{wide * left:.1f}" y="{high * upper:.1f}" width="{wide * (right - left):.1f}" '
        f'height="{high * (lower - upper):.1f}" fill="rgb(200,30,30)" fill-opacity="{0.75 * weight / top:.2f}">'
        f"<title>{weight:.3f}</title></rect>"
        for left, upper, right, lower, weight in patches[["left", "top", "right", "bottom", "weight"]].to_numpy(
            dtype=float
        )
        if top > 0 and weight >= 0.02 * top
    )
    source = escaped(pictures[patches["image"].iloc[0]])
    text = f"image {patches['picture'].iloc[0]}: {patches['weight'].sum():.2f} of the attention, at most {top:.3f} to a patch"
    return (
        f'<div style="display:inline-block;margin:4px 12px 4px 0"><svg width="{wide:.0f}" height="{high:.0f}">'
        f'<image href="{source}" width="{wide:.0f}" height="{high:.0f}" preserveAspectRatio="none"/>{shades}</svg>'
        f"{small_print(text)}</div>"
    )


def _token_table(head: HeadCard, direction: str) -> str:
    rows = head.tokens[head.tokens["direction"] == direction]
    reach = head.tokens["effect"].abs().max()
    lines = "".join(
        f'<tr><td style="text-align:left;white-space:pre">{escaped(_cut(token))}</td><td style="text-align:right">'
        f'{effect:+.3f}</td><td style="text-align:left"><div style="background:{HUES[direction]};height:8px;width:'
        f'{90 * abs(effect) / reach if reach > 0 else 0:.0f}px"></div></td></tr>'
        for token, effect in zip(rows["token"], rows["effect"], strict=True)
    )
    return (
        f'<table style="border-collapse:collapse"><thead><tr><th style="text-align:left">{direction}</th>'
        f'<th style="text-align:right">logit</th><th></th></tr></thead><tbody>{lines}</tbody></table>'
    )


def _cut(token: str) -> str:
    """A token for a table, with a visible first space, cut to `LONGEST`."""
    text = "␣" + token[1:] if token.startswith(" ") else token
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, LINE_WIDTH, initial_indent="  ", subsequent_indent="    ")
