import json

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from mmsam.registry import METRICS
from mmsam.structures import SAMDataSample
from mmsam.structures.rle import encode_masks

SIDE = 4


class ToySegmentor(BaseModel):
    """Predicts as many foreground columns as its parameter says; each update adds one."""

    def __init__(self, columns: float = 1.0) -> None:
        super().__init__()
        self.columns = nn.Parameter(torch.tensor(columns))

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode == 'loss':
            return {'loss': -self.columns}
        mask = np.zeros((1, SIDE, SIDE))
        mask[..., : round(self.columns.item())] = 1
        for sample in data_samples:
            sample.pred_instances = InstanceData(
                rles=encode_masks(mask), iou_predictions=torch.tensor([0.5])
            )
        return data_samples


def item(path: str, columns: int) -> dict:
    """An image whose object fills the first ``columns`` of its box, which is the whole image."""
    true = np.zeros((1, SIDE, SIDE))
    true[..., :columns] = 1
    sample = SAMDataSample(metainfo={'img_path': path, 'ori_shape': (SIDE, SIDE)})
    sample.gt_instances = InstanceData(
        rles=encode_masks(true),
        boxes=torch.tensor([[0.0, 0.0, SIDE, SIDE]]),
        labels=torch.tensor([0]),
    )
    return {'inputs': torch.zeros(3, SIDE, SIDE), 'data_samples': sample}


# 1 column predicted: IoU 1 (thin) and 1/3 (wide); 3 columns: 1/3 and 1; the estimate is 0.5;
# of 4 x 3 px, all but 2 are boundary
BEFORE = {
    'mIoU': 2 / 3,
    'mDice': (1 + 1 / 2) / 2,
    'mBIoU': (1 + 4 / 10) / 2,
    'IoU_error': (1 / 2 + 1 / 6) / 2,
    'IoU_bias': (-1 / 2 + 1 / 6) / 2,
}
BEFORE.update({f'{name}_small': score for name, score in BEFORE.items()})
BOX_FILL = {'mIoU': (1 / 4 + 3 / 4) / 2, 'mDice': (2 / 5 + 6 / 7) / 2}


def make_runner(
    work_dir,
    *,
    name,
    max_iters=2,
    validate=True,
    metrics=None,
    model=None,
    train_cfg=None,
    train_sampler=None,
    **options,
) -> Runner:
    """Validates after each update; keeps the best checkpoint unless other ``metrics`` are given."""
    data = [item('thin.png', 1), item('wide.png', 3)]
    if validate:
        options.update(
            val_dataloader=dict(
                dataset=data, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False)
            ),
            val_cfg=dict(),
            val_evaluator=metrics or dict(type='PromptedMaskMetric'),
        )
    checkpoint = dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=1,
        save_best='sam/mIoU' if metrics is None else None,
    )
    return Runner(
        model=model or ToySegmentor(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=data,
            batch_size=1,
            sampler=train_sampler or dict(type='InfiniteSampler', shuffle=False),
        ),
        train_cfg=train_cfg or dict(by_epoch=False, max_iters=max_iters, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(checkpoint=checkpoint),
        log_processor=dict(by_epoch=False),
        custom_hooks=[dict(type='ZeroShotHook')],
        default_scope='mmsam',
        experiment_name=f'zero_shot_hook_{name}',
        **options,
    )


def results_of(work_dir) -> dict:
    return json.loads((work_dir / 'results.json').read_text())


def log_of(work_dir) -> str:
    return '\n'.join(path.read_text() for path in sorted(work_dir.glob('*/*.log')))


def row_of(log: str, score: str) -> list[str]:
    """The last table row of ``score``: box fill, before, now, gain."""
    row = [line for line in log.splitlines() if line.startswith(f'| {score} ')][-1]
    return [cell.strip() for cell in row.strip('|').split('|')][1:]


def test_before_after_gain_and_images_that_became_worse(tmp_path):
    make_runner(tmp_path, name='whole').train()
    results = results_of(tmp_path)
    assert results['before'] == pytest.approx(BEFORE)
    assert results['after'] == pytest.approx(BEFORE)
    assert results['box_fill'] == pytest.approx(BOX_FILL)
    assert results['iteration'] == 2
    (worse,) = results['images_worse']
    assert worse == pytest.approx({'image': 'thin.png', 'before': 1, 'after': 1 / 3})
    assert results['images']['wide.png'] == pytest.approx({'before': 1 / 3, 'after': 1})
    log = log_of(tmp_path)
    assert row_of(log, 'mIoU') == ['0.5000', '0.6667', '0.6667', '+0.0000']
    assert 'Images that became worse: 1 of 2\n  1.0000 -> 0.3333  thin.png\n' in log
    assert log.count('| mIoU ') == 4  # before, after 1 and 2 updates, at the end
    assert log.index('Scores after 0 iterations') < log.index('Iter(train)')
    assert not list(tmp_path.glob('*.tmp'))


def test_best_checkpoint_is_never_worse_than_before(tmp_path):
    make_runner(tmp_path, name='best', model=ToySegmentor(3.0)).train()
    # 4 columns are as good as the filled box, worse than 3
    assert results_of(tmp_path)['after']['mIoU'] == pytest.approx(BOX_FILL['mIoU'])
    (best,) = tmp_path.glob('best_*.pth')
    assert best.name == 'best_sam_mIoU_iter_0.pth'
    assert torch.load(best, weights_only=False)['state_dict']['columns'] == 3


def test_stopped_run_has_its_scores_and_a_resumed_one_goes_on(tmp_path):
    make_runner(tmp_path, name='stopped', max_iters=1).train()
    stopped = results_of(tmp_path)
    # 2 columns predicted: IoU 1/2 and 2/3
    assert stopped['after']['mIoU'] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert stopped['iteration'] == 1
    resumed = make_runner(tmp_path, name='resumed', max_iters=2, resume=True)
    resumed.train()
    results = results_of(tmp_path)
    assert results['before'] == stopped['before']
    assert results['after']['mIoU'] == pytest.approx(BEFORE['mIoU'])
    assert results['iteration'] == 2
    assert [entry['image'] for entry in results['images_worse']] == ['thin.png']
    # no second measurement of "before"
    assert log_of(tmp_path).count('Validation before the first iteration') == 1


@pytest.mark.parametrize('left', [None, '{"before":', '[]', '{"before": {"mIoU": 0.5}}'])
def test_resumed_without_the_first_scores_warns_and_goes_on(tmp_path, left):
    make_runner(tmp_path, name=f'lost_{left}', max_iters=1).train()
    if left is None:
        (tmp_path / 'results.json').unlink()
    else:
        (tmp_path / 'results.json').write_text(left)
    make_runner(tmp_path, name=f'lost_resumed_{left}', max_iters=2, resume=True).train()
    log = log_of(tmp_path)
    assert 'the scores before training are not in' in log
    assert row_of(log, 'mIoU') == ['0.5000', '-', '0.6667', '-']
    results = results_of(tmp_path)
    assert results['before'] == {}
    assert results['images_worse'] == []
    assert results['after']['mIoU'] == pytest.approx(2 / 3)


def test_loaded_weights_are_the_ones_measured(tmp_path):
    torch.save({'state_dict': ToySegmentor(3.0).state_dict()}, tmp_path / 'weights.pth')
    make_runner(
        tmp_path, name='loaded', max_iters=1, load_from=str(tmp_path / 'weights.pth')
    ).train()
    assert results_of(tmp_path)['images']['wide.png']['before'] == 1


def test_without_validation_it_does_nothing(tmp_path):
    make_runner(tmp_path, name='none', validate=False).train()
    assert not (tmp_path / 'results.json').exists()
    assert log_of(tmp_path).count('ZeroShotHook: no validation configured') == 1
    assert 'Scores after' not in log_of(tmp_path)


def test_epochs(tmp_path):
    make_runner(
        tmp_path,
        name='epochs',
        train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=1),
        train_sampler=dict(type='DefaultSampler', shuffle=False),
    ).train()
    results = results_of(tmp_path)
    assert results['iteration'] == 2  # both images
    assert results['images']['wide.png'] == pytest.approx({'before': 1 / 3, 'after': 1})


class ToyMetric(BaseMetric):
    """Shares a name with PromptedMaskMetric; returns more than scalars and offers no images."""

    default_prefix = ''

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {
            'mIoU': np.float32(50),
            'tensor': torch.tensor(0.25),
            'undefined': float('nan'),
            'per_class': [1.0, 2.0],
            'matrix': torch.zeros(2, 2),
        }


@pytest.fixture
def toy_metric():
    METRICS.register_module(module=ToyMetric)
    yield
    METRICS._module_dict.pop('ToyMetric')


def test_any_metric_is_compared(tmp_path, toy_metric):
    make_runner(tmp_path, name='any', metrics=[dict(type='ToyMetric')]).train()
    results = results_of(tmp_path)
    assert results['before'] == results['after'] == {'mIoU': 50.0, 'tensor': 0.25}
    assert results['box_fill'] == results['images'] == {}
    assert row_of(log_of(tmp_path), 'tensor') == ['-', '0.2500', '0.2500', '+0.0000']
    assert 'became worse' not in log_of(tmp_path)


def test_a_name_of_two_metrics_keeps_its_prefix(tmp_path, toy_metric):
    metrics = [dict(type='ToyMetric'), dict(type='PromptedMaskMetric')]
    make_runner(tmp_path, name='both', metrics=metrics).train()
    results = results_of(tmp_path)
    assert results['before']['mIoU'] == 50
    assert results['before']['sam/mIoU'] == pytest.approx(BEFORE['mIoU'])
    own_name = {'mIoU': 'sam/mIoU'}
    expected = {own_name.get(name, name): score for name, score in BOX_FILL.items()}
    assert results['box_fill'] == pytest.approx(expected)
    assert set(results['images']) == {'thin.png', 'wide.png'}


def test_validation_outside_of_training_is_not_recorded(tmp_path):
    make_runner(tmp_path, name='val', metrics=[dict(type='PromptedMaskMetric')]).val()
    assert not (tmp_path / 'results.json').exists()
