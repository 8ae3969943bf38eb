"""Run as a script, this file is one rank of ``test_two_ranks_equal_one``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from two_ranks import join_the_other_rank, run_on_two_ranks

from mmsam.errors import DataError
from mmsam.evaluation import PromptedMaskMetric
from mmsam.structures import SAMDataSample
from mmsam.structures.rle import encode_masks

TRUE = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # 4 px
PRED = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # 4 px, 2 of them right
DIAGONAL = np.eye(4)  # 4 px; its box holds all 16


def sample(path: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> SAMDataSample:
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
    )
    result.pred_instances = InstanceData(
        rles=encode_masks(np.stack([pred for pred, _ in pairs])) if pairs else []
    )
    return result


def evaluate(*samples: SAMDataSample) -> tuple[dict[str, float], PromptedMaskMetric]:
    evaluator = Evaluator(dict(type='mmsam.PromptedMaskMetric'))
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
    assert metrics == pytest.approx(
        {
            'sam/mIoU': 1 / 3,
            'sam/mDice': 1 / 2,
            'sam/mIoU_small': 1 / 3,
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
    other.pred_instances = InstanceData(rles=encode_masks(np.ones((1, 4, 5))))
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
    return [
        sample(f'{index}', [tuple(rng.random((2, 40, 50)) > 0.5) for _ in range((index + 3) % 5)])
        for index in range(5)
    ]


def evaluate_own_share(folder: Path) -> None:
    """Evaluate, as a validation loop does, what the sampler gives to this rank."""
    samples = data_set()
    metric = PromptedMaskMetric()
    own = list(DefaultSampler(samples, shuffle=False, seed=0))
    for start in range(0, len(own), 2):
        metric.process({}, [samples[index].to_dict() for index in own[start : start + 2]])
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    result = metric.evaluate(len(samples)), list(metric.image_scores.items())
    (folder / f'{rank}.json').write_text(json.dumps(result))
    metric.process({}, [sample('none', []).to_dict()])
    with pytest.raises(DataError):  # on both ranks; otherwise one of them waits forever
        metric.evaluate(2)


def test_two_ranks_equal_one(tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    evaluate_own_share(tmp_path / 'one')
    run_on_two_ranks(__file__, tmp_path / 'two')
    expected_metrics, expected_images = json.loads((tmp_path / 'one/0.json').read_text())
    metrics, images = json.loads((tmp_path / 'two/0.json').read_text())
    assert metrics == expected_metrics
    assert images == expected_images
    assert json.loads((tmp_path / 'two/1.json').read_text()) == [expected_metrics, []]


if __name__ == '__main__':
    evaluate_own_share(join_the_other_rank())
    torch.distributed.destroy_process_group()
