import pytest
import torch
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmsam.engine import MaskLossHook
from mmsam.errors import ConfigError
from mmsam.models.losses import SAMMaskLoss
from mmsam.registry import MODELS

SIDE = 8


class ToySegmentor(BaseModel):
    """Learns one logit map for every image; names the loss it used in each iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 1, SIDE // 4, SIDE // 4))
        self.mask_loss: nn.Module | None = None
        self.used: list[nn.Module] = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        masks = torch.stack(inputs).squeeze(1)
        self.used.append(self.mask_loss)
        return self.mask_loss(
            low_res_logits=self.logits.expand(len(masks), -1, -1, -1),
            iou_predictions=self.logits.mean().expand(len(masks), 1),
            target_masks=masks,
            input_sizes=torch.tensor([[SIDE, SIDE]] * len(masks)),
        )


class WithoutSlot(ToySegmentor):
    def __init__(self) -> None:
        super().__init__()
        del self.mask_loss


def runner(work_dir, model, *, name, max_iters=4, hook=None, scope='mmsam', **options) -> Runner:
    images = [{'inputs': torch.ones(1, SIDE, SIDE, dtype=torch.uint8)} for _ in range(4)]
    loss_hook = hook or dict(
        type='MaskLossHook',
        loss=dict(type='SAMMaskLoss'),
        schedule=[
            dict(iteration=2, loss=dict(type='SAMMaskLoss', resolution='points')),
            dict(iteration=3, loss=dict(type='SAMMaskLoss', resolution='input')),
        ],
    )
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=images, batch_size=2, sampler=dict(type='InfiniteSampler', shuffle=False)
        ),
        train_cfg=dict(by_epoch=False, max_iters=max_iters, val_interval=100),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[loss_hook],
        default_scope=scope,
        experiment_name=f'mask_loss_hook_{name}',
        **options,
    )


def used(model: ToySegmentor) -> list[str]:
    return [f'{type(loss).__name__} {loss.resolution}' for loss in model.used]


ALL = ['SAMMaskLoss low_res'] * 2 + ['SAMMaskLoss points', 'SAMMaskLoss input']


def test_installs_and_switches_and_logs_each_once(tmp_path):
    model = ToySegmentor()
    run = runner(tmp_path, model, name='installs')
    assert model.mask_loss is None
    run.train()
    assert used(model) == ALL
    (log,) = tmp_path.glob('*/*.log')
    lines = [line for line in log.read_text().splitlines() if 'Mask loss from iteration' in line]
    assert len(lines) == 3
    for line, iteration, loss in zip(lines, (0, 2, 3), ALL[1:], strict=True):
        name, resolution = loss.split()
        assert f"iteration {iteration} on: {name}(resolution='{resolution}'" in line
    state = torch.load(tmp_path / 'iter_4.pth', weights_only=False)['state_dict']
    assert list(state) == ['logits']


@pytest.mark.parametrize(('stopped_at', 'expected'), [(1, ALL[1:]), (2, ALL[2:]), (3, ALL[3:])])
def test_resumes_with_the_loss_of_the_iteration(tmp_path, stopped_at, expected):
    runner(tmp_path, ToySegmentor(), name=f'stop_{stopped_at}', max_iters=stopped_at).train()
    model = ToySegmentor()
    runner(tmp_path, model, name=f'resume_{stopped_at}', resume=True).train()
    assert used(model) == expected


def test_reaches_the_model_inside_a_distributed_wrapper(tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        model = ToySegmentor()
        run = runner(
            tmp_path,
            model,
            name='wrapped',
            launcher='pytorch',
            cfg=dict(
                model_wrapper_cfg=dict(
                    type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
                )
            ),
        )
        assert is_model_wrapper(run.model)
        run.train()
        assert used(model) == ALL
        assert model.logits.min() > 0  # it learned
    finally:
        torch.distributed.destroy_process_group()


def test_model_without_the_slot_is_refused(tmp_path):
    run = runner(tmp_path, WithoutSlot(), name='no_slot')
    with pytest.raises(ConfigError, match='attribute mask_loss, got WithoutSlot'):
        run.train()


class LossWithParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.balance = nn.Parameter(torch.ones(1))


class LossWithBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('seen', torch.zeros(1))


class NotALoss:
    pass


@pytest.fixture
def bad_losses():
    classes = (LossWithParameter, LossWithBuffer, NotALoss)
    for cls in classes:
        MODELS.register_module(module=cls)
    yield
    for cls in classes:
        MODELS._module_dict.pop(cls.__name__)


@pytest.mark.parametrize(
    ('loss', 'message'),
    [
        (dict(type='LossWithParameter'), 'LossWithParameter with balance'),
        (dict(type='LossWithBuffer'), 'LossWithBuffer with seen'),
        (dict(type='NotALoss'), 'expects an nn.Module, got NotALoss'),
        (dict(type='SAMMaskLos'), 'SAMMaskLos'),
        (dict(type='SAMMaskLoss', resolutoin='input'), 'resolutoin'),
        (dict(type='SAMMaskLoss', resolution='inptu'), 'inptu'),
        (dict(resolution='input'), 'type'),
    ],
)
def test_bad_losses_fail_when_built(bad_losses, loss, message):
    with pytest.raises(ConfigError, match=message):
        MaskLossHook(loss=loss)
    with pytest.raises(ConfigError, match=message):
        MaskLossHook(loss=dict(type='SAMMaskLoss'), schedule=[dict(iteration=1000, loss=loss)])


@pytest.mark.parametrize(
    ('schedule', 'message'),
    [
        ([dict(iteration=0)], r'schedule\[0\] expects dict'),
        ([dict(iteration=0, loss=dict(type='SAMMaskLoss'))], 'integer above 0, got 0'),
        ([dict(iteration='5', loss=dict(type='SAMMaskLoss'))], "integer above 0, got '5'"),
        (
            [dict(iteration=n, loss=dict(type='SAMMaskLoss')) for n in (5, 5)],
            r'schedule\[1\].iteration expects an integer above 5, got 5',
        ),
    ],
)
def test_bad_schedules_fail_when_built(schedule, message):
    with pytest.raises(ConfigError, match=message):
        MaskLossHook(loss=dict(type='SAMMaskLoss'), schedule=schedule)


def test_prefixed_names_work_under_mmsegs_scope(tmp_path):
    model = ToySegmentor()
    hook = dict(type='mmsam.MaskLossHook', loss=dict(type='mmsam.SAMMaskLoss'))
    with DefaultScope.overwrite_default_scope('mmseg'):  # which the runner would leave behind
        runner(tmp_path, model, name='mmseg_scope', max_iters=1, hook=hook, scope='mmseg').train()
    assert isinstance(model.mask_loss, SAMMaskLoss)
