"""Which scores stand together in the report, by the names ``PromptedMaskMetric`` gives them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mmsam.score_comparison import ScoreRow
from mmsam.score_rules import rule_of_score


class ScoreGroup(NamedTuple):
    """Scores of one table, and those of them that are drawn in a chart.

    ``axis`` is what the number at the end of each drawn name counts, the x of one curve before and
    one after; None draws a curve of each name over the iterations.
    """

    title: str
    explanation: str
    rows: list[ScoreRow]
    drawn: list[str]
    axis: str | None = None


NOISE_AXIS = 'box noise in percent'

_GROUPS = (
    # as in ScoreGroup, with patterns of the names
    (
        'By object size',
        'Small objects have less than 32² pixels, medium ones less than 96².',
        r'(mIoU|mDice|mBIoU)_(small|medium|large)',
        r'mIoU_.+',
        None,
    ),
    ('By category', '', r'(mIoU|mDice|mBIoU)_class_.+', '', None),
    (
        'Estimated IoU',
        'Calibration: the mean of estimate minus IoU (bias), and of its size (error); 0 is best.',
        r'IoU_(error|bias)(_.+)?',
        r'IoU_(error|bias)',
        None,
    ),
    (
        'Inexact boxes',
        'mIoU with boxes whose edges are moved by so many percent of their sides.',
        r'mIoU_noise.+',
        '.+',
        NOISE_AXIS,
    ),
    (
        'Clicks',
        'mIoU after so many clicks, and the mean number of clicks (NoC) to an IoU in percent.',
        r'mIoU_click.+|NoC\d+',
        r'mIoU_click.+',
        'clicks',
    ),
)
_NEAR_ZERO = re.compile(r'IoU_bias')
_OF_MMSEG = re.compile(r'(.+/)?(aAcc|m(IoU|Acc|Dice|Fscore|Precision|Recall))')


def score_groups(rows: Sequence[ScoreRow]) -> list[ScoreGroup]:
    """The rows by group, without empty groups; first those that belong to no other.

    Scores from 0 to 100 have a group of their own: beside them, those up to 1 would look flat.
    """
    left = list(rows)
    groups = []
    for title, explanation, names, drawn, axis in _GROUPS:
        found = [row for row in left if re.fullmatch(names, row.name)]
        left = [row for row in left if row not in found]
        # all sizes of one score before the next score
        scores = [row.name.partition('_')[0] for row in found]
        found.sort(key=lambda row: scores.index(row.name.partition('_')[0]))
        curves = [row.name for row in found if re.fullmatch(drawn, row.name)]
        groups.append(ScoreGroup(title, explanation, found, curves, axis))
    percentages = [row for row in left if _is_percentage(row)]
    left = [row for row in left if row not in percentages]
    groups[:0] = [
        ScoreGroup('Scores', '', left, [row.name for row in left]),
        ScoreGroup(
            'Scores in percent',
            "Those of mmseg's metric.",
            percentages,
            [row.name for row in percentages],
        ),
    ]
    return [group for group in groups if group.rows]


def _is_percentage(row: ScoreRow) -> bool:
    """Whether a score is one of mmseg's ``IoUMetric``, which shares names with scores up to 1."""
    is_large = max(row.before or 0, row.after or 0) > 1
    return is_large and _OF_MMSEG.fullmatch(row.name) is not None


def is_better(row: ScoreRow) -> bool | None:
    """Whether the score after is the better one; None if they look equal or one is missing."""
    if row.before is None or row.after is None or round(row.after - row.before, 4) == 0:
        return None
    if _NEAR_ZERO.match(row.name):
        return abs(row.after) < abs(row.before)
    return (row.after < row.before) == (rule_of_score(row.name) == 'less')
