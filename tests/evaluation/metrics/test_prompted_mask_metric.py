"""Run as a script, this file is one rank of ``test_two_ranks_equal_one``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from two_ranks import fork_two_ranks

from mmsam.errors import DataError
from mmsam.evaluation import PromptedMaskMetric
from mmsam.structures import SAMDataSample
from mmsam.structures.rle import encode_masks

TRUE = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # 4 px
PRED = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # 4 px, 2 of them right
DIAGONAL = np.eye(4)  # 4 px; its box holds all 16


def sample(
    path: str,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    labels: list[int] | None = None,
    iou_predictions: list[float] | None = None,
) -> SAMDataSample:
    """A data sample with (predicted, true) masks; the boxes are those around the true masks."""
    size = pairs[0][1].shape if pairs else (4, 4)
    boxes = []
    for _, true in pairs:
        ys, xs = true.nonzero()
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
        boxes.append([float(x) for x in box])
    result = SAMDataSample(metainfo={'img_path': path, 'ori_shape': size})
    result.gt_instances = InstanceData(
        rles=encode_masks(np.stack([true for _, true in pairs])) if pairs else [],
        boxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.tensor(labels or [0] * len(pairs), dtype=torch.int64),
    )
    result.pred_instances = InstanceData(
        rles=encode_masks(np.stack([pred for pred, _ in pairs])) if pairs else [],
        iou_predictions=torch.tensor(iou_predictions or [0.5] * len(pairs)),
    )
    return result


def evaluate(
    *samples: SAMDataSample, classes: tuple[str, ...] = ('stamp',)
) -> tuple[dict[str, float], PromptedMaskMetric]:
    evaluator = Evaluator(dict(type='mmsam.PromptedMaskMetric'))
    evaluator.dataset_meta = dict(classes=classes)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples)), evaluator.metrics[0]


@pytest.fixture(autouse=True)
def mmsam_scope():
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmsam'):
        yield


def test_scores_of_masks_by_hand():
    metrics, metric = evaluate(sample('a', [(PRED, TRUE)]), sample('b', [(TRUE, DIAGONAL)]))
    # a: overlap 2, union 6; box fill is the truth. b: overlap 2, union 6; box fill 4 of 16.
    # masks of 2 px in width are all boundary; the estimates are 0.5
    means = {
        'mIoU': 1 / 3, 'mDice': 1 / 2, 'mBIoU': 1 / 3, 'IoU_error': 1 / 6, 'IoU_bias': 1 / 6
    }  # fmt: skip
    assert metrics == pytest.approx(
        {
            **{f'sam/{name}': value for name, value in means.items()},
            **{f'sam/{name}_small': value for name, value in means.items()},
            'sam/box_fill_mIoU': (1 + 4 / 16) / 2,
            'sam/box_fill_mDice': (1 + 2 * 4 / 20) / 2,
        }
    )
    assert all(type(value) is float for value in metrics.values())
    assert list(metrics)[0] == 'sam/mIoU'  # what save_best='auto' takes
    assert metric.image_scores == pytest.approx({'a': 1 / 3, 'b': 1 / 3})


def test_every_prompt_counts_the_same_and_images_without_prompts_do_not_count():
    metrics, metric = evaluate(
        sample('two', [(TRUE, TRUE), (PRED, TRUE)]),
        sample('none', []),
        sample('one', [(TRUE, TRUE)]),
    )
    assert metrics['sam/mIoU'] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert metric.image_scores == pytest.approx({'two': 2 / 3, 'one': 1})


@pytest.mark.parametrize(
    ('side', 'name'), [(31, 'small'), (32, 'medium'), (95, 'medium'), (96, 'large')]
)
def test_sizes_are_those_of_coco(side, name):
    true = np.zeros((100, 120))
    true[:side, :side] = 1
    half = true.copy()
    half[:, side // 2 :] = 0
    metrics, _ = evaluate(sample('a', [(half, true)]))
    sizes = {key for key in metrics if key.startswith('sam/mIoU_')}
    assert sizes == {f'sam/mIoU_{name}'}
    assert metrics[f'sam/mIoU_{name}'] == pytest.approx((side // 2) / side)


def test_the_quality_estimate_is_compared_with_the_iou():
    pairs = [(PRED, TRUE), (TRUE, TRUE)]
    metrics, metric = evaluate(sample('a', pairs, iou_predictions=[0.75, 0.9]))
    errors = 0.75 - 1 / 3, 0.9 - 1
    assert metrics['sam/IoU_error'] == pytest.approx((errors[0] - errors[1]) / 2)
    assert metrics['sam/IoU_bias'] == pytest.approx((errors[0] + errors[1]) / 2)


def test_classes_by_hand():
    metrics, _ = evaluate(
        sample('a', [(PRED, TRUE), (TRUE, TRUE)], [2, 0]),
        sample('b', [(TRUE, TRUE)], [2]),
        classes=('red/ stamp', 'seal', 'sign'),
    )
    by_class = {name: value for name, value in metrics.items() if 'mIoU_class' in name}
    assert by_class == pytest.approx(
        {'sam/mIoU_class_red__stamp': 1, 'sam/mIoU_class_sign': (1 / 3 + 1) / 2}
    )
    assert metrics['sam/mDice_class_sign'] == pytest.approx((1 / 2 + 1) / 2)
    assert metrics['sam/mBIoU_class_sign'] == pytest.approx((1 / 3 + 1) / 2)
    assert metrics['sam/IoU_error_class_sign'] == pytest.approx((1 / 6 + 1 / 2) / 2)


def test_classes_whose_safe_names_are_one_keep_apart():
    pairs = [(PRED, TRUE), (TRUE, TRUE)]
    metrics, _ = evaluate(sample('a', pairs, [0, 1]), classes=('a b', 'a/b'))
    assert metrics['sam/mIoU_class_a_b_0'] == pytest.approx(1 / 3)
    assert metrics['sam/mIoU_class_a_b_1'] == 1


def test_robustness_to_box_noise():
    both = sample('a', [(TRUE, TRUE), (TRUE, TRUE)])
    both.set_metainfo(dict(box_noise=(0.05, 0.125)))
    true, pred, empty = encode_masks(np.stack([TRUE, PRED, np.zeros((4, 4))]))
    both.pred_instances.noise_rles = [[true, pred], [pred, empty]]
    metrics, _ = evaluate(sample('none', []), both)
    assert metrics['sam/mIoU'] == 1
    assert metrics['sam/mIoU_noise5'] == pytest.approx((1 + 1 / 3) / 2)
    assert metrics['sam/mIoU_noise12.5'] == pytest.approx((1 / 3 + 0) / 2)


def clicked(*ious_in_tenths: list[int]) -> SAMDataSample:
    """Objects of 10 px; their IoUs after each click are given in tenths."""
    true = np.ones((1, 10))
    masks = [[np.arange(10)[None] < tenths for tenths in row] for row in ious_in_tenths]
    result = sample('a', [(true, true)] * len(masks))
    result.pred_instances.click_rles = [encode_masks(np.stack(row)) for row in masks]
    return result


def test_clicks_by_hand():
    metrics, _ = evaluate(clicked([5, 9, 8, 10], [3, 4, 8, 6], [9, 9, 9, 9]))
    clicks = {name: value for name, value in metrics.items() if 'click' in name or 'NoC' in name}
    assert clicks == pytest.approx(
        {
            'sam/mIoU_click1': 1.7 / 3,
            'sam/mIoU_click2': 2.2 / 3,
            'sam/mIoU_click3': 2.5 / 3,
            'sam/NoC85': (2 + 4 + 1) / 3,  # the second never gets there: all four
            'sam/NoC90': (2 + 4 + 1) / 3,
        }
    )
    metrics, _ = evaluate(clicked([9] * 4 + [10] * 7))
    assert [name for name in metrics if 'mIoU_click' in name] == [
        f'sam/mIoU_click{clicks}' for clicks in (1, 2, 3, 5, 10)
    ]
    eighty_eight = clicked([0, 0])
    true = encode_masks(np.ones((1, 1, 100)))
    first = encode_masks((np.arange(100) < 88)[None, None])
    eighty_eight.gt_instances.rles = true
    eighty_eight.pred_instances.rles = true
    eighty_eight.pred_instances.click_rles = [[*first, *true]]
    metrics, _ = evaluate(eighty_eight)
    assert (metrics['sam/NoC85'], metrics['sam/NoC90']) == (1, 2)


def test_scores_of_single_objects():
    _, metric = evaluate(
        sample('a', [(PRED, TRUE), (TRUE, TRUE)], [1, 0], [0.25, 0.75]), sample('none', [])
    )
    [scores] = metric.object_scores.values()
    assert json.loads(json.dumps(scores)) == scores
    names = ('iou', 'dice', 'boundary_iou', 'iou_prediction', 'area', 'label')
    assert [tuple(score[name] for name in names) for score in scores] == [
        pytest.approx((1 / 3, 1 / 2, 1 / 3, 0.25, 4, 1)),
        (1, 1, 1, 0.75, 4, 0),
    ]


def test_empty_masks():
    empty = np.zeros((4, 4))
    assert evaluate(sample('a', [(empty, TRUE)]))[0]['sam/mIoU'] == 0
    assert evaluate(sample('a', [(TRUE, empty)]))[0]['sam/mIoU'] == 0
    metrics, _ = evaluate(sample('a', [(empty, empty)]))
    assert metrics['sam/mIoU'] == metrics['sam/mDice'] == 1


@pytest.mark.parametrize(
    ('box', 'columns', 'rows'),
    [
        ([1.0, 0.0, 3.0, 2.0], (1, 3), (0, 2)),
        ([0.6, 0.4, 2.4, 2.6], (1, 2), (0, 3)),  # px whose centre lies inside
        ([-3.0, 2.0, 9.0, 9.0], (0, 4), (2, 4)),  # clipped to the image
        ([3.0, 3.0, 1.0, 1.0], (0, 0), (0, 0)),
    ],
)
def test_filled_box(box, columns, rows):
    filled = np.zeros((4, 4))
    filled[slice(*rows), slice(*columns)] = 1
    with_box = sample('a', [(filled, DIAGONAL)])
    with_box.gt_instances.boxes = torch.tensor([box])
    metrics, _ = evaluate(with_box)
    assert metrics['sam/box_fill_mIoU'] == metrics['sam/mIoU']
    assert metrics['sam/box_fill_mDice'] == metrics['sam/mDice']


def test_data_set_without_objects_is_an_error():
    with pytest.raises(DataError, match='got none in 2 images'):
        evaluate(sample('a', []), sample('b', []))


def test_masks_that_do_not_belong_together_are_errors():
    missing = sample('dir/a.png', [(PRED, TRUE)])
    missing.pred_instances = InstanceData(rles=[])
    with pytest.raises(DataError, match='expected 1 predicted masks, got 0 in dir/a.png'):
        evaluate(missing)
    other = sample('dir/a.png', [(PRED, TRUE)])
    other.pred_instances.rles = encode_masks(np.ones((1, 4, 5)))
    with pytest.raises(DataError, match=r'size \[4, 4\], got \[4, 5\] for object 0 of dir/a.png'):
        evaluate(other)


def test_a_second_evaluation_starts_afresh():
    metric = PromptedMaskMetric()
    for pred, expected in ((PRED, 1 / 3), (TRUE, 1)):
        metric.process({}, [sample('a', [(pred, TRUE)]).to_dict()])
        assert metric.evaluate(1)['sam/mIoU'] == pytest.approx(expected)
        assert metric.image_scores == pytest.approx({'a': expected})


def data_set() -> list[SAMDataSample]:
    """Five images, an odd number, with 0 to 4 random objects."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(5):
        count = (index + 3) % 5
        one = sample(f'{index}', [tuple(rng.random((2, 40, 50)) > 0.5) for _ in range(count)])
        one.set_metainfo(dict(box_noise=(0.1,)))
        one.pred_instances.noise_rles = [encode_masks(rng.random((1, 40, 50)) > 0.5)] * count
        one.pred_instances.click_rles = [encode_masks(rng.random((2, 40, 50)) > 0.5)] * count
        samples.append(one)
    return samples


def evaluate_own_share(rank: int, folder: Path) -> None:
    """Evaluate, as a validation loop does, what the sampler gives to this rank."""
    samples = data_set()
    metric = PromptedMaskMetric()
    own = list(DefaultSampler(samples, shuffle=False, seed=0))
    for start in range(0, len(own), 2):
        metric.process({}, [samples[index].to_dict() for index in own[start : start + 2]])
    result = metric.evaluate(len(samples)), list(metric.image_scores.items())
    (folder / f'{rank}.json').write_text(json.dumps(result))
    metric.process({}, [sample('none', []).to_dict()])
    with pytest.raises(DataError):  # on both ranks; otherwise one of them waits forever
        metric.evaluate(2)


def test_two_ranks_equal_one(tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    evaluate_own_share(0, tmp_path / 'one')
    fork_two_ranks(evaluate_own_share, tmp_path / 'two')
    expected_metrics, expected_images = json.loads((tmp_path / 'one/0.json').read_text())
    metrics, images = json.loads((tmp_path / 'two/0.json').read_text())
    assert metrics == expected_metrics and {'sam/mIoU_noise10', 'sam/NoC90'} <= metrics.keys()
    assert images == expected_images
    assert json.loads((tmp_path / 'two/1.json').read_text()) == [expected_metrics, []]
