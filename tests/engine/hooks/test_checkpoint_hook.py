"""The order of saving and deleting, and exact resume, on a toy model with dropout."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from tiny_run import assert_equal
from torch import nn
from two_ranks import fork_two_ranks

import mmsam.engine.runner
import mmsam.training_checkpoint
from mmsam.engine import SAMRunner
from mmsam.engine.hooks import SAMCheckpointHook
from mmsam.errors import CheckpointError, ConfigError, StorageError
from mmsam.training_checkpoint import (
    latest_training_checkpoint,
    read_training_checkpoint,
    save_training_checkpoint,
)


class ToyModel(BaseModel):
    """Draws from torch (dropout), NumPy and Python in each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)
        self.drawn: list[tuple] = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        if mode != 'loss':
            return list(inputs)
        outputs = self.dropout(self.linear(torch.stack(list(inputs))))
        self.drawn.append((float(outputs.sum()), np.random.random()))
        return {'loss': (outputs - 1).square().mean()}


class ScriptedMetric(BaseMetric):
    """Each validation draws random numbers and has the next score of ``scores``."""

    default_prefix = 'toy'

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict[str, float]:
        return {'score': next(self.scores)}


_NAMES = itertools.count()


def make_runner(
    work_dir: Path, max_iters: int = 6, scores: list[float] | None = None, resume: bool = False,
    load_from: Path | None = None, batch_size: int = 2, optim_wrapper: dict | None = None,
    frozen: str = '', hooks: tuple = (), **checkpoint,
) -> SAMRunner:  # fmt: skip
    """Saves after each iteration; validates after each one if it gets ``scores``.

    ``frozen``: a parameter that does not train.
    """
    torch.manual_seed(0)
    data = [{'inputs': torch.randn(4), 'data_samples': None} for _ in range(7)]
    options = {}
    if scores is not None:
        checkpoint.update(save_best='toy/score', rule='greater')
        options = dict(
            val_dataloader=dict(
                dataset=data, batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)
            ),
            val_cfg=dict(),
            val_evaluator=Evaluator(ScriptedMetric(scores)),
        )
    model = ToyModel()
    if frozen:
        model.get_parameter(frozen).requires_grad_(False)
    return SAMRunner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=data, batch_size=batch_size, num_workers=0,
            sampler=dict(type='SeededInfiniteSampler'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=max_iters, val_interval=1),
        optim_wrapper=dict(
            constructor='TrainableParamsConstructor', optimizer=dict(type='Adam', lr=0.1),
            **(optim_wrapper or {}),
        ),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False)],
        default_hooks=dict(
            checkpoint=dict(type='SAMCheckpointHook', by_epoch=False, interval=1) | checkpoint,
        ),
        custom_hooks=list(hooks),
        log_processor=dict(by_epoch=False),
        log_level='ERROR',
        default_scope='mmsam',
        randomness=dict(seed=3),
        experiment_name=f'checkpoint_hook_{next(_NAMES)}',
        resume=resume,
        load_from=None if load_from is None else str(load_from),
        **options,
    )  # fmt: skip


def names(work_dir: Path) -> list[str]:
    """Checkpoints in the folder; each has its digest and nothing is half written."""
    files = sorted(path.name for path in work_dir.glob('*.pth'))
    assert sorted(path.name for path in work_dir.glob('*.sha256')) == [f'{n}.sha256' for n in files]
    assert not list(work_dir.glob('.*.partial'))
    return files


def fail_on(monkeypatch: pytest.MonkeyPatch, *failing: str) -> list[tuple[str, set[str]]]:
    """Let the writing of some files fail; returns, for each write, what stood in the folder."""
    original, written = mmsam.engine.runner.save_training_checkpoint, []

    def save(content, path):
        written.append((path.name, {p.name for p in path.parent.glob('*.pth')}))
        if path.name in failing:
            raise StorageError(f'{path} cannot be written: no space.')
        original(content, path)

    monkeypatch.setattr(mmsam.engine.runner, 'save_training_checkpoint', save)
    return written


def test_the_latest_are_kept_and_named(tmp_path):
    make_runner(tmp_path, max_keep_ckpts=2).train()
    assert names(tmp_path) == ['iter_5.pth', 'iter_6.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == 'iter_6.pth'


def test_old_ones_are_deleted_after_the_new_one_is_complete(tmp_path, monkeypatch):
    written = fail_on(monkeypatch)
    make_runner(tmp_path, max_iters=3, max_keep_ckpts=1).train()
    assert written == [
        ('iter_1.pth', set()), ('iter_2.pth', {'iter_1.pth'}), ('iter_3.pth', {'iter_2.pth'}),
    ]  # fmt: skip


class EndingHook(Hook):
    """Notes the end of a training, behind all others."""

    priority = 'LOWEST'
    ended = False

    def after_train(self, runner) -> None:
        self.ended = True


@pytest.mark.bad_input(84)
def test_a_full_disk_leaves_the_last_good_one_and_the_training_goes_on(tmp_path, monkeypatch):
    fail_on(monkeypatch, 'iter_4.pth', 'iter_5.pth', 'iter_6.pth')
    runner = make_runner(tmp_path, max_keep_ckpts=1)
    errors = []
    monkeypatch.setattr(runner.logger, 'error', errors.append)
    others = EndingHook()
    runner.register_hook(others)
    with pytest.raises(StorageError, match=r'iter_6.pth cannot .* The last good one: .*iter_3.pth'):
        runner.train()
    assert runner.iter == 6 and others.ended
    assert names(tmp_path) == ['iter_3.pth']
    assert latest_training_checkpoint(tmp_path).name == 'iter_3.pth'
    assert len(errors) == 3
    assert 'iter_4.pth cannot be written: no space. The training goes on' in errors[0]
    assert errors[0].endswith('iter_3.pth.')


def test_after_a_full_disk_the_next_one_is_saved_and_the_old_one_deleted(tmp_path, monkeypatch):
    fail_on(monkeypatch, 'iter_4.pth', 'iter_5.pth')
    make_runner(tmp_path, max_keep_ckpts=1).train()
    assert names(tmp_path) == ['iter_6.pth']


def test_the_last_good_one_may_be_of_an_earlier_start(tmp_path, monkeypatch):
    make_runner(tmp_path, 2).train()
    fail_on(monkeypatch, 'iter_3.pth')
    with pytest.raises(StorageError, match=r'The last good one: .*iter_2.pth'):
        make_runner(tmp_path, 3, resume=True).train()


def test_a_new_one_that_has_no_digest_takes_no_room(tmp_path, monkeypatch):
    original = mmsam.training_checkpoint.write_text_atomically

    def write(path, text):
        if path.name == 'iter_4.pth.sha256':
            raise StorageError('no space.')
        original(path, text)

    monkeypatch.setattr(mmsam.training_checkpoint, 'write_text_atomically', write)
    make_runner(tmp_path, max_iters=5).train()
    assert names(tmp_path) == ['iter_1.pth', 'iter_2.pth', 'iter_3.pth', 'iter_5.pth']


def test_one_that_is_written_again_stays(tmp_path, monkeypatch):
    """After a validation with a new best score; the second attempt fails."""
    runner = make_runner(tmp_path, max_iters=1, scores=[0.5])
    save, calls = mmsam.engine.runner.save_training_checkpoint, []

    def fail_the_second_time(content, path):
        calls.append(path.name)
        if calls.count('iter_1.pth') == 2:
            raise StorageError('no space.')
        save(content, path)

    monkeypatch.setattr(mmsam.engine.runner, 'save_training_checkpoint', fail_the_second_time)
    with pytest.raises(StorageError, match=r'no space. The last good one: .*iter_1.pth'):
        runner.train()
    assert calls.count('iter_1.pth') == 2
    assert latest_training_checkpoint(tmp_path).name == 'iter_1.pth'


def test_stop_on_a_full_disk(tmp_path, monkeypatch):
    fail_on(monkeypatch, 'iter_4.pth')
    runner = make_runner(tmp_path, max_keep_ckpts=1, on_write_error='stop')
    with pytest.raises(StorageError, match='iter_4'):
        runner.train()
    assert names(tmp_path) == ['iter_3.pth']


def test_another_word_than_stop_or_continue(tmp_path):
    with pytest.raises(ConfigError, match="'continue' or 'stop', got 'halt'"):
        make_runner(tmp_path, on_write_error='halt')


def test_the_best_is_replaced_when_the_new_one_is_complete(tmp_path, monkeypatch):
    written = fail_on(monkeypatch)
    make_runner(tmp_path, 4, [0.1, 0.3, 0.2, 0.4], max_keep_ckpts=1).train()
    assert names(tmp_path) == ['best_toy_score_iter_4.pth', 'iter_4.pth']
    best = [(name, before) for name, before in written if name.startswith('best')]
    assert [name for name, _ in best] == [f'best_toy_score_iter_{n}.pth' for n in (1, 2, 4)]
    assert 'best_toy_score_iter_1.pth' in best[1][1] and 'best_toy_score_iter_2.pth' in best[2][1]


def test_which_score_is_the_best_follows_from_its_name():
    hook = SAMCheckpointHook(save_best=['sam/NoC85', 'sam/mBIoU', 'val_acc'])
    assert hook.rules == ['less', 'greater', 'greater']
    with pytest.raises(ConfigError, match="sam/IoU_bias.* rule='greater' or rule='less'"):
        SAMCheckpointHook(save_best='sam/IoU_bias')
    with pytest.raises(ConfigError, match="'greater' or 'less', got 'max'"):
        SAMCheckpointHook(save_best='sam/mIoU', rule='max')


def test_a_best_score_that_no_validation_gives(tmp_path):
    runner = make_runner(tmp_path, scores=[0.1])
    [hook] = (hook for hook in runner.hooks if isinstance(hook, SAMCheckpointHook))
    hook.key_indicators = ['toy/scores']
    with pytest.raises(ConfigError, match="save_best: .* toy/score; got 'toy/scores'"):
        runner.train()


def test_a_best_one_that_cannot_be_written_does_not_cost_the_one_before(tmp_path, monkeypatch):
    """The score of the lost one does not count: the next, lower one is still the best kept."""
    fail_on(monkeypatch, 'best_toy_score_iter_2.pth')
    runner = make_runner(tmp_path, 4, [0.1, 0.4, 0.2, 0.05], max_keep_ckpts=1)
    monkeypatch.setattr(runner.logger, 'error', lambda message: None)
    runner.train()
    assert names(tmp_path) == ['best_toy_score_iter_3.pth', 'iter_4.pth']
    assert runner.message_hub.get_info('best_score') == 0.2


def test_the_first_best_one_cannot_be_written(tmp_path, monkeypatch):
    fail_on(monkeypatch, 'best_toy_score_iter_1.pth')
    runner = make_runner(tmp_path, 3, [0.4, 0.1, 0.05])
    monkeypatch.setattr(runner.logger, 'error', lambda message: None)
    runner.train()
    assert 'best_toy_score_iter_2.pth' in names(tmp_path)
    assert runner.message_hub.get_info('best_score') == 0.1


ACCUMULATE = dict(accumulative_counts=3)


def test_checkpoints_wait_for_the_update(tmp_path):
    """Of 3 iterations each, and of the last iteration."""
    make_runner(tmp_path, 8, optim_wrapper=ACCUMULATE, interval=2, max_keep_ckpts=9).train()
    assert names(tmp_path) == ['iter_3.pth', 'iter_6.pth', 'iter_8.pth']


def test_a_best_score_between_updates_is_saved_with_the_next_one(tmp_path):
    """mmengine would save at once, and name it as the one to go on from."""
    scores = [0.1, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    runner = make_runner(
        tmp_path, 8, scores, optim_wrapper=ACCUMULATE, interval=5, max_keep_ckpts=9
    )
    runner.train()
    assert names(tmp_path) == [
        'best_toy_score_iter_4.pth', 'iter_3.pth', 'iter_6.pth', 'iter_8.pth'
    ]  # fmt: skip
    saved = {n: read_training_checkpoint(tmp_path / f'iter_{n}.pth') for n in (3, 6)}
    best = {n: content['message_hub']['runtime_info']['best_score'] for n, content in saved.items()}
    assert best == {3: 0.1, 6: 0.5}


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / '.iter_9.pth.123.partial').write_bytes(b'half')
    make_runner(tmp_path, max_iters=1).train()
    assert names(tmp_path) == ['iter_1.pth']


# ------------------------------------------------------------------------------- exact resume


@pytest.mark.parametrize('stop', [1, 3, 5])
@pytest.mark.parametrize('validate', [False, True])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, stop, validate):
    """Weights, optimizer, schedule, best score and all random numbers, with dropout."""
    scores = [0.1, 0.5, 0.2, 0.3, 0.6, 0.4]
    straight = make_runner(tmp_path / 'straight', 6, scores if validate else None)
    straight.train()
    first = make_runner(tmp_path / 'halves', stop, scores if validate else None)
    first.train()
    second = make_runner(tmp_path / 'halves', 6, scores[stop:] if validate else None, resume=True)
    second.train()
    assert first.model.drawn + second.model.drawn == straight.model.drawn
    last = [read_training_checkpoint(tmp_path / d / 'iter_6.pth') for d in ('straight', 'halves')]
    for checkpoint in last:
        del checkpoint['message_hub']['log_scalars']  # how long each iteration took
        for key in ('time', 'cfg', 'experiment_name'):
            del checkpoint['meta'][key]
        for key in ('last_ckpt', 'best_ckpt', 'cfg', 'experiment_name'):
            checkpoint['message_hub']['runtime_info'].pop(key, None)
    assert_equal(*last)


def test_random_states_matter_for_that(tmp_path):
    """Without them the resumed run draws what the first iterations drew."""
    make_runner(tmp_path, 3).train()
    path = tmp_path / 'iter_3.pth'
    content = read_training_checkpoint(path)
    del content['random_states']
    mmsam.engine.runner.save_training_checkpoint(content, path)
    resumed = make_runner(tmp_path, 6, resume=True)
    resumed.train()
    straight = make_runner(tmp_path / 'straight', 6)
    straight.train()
    assert resumed.model.drawn != straight.model.drawn[3:]


def test_the_latest_is_damaged(tmp_path):
    make_runner(tmp_path / 'run', 3).train()
    straight = make_runner(tmp_path / 'straight', 6)
    straight.train()
    with (tmp_path / 'run' / 'iter_3.pth').open('r+b') as file:
        file.truncate(1000)
    resumed = make_runner(tmp_path / 'run', 6, resume=True)
    resumed.train()
    assert resumed.model.drawn == straight.model.drawn[2:]


@pytest.mark.bad_input(63)
def test_another_number_of_images_an_iteration_is_refused(tmp_path):
    make_runner(tmp_path, 2).train()
    runner = make_runner(tmp_path, 6, resume=True, batch_size=3)
    with pytest.raises(CheckpointError, match='2 images an iteration .* now it would be 3'):
        runner.train()


def test_another_model_optimizer_or_schedule_is_refused(tmp_path):
    make_runner(tmp_path, 2).train()
    path = tmp_path / 'iter_2.pth'
    whole = read_training_checkpoint(path)
    changes = {
        'does not fit the model: .*linear.weight': {'state_dict': {}},
        'another optimizer or trains other parameters': {
            'optimizer': {'state': {}, 'param_groups': []}
        },
        'has 0 parameter schedulers, the config 1': {'param_schedulers': []},
    }
    for message, change in changes.items():
        mmsam.engine.runner.save_training_checkpoint({**whole, **change}, path)
        with pytest.raises(CheckpointError, match=message):
            make_runner(tmp_path, 6, load_from=path, resume=True).train()


@pytest.mark.bad_input(62)
def test_other_trained_parameters_are_named(tmp_path):
    make_runner(tmp_path / 'all', 2).train()
    make_runner(tmp_path / 'some', 2, frozen='linear.bias').train()
    by_itself = dict(paramwise_cfg=dict(bias_lr_mult=2.0))
    for folder, options, changes in (
        ('all', dict(frozen='linear.bias'), r'1 trained then are not \(linear.bias\);'),
        ('some', dict(frozen='linear.weight'),
         r'1 trained now were not \(linear.bias\) and 1 trained then are not \(linear.weight\);'),
        ('some', {}, r'1 trained now were not \(linear.bias\);'),
        ('all', dict(optim_wrapper=by_itself), 'the same in other groups or order;'),
    ):  # fmt: skip
        path = tmp_path / folder / 'iter_2.pth'
        message = f'{path} trained other parameters: {changes} set model.frozen'
        with pytest.raises(CheckpointError, match=message):
            make_runner(tmp_path, 6, load_from=path, resume=True, **options).train()
    resumed = make_runner(tmp_path / 'some', 3, frozen='linear.bias', resume=True)
    resumed.train()
    assert resumed.iter == 3


def test_a_checkpoint_without_the_names_is_compared_by_their_number(tmp_path):
    """As mmsam wrote them before it wrote the names."""
    make_runner(tmp_path, 2).train()
    path = tmp_path / 'iter_2.pth'
    content = read_training_checkpoint(path)
    del content['meta']['trained']
    mmsam.engine.runner.save_training_checkpoint(content, path)
    with pytest.raises(CheckpointError, match='of another optimizer or trains other parameters'):
        make_runner(tmp_path, 6, load_from=path, resume=True, frozen='linear.bias').train()
    resumed = make_runner(tmp_path, 3, resume=True)
    resumed.train()
    assert resumed.iter == 3


@pytest.mark.bad_input(66)
def test_a_checkpoint_of_mmengine_is_named(tmp_path):
    runner = make_runner(tmp_path, 1)
    runner.train()
    Runner.save_checkpoint(runner, str(tmp_path), 'theirs.pth', by_epoch=False)
    path = tmp_path / 'theirs.pth'
    with pytest.raises(CheckpointError, match='another program than mmsam, perhaps of mmengine'):
        make_runner(tmp_path, 6, load_from=path, resume=True).train()
    make_runner(tmp_path / 'new', 1, load_from=path).train()  # as the message advises


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('resume', [False, True])
def test_weights_that_are_not_finite_are_not_gone_on_from(tmp_path, resume, value):
    make_runner(tmp_path, 2).train()
    path = tmp_path / 'iter_2.pth'
    content = read_training_checkpoint(path)
    content['state_dict'] = {k: v.clone() for k, v in content['state_dict'].items()}
    content['state_dict']['linear.weight'][1, 2] = value
    mmsam.engine.runner.save_training_checkpoint(content, path)
    with pytest.raises(CheckpointError, match='iter_2.pth has NaN or infinity in linear.weight'):
        make_runner(tmp_path, 6, load_from=path, resume=resume).train()


@pytest.mark.parametrize(
    ('save_last', 'saved', 'said'),
    [(True, ['iter_2.pth'], 'one is saved at the end'), (False, [], 'none is saved at the end')],
)
@pytest.mark.bad_input(70)
def test_an_interval_of_never_is_said_aloud(tmp_path, monkeypatch, save_last, saved, said):
    runner = make_runner(tmp_path, 2, interval=-1, save_last=save_last)
    warnings = []
    monkeypatch.setattr(runner.logger, 'warning', warnings.append)
    runner.train()
    assert names(tmp_path) == saved
    assert warnings == [
        f'Checkpoints are off (interval=-1): {said}, and a run that is killed is lost.'
    ]


def best_of(runner: SAMRunner) -> tuple[str, float]:
    info = runner.message_hub.runtime_info
    return Path(info['best_ckpt']).name, info['best_score']


def test_the_best_one_of_another_work_dir_stays_there(tmp_path):
    make_runner(tmp_path / 'a', 2, [0.5, 0.4]).train()
    runner = make_runner(
        tmp_path / 'b', 4, [0.3, 0.6], load_from=tmp_path / 'a' / 'iter_2.pth', resume=True
    )
    runner.train()
    assert best_of(runner) == ('best_toy_score_iter_4.pth', 0.6)
    assert 'best_toy_score_iter_1.pth' in names(tmp_path / 'a')
    assert 'best_toy_score_iter_4.pth' in names(tmp_path / 'b')


def test_the_best_one_is_found_in_a_moved_work_dir(tmp_path):
    make_runner(tmp_path / 'a', 2, [0.5, 0.4]).train()
    (tmp_path / 'a').rename(tmp_path / 'b')
    runner = make_runner(tmp_path / 'b', 3, [0.3], resume=True)
    runner.train()
    assert best_of(runner) == ('best_toy_score_iter_1.pth', 0.5)
    assert Path(runner.message_hub.get_info('best_ckpt')).parent == tmp_path / 'b'
    make_runner(tmp_path / 'b', 4, [0.7], resume=True).train()
    assert [name for name in names(tmp_path / 'b') if 'best' in name] == [
        'best_toy_score_iter_4.pth'
    ]


def test_a_best_one_that_has_gone_is_told_of(tmp_path, monkeypatch):
    make_runner(tmp_path, 2, [0.5, 0.4]).train()
    (tmp_path / 'best_toy_score_iter_1.pth').unlink()
    runner = make_runner(tmp_path, 3, [0.3], resume=True)
    warnings = []
    monkeypatch.setattr(runner.logger, 'warning', warnings.append)
    runner.train()
    assert best_of(runner) == ('best_toy_score_iter_3.pth', 0.3)
    assert any('iter_1.pth, is not there any more' in warning for warning in warnings)


@pytest.mark.bad_input(54)
def test_code_in_the_meta_of_a_checkpoint_is_not_run(tmp_path):
    """mmengine's own resume runs ``meta['config']`` as Python."""
    make_runner(tmp_path, 2).train()
    path = tmp_path / 'iter_2.pth'
    content = read_training_checkpoint(path)
    code = f'import pathlib; pathlib.Path({str(tmp_path / "ran")!r}).touch()'
    for key in ('config', 'cfg', 'env_info'):
        content['meta'][key] = code
    mmsam.engine.runner.save_training_checkpoint(content, path)
    make_runner(tmp_path, 3, resume=True).train()
    assert not (tmp_path / 'ran').exists()


# ---------------------------------------------------------------------------- averaged weights


EMA = dict(type='EMAHook', momentum=0.25)


class SeesWeights(Hook):
    """Notes the model's first weight in every validation."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if batch_idx == 0:
            self.seen.append(float(runner.model.linear.weight[0, 0]))


def first_weight(path: Path, state: str = 'state_dict', key: str = 'linear.weight') -> float:
    return float(read_training_checkpoint(path)[state][key][0, 0])


def test_averages_are_validated_saved_and_gone_on_from(tmp_path):
    """Each one moves a quarter of the way to the trained weights; the first is a copy."""
    validated = SeesWeights()
    make_runner(tmp_path, 4, [0.0] * 4, hooks=(EMA, validated), max_keep_ckpts=9).train()
    trained = [
        first_weight(tmp_path / f'iter_{n}.pth', 'ema_state_dict', 'module.linear.weight')
        for n in range(1, 5)
    ]
    average, averages = trained[0], []
    for value in trained:
        average += 0.25 * (value - average)
        averages.append(average)
    assert validated.seen == pytest.approx(averages)
    saved = [first_weight(tmp_path / f'iter_{n}.pth') for n in range(1, 5)]
    assert saved == validated.seen
    assert len(set(trained + saved[1:])) == 7


def test_averages_start_from_the_loaded_weights(tmp_path):
    """mmengine copies the model before it loads; the first validation would be of that copy."""
    make_runner(tmp_path / 'first', 2).train()
    weights = tmp_path / 'first' / 'iter_2.pth'
    validated = SeesWeights()
    hooks = (EMA, validated, dict(type='ZeroShotHook'))
    make_runner(tmp_path / 'run', 1, [0.0] * 2, hooks=hooks, load_from=weights).train()
    assert len(validated.seen) == 2 and validated.seen[0] == first_weight(weights)


def test_averages_start_from_the_initialized_weights(tmp_path):
    validated = SeesWeights()
    hooks = (EMA, validated, dict(type='ZeroShotHook'))
    runner = make_runner(tmp_path, 1, [0.0] * 2, hooks=hooks)
    runner.model.init_weights = lambda: nn.init.constant_(runner.model.linear.weight, 0.5)
    runner.train()
    assert len(validated.seen) == 2 and validated.seen[0] == 0.5


@pytest.mark.parametrize('before', [(), (EMA,)], ids=['without', 'with'])
def test_with_and_without_averages_are_two_trainings(tmp_path, before):
    make_runner(tmp_path, 2, hooks=before).train()
    now = () if before else (EMA,)
    words = 'an EMAHook, the config has none' if before else 'no EMAHook, the config has one'
    with pytest.raises(CheckpointError, match=words):
        make_runner(tmp_path, 4, resume=True, hooks=now).train()


# ------------------------------------------------------------------------------ learning rates


def test_the_rates_of_the_run_are_kept_and_the_difference_is_said(tmp_path, monkeypatch):
    """Scaled when it began, they are scaled when it goes on."""
    runner = make_runner(tmp_path, 2)
    runner.auto_scale_lr = dict(enable=True, base_batch_size=8)
    runner.train()
    assert runner.optim_wrapper.param_groups[0]['initial_lr'] == 0.025  # 2 images of 8
    for scaled in (True, False):
        resumed = make_runner(tmp_path, 4, load_from=tmp_path / 'iter_2.pth', resume=True)
        if scaled:
            resumed.auto_scale_lr = runner.auto_scale_lr
        warnings = []
        monkeypatch.setattr(resumed.logger, 'warning', warnings.append)
        resumed.train()
        assert resumed.optim_wrapper.param_groups[0]['initial_lr'] == 0.025
        said = 'The run began with learning rates 0.025, which are kept; the config says 0.1.'
        assert warnings.count(said) == (not scaled)


# ---------------------------------------------------------------------------------- two ranks


def train_with_a_full_disk(rank: int, folder: Path) -> None:
    def fail(content, path):
        if path.name.startswith('best'):
            raise StorageError(f'{path} cannot be written: no space.')
        save_training_checkpoint(content, path)

    mmsam.engine.runner.save_training_checkpoint = fail
    runner = make_runner(
        folder / 'run', 4, [0.5, 0.4, 0.6, 0.7], optim_wrapper=dict(accumulative_counts=2),
        interval=2,
    )  # fmt: skip
    due = []
    hook = Hook()
    hook.after_val = lambda runner: due.extend(
        h._is_due for h in runner.hooks if isinstance(h, SAMCheckpointHook)
    )
    runner.register_hook(hook, priority='LOWEST')
    runner.train()
    text = f'iteration {runner.iter}, {"due" if any(due[:3:2]) else "not due"}'
    (folder / f'rank_{rank}').write_text(text)


def test_ranks_agree_on_a_best_one_that_cannot_be_written(tmp_path):
    """Only rank 0 writes; each of the others would wait to save it again after the update."""
    fork_two_ranks(train_with_a_full_disk, tmp_path)
    for rank in range(2):
        assert (tmp_path / f'rank_{rank}').read_text() == 'iteration 4, not due'
    assert names(tmp_path / 'run') == ['iter_2.pth', 'iter_4.pth']
