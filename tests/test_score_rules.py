import pytest

from mmsam.errors import ConfigError
from mmsam.score_rules import check_rule, check_score, rule_of_score


@pytest.mark.parametrize(
    ('name', 'rule'),
    [
        ('sam/mIoU', 'greater'),
        ('sam/mBIoU_small', 'greater'),
        ('sam/mIoU_noise10', 'greater'),
        ('sam/box_fill_mDice', 'greater'),
        ('coco/AP50', 'greater'),
        ('mAcc', 'greater'),
        ('aAcc', 'greater'),
        ('sam/NoC85', 'less'),
        ('sam/IoU_error', 'less'),
        ('sam/IoU_error_class_laptop', 'less'),  # 'top' in it means greater to mmengine
        ('val_loss', 'less'),
        ('sam/IoU_bias', None),
        ('toy/score', None),
    ],
)
def test_which_is_better(name, rule):
    assert rule_of_score(name) == rule


def test_rules_that_are_wrong_or_missing():
    check_rule('hook', 'toy/score', 'less')
    check_rule('hook', 'sam/mIoU', None)
    with pytest.raises(ConfigError, match="hook: expected the rule 'greater' or 'less', got 'max'"):
        check_rule('hook', 'toy/score', 'max')
    with pytest.raises(ConfigError, match="which 'sam/IoU_bias' is better"):
        check_rule('hook', 'sam/IoU_bias', None)


def test_a_score_that_is_not_given():
    check_score('save_best', 'a', {'a': 1})
    with pytest.raises(ConfigError, match="save_best: .* this validation, a, b; got 'c'"):
        check_score('save_best', 'c', {'a': 1, 'b': 2})
