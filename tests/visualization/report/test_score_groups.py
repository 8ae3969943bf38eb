import pytest

from mmsam.score_comparison import ScoreRow
from mmsam.visualization.report.score_groups import NOISE_AXIS, is_better, score_groups


def rows(*names: str) -> list[ScoreRow]:
    return [ScoreRow(name, None, 0.0, 1.0) for name in names]


def test_groups_by_the_names_of_the_metric():
    groups = score_groups(
        rows(
            'mIoU',
            'IoU_error',
            'mIoU_small',
            'IoU_bias_small',
            'mDice_small',
            'mIoU_large',
            'mIoU_class_small',
            'mIoU_noise5',
            'mIoU_click1',
            'NoC85',
            'aAcc',
        )  # fmt: skip
    )
    assert {group.title: [row.name for row in group.rows] for group in groups} == {
        'Scores': ['mIoU', 'aAcc'],
        'By object size': ['mIoU_small', 'mIoU_large', 'mDice_small'],
        'By category': ['mIoU_class_small'],
        'Estimated IoU': ['IoU_error', 'IoU_bias_small'],
        'Inexact boxes': ['mIoU_noise5'],
        'Clicks': ['mIoU_click1', 'NoC85'],
    }
    assert {group.title: group.drawn for group in groups} == {
        'Scores': ['mIoU', 'aAcc'],
        'By object size': ['mIoU_small', 'mIoU_large'],
        'By category': [],
        'Estimated IoU': ['IoU_error'],
        'Inexact boxes': ['mIoU_noise5'],
        'Clicks': ['mIoU_click1'],
    }
    assert [group.axis for group in groups] == [None, None, None, None, NOISE_AXIS, 'clicks']


def test_percentages_are_apart_from_scores_up_to_1():
    scores = [
        ScoreRow('sam/mIoU', 0.7, 0.0, 1.0),
        ScoreRow('semantic/mIoU', None, 0.4, 53.0),  # below 1 before, and still a percentage
        ScoreRow('aAcc', None, None, 90.0),
        ScoreRow('mDice', None, 0.5, 0.6),
        ScoreRow('loss', None, 4.0, 2.0),
    ]
    assert {group.title: group.drawn for group in score_groups(scores)} == {
        'Scores': ['sam/mIoU', 'mDice', 'loss'],
        'Scores in percent': ['semantic/mIoU', 'aAcc'],
    }


@pytest.mark.parametrize(
    ('name', 'before', 'after', 'expected'),
    [
        ('mIoU', 0.5, 0.6, True),
        ('mIoU', 0.6, 0.5, False),
        ('IoU_error_small', 0.5, 0.6, False),
        ('NoC90', 8, 3, True),
        ('IoU_bias', -0.3, 0.1, True),
        ('IoU_bias', 0.1, -0.3, False),
        ('mIoU', 0.5, 0.50004, None),
        ('mIoU', None, 0.5, None),
    ],
)
def test_what_is_better(name, before, after, expected):
    assert is_better(ScoreRow(name, None, before, after)) is expected
