"""N iterations equal N/2, a resume and N/2, bit by bit; and nothing is read twice.

A feature of the training that has a state, or draws random numbers, gets a row in ``FEATURES``.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_ranks import train_on_ranks
from tiny_run import (
    assert_equal,
    equal,
    refused,
    run_here,
    train_records,
    weights_of,
    write_config,
)

from mmsam.datasets import BoxPromptDataset, SeededInfiniteSampler
from mmsam.datasets.transforms import loading
from mmsam.training_checkpoint import read_training_checkpoint, save_training_checkpoint
from tools import train

# ------------------------------------------------------------------------------- one process


def hooks(*more: str, resolution: str = 'low_res', later: str = '') -> str:
    """A line of a config: the hooks of a run, which a config can only replace all together."""
    names = ('DivergenceHook', 'ZeroShotHook', 'StockWeightsHook')
    loss = f"dict(type='SAMMaskLoss', resolution={resolution!r})"
    mask_loss = f"dict(type='MaskLossHook', loss={loss}, schedule=[{later}])"
    items = [mask_loss, *(f"dict(type='{name}')" for name in names), *more]
    return f'custom_hooks = [{", ".join(items)}]'


EMA = "dict(type='EMAHook', momentum=0.2)"
FROZEN = """
model.update(frozen=('image_encoder', 'prompt_encoder'))
embedding_cache = dict(folder='FOLDER')
"""
LATER_LOSS = "dict(iteration=4, loss=dict(type='SAMMaskLoss', resolution='points'))"
PROMPTS = """
train_pipeline.insert(-1, dict(type='RandomPrompts', box=1, point=1, mask=1))
model.update(correction=dict(num_clicks=2, num_repeats=2))
"""

FEATURES: dict[str, tuple[str, ...]] = {
    'plain': ('',),
    'workers': ('train_dataloader.update(num_workers=2)',),
    'bfloat16': ('', '--amp'),
    'averaged weights': (hooks(EMA, resolution='points'),),
    'accumulation': ('optim_wrapper = dict(accumulative_counts=2)',),
    'prompts, loss schedule': (PROMPTS + hooks(later=LATER_LOSS),),
    'embedding cache, averaged weights, bfloat16': (FROZEN + PROMPTS + hooks(EMA), '--amp'),
    'scaled learning rate': ('', '--auto-scale-lr'),
}
"""Lines at the end of the config, and arguments of train.py."""

ALL = f"""
train_pipeline[1]['max_objects'] = 1  # draws one of several
{hooks(resolution='points')}
"""
"""Lines before those: every source of random numbers is used."""

Run = Callable[[str], Path]


@pytest.fixture(scope='module')
def straight(data, tmp_path_factory) -> Run:
    """By the name of a feature, the work dir of 6 iterations, saved and validated at 3 and 6."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp('run')
            lines, *args = FEATURES[name]
            lines = lines.replace('FOLDER', str(folder / 'embeddings'))
            config = write_config(folder, data, extra=ALL + lines)
            run_here(train, config, '--work-dir', folder / 'straight', *args)
            made[name] = folder / 'straight'
        return made[name]

    return run


def final_state(work_dir: Path) -> dict:
    """All that the last checkpoint holds, but times, the folder and the log of validations.

    Unless its score was the best, a validation is not in the checkpoint saved before it.
    """
    content = read_training_checkpoint(work_dir / 'iter_6.pth')
    scalars = content['message_hub']['log_scalars']
    for name in [name for name in scalars if name.startswith('val/') or name.endswith('time')]:
        del scalars[name]
    for key in ('time', 'cfg', 'experiment_name'):
        del content['meta'][key]
    for key in ('last_ckpt', 'best_ckpt', 'cfg', 'experiment_name'):
        content['message_hub']['runtime_info'].pop(key, None)
    return content


@pytest.mark.parametrize('name', FEATURES)
@pytest.mark.trap(17)
def test_a_resumed_run_is_the_uninterrupted_one(straight, name, tmp_path):
    """In the middle of an epoch: the 5 images give 2 an iteration."""
    whole = straight(name)
    # while gradients are accumulated, the checkpoint of iteration 3 waits for the update
    middle = 4 if name == 'accumulation' else 3
    assert {path.name for path in whole.glob('iter_*.pth')} == {f'iter_{middle}.pth', 'iter_6.pth'}
    run_here(
        train, whole.parent / 'tiny.py', '--work-dir', tmp_path,
        '--resume-from', whole / f'iter_{middle}.pth', *FEATURES[name][1:],
    )  # fmt: skip
    assert_equal(final_state(tmp_path), final_state(whole))
    expected = train_records(whole)
    records = train_records(tmp_path)
    assert list(records) == list(range(middle + 1, 7))
    for iteration, record in records.items():
        for key in record.keys() - {'time', 'data_time'}:
            assert record[key] == expected[iteration][key], (iteration, key)
    tuned = [torch.load(folder / 'sam_tuned.pth') for folder in (whole, tmp_path)]
    assert equal(*tuned)
    assert not equal(weights_of(whole / f'iter_{middle}.pth'), weights_of(whole / 'iter_6.pth'))


def test_the_features_make_a_difference(straight):
    """But the number of workers does not."""
    plain = final_state(straight('plain'))
    assert_equal(final_state(straight('workers')), plain)
    averaged = final_state(straight('averaged weights'))
    averages, trained = averaged['state_dict'], averaged['ema_state_dict']
    assert equal({f'module.{key}': value for key, value in plain['state_dict'].items()},
                 {key: value for key, value in trained.items() if key != 'steps'})  # fmt: skip
    assert not equal(averages, plain['state_dict'])
    for name in FEATURES.keys() - {'plain', 'workers', 'averaged weights'}:
        assert not equal(final_state(straight(name))['state_dict'], plain['state_dict']), name


# ----------------------------------------------------------------------------- what is read


@pytest.fixture
def reads(straight, tmp_path, monkeypatch) -> Callable[[], list[str]]:
    """Notes the samples that are read, also by workers; returns 'epoch index' of each."""
    straight('plain')  # not to be noted
    log = tmp_path / 'reads'
    images = []
    prepare, read_rgb = BoxPromptDataset.prepare_data, loading.read_rgb

    def prepare_noted(self, idx):
        with log.open('a') as file:
            file.write(f'{idx.epoch} {int(idx)}\n')
        return prepare(self, idx)

    def read_noted(path, reading):
        images.append(path)
        return read_rgb(path, reading)

    def samples() -> list[str]:
        found = log.read_text().splitlines()
        assert len(images) in (len(found), 0), 'a sample is one image; those of workers do not show'
        return found

    monkeypatch.setattr(BoxPromptDataset, 'prepare_data', prepare_noted)
    monkeypatch.setattr(loading, 'read_rgb', read_noted)
    return samples


def positions(first: int, last: int, size: int = 5) -> list[str]:
    """Samples by their place in the stream of seed 0."""
    found = []
    for position in range(first, last):
        epoch, entry = divmod(position, size)
        bits = np.random.MT19937(np.random.SeedSequence([0, epoch]))
        found.append(f'{epoch} {np.random.RandomState(bits).permutation(size)[entry]}')
    return found


def resume(whole: Path, checkpoint: Path, work_dir: Path, *options: str) -> None:
    run_here(
        train, whole.parent / 'tiny.py', '--work-dir', work_dir, '--resume-from', checkpoint,
        '--no-validate', '--options', 'default_hooks.checkpoint.interval=-1', *options,
    )  # fmt: skip


@pytest.mark.trap(18)
def test_only_the_images_that_are_left_are_read(straight, reads, tmp_path):
    whole = straight('plain')
    resume(whole, whole / 'iter_3.pth', tmp_path / 'run')
    assert reads() == positions(6, 12)


def test_workers_read_ahead_but_nothing_twice(straight, reads, tmp_path):
    whole = straight('plain')
    resume(whole, whole / 'iter_3.pth', tmp_path / 'run', 'train_dataloader.num_workers=2')
    read = set(reads())
    assert set(positions(6, 12)) <= read <= set(positions(6, 12 + 2 * 2 * 2))


def test_iteration_100_000_costs_no_more(straight, reads, tmp_path, monkeypatch):
    """Two images are read, and one epoch is shuffled: benchmarks/resume_position.py has seconds."""
    content = read_training_checkpoint(straight('plain') / 'iter_3.pth')
    content['meta']['iter'] = 100_000
    save_training_checkpoint(content, tmp_path / 'late.pth')
    shuffled = []
    order = SeededInfiniteSampler._order
    monkeypatch.setattr(
        SeededInfiniteSampler,
        '_order',
        lambda self, epoch: shuffled.append(epoch) or order(self, epoch),
    )
    resume(
        straight('plain'), tmp_path / 'late.pth', tmp_path / 'run',
        'train_cfg.max_iters=100001', 'param_scheduler=[]',
    )  # fmt: skip
    assert reads() == positions(200_000, 200_002)
    assert shuffled == [40_000]


# --------------------------------------------------------------------------- several processes


@pytest.fixture(scope='module')
def config(data, tmp_path_factory) -> Path:
    lines = f'optim_wrapper = dict(accumulative_counts=2)\n{hooks(EMA)}'
    return write_config(tmp_path_factory.mktemp('config'), data, extra=lines)


def options(max_iters: int, batch_size: int) -> list[str]:
    return [
        '--no-validate', '--options', f'train_cfg.max_iters={max_iters}',
        f'train_dataloader.batch_size={batch_size}', 'default_hooks.checkpoint.interval=1',
    ]  # fmt: skip


@pytest.fixture(scope='module')
def two_ranks(config, tmp_path_factory) -> Path:
    """The work dir of 6 iterations of two processes with 1 image each, updated at 2, 4 and 6."""
    work_dir = tmp_path_factory.mktemp('two_ranks') / 'run'
    train_on_ranks(2, work_dir, config, *options(6, 1))
    return work_dir


def test_two_ranks_go_on_bit_by_bit(two_ranks, config, tmp_path):
    train_on_ranks(
        2, tmp_path / 'run', config, '--resume-from', two_ranks / 'iter_2.pth', *options(6, 1)
    )
    assert equal(weights_of(tmp_path / 'run' / 'iter_6.pth'), weights_of(two_ranks / 'iter_6.pth'))


def test_four_ranks_go_on_bit_by_bit(config, tmp_path):
    train_on_ranks(4, tmp_path / 'straight', config, *options(4, 1))
    train_on_ranks(
        4, tmp_path / 'resumed', config, '--resume-from', tmp_path / 'straight' / 'iter_2.pth',
        *options(4, 1),
    )  # fmt: skip
    final = [weights_of(tmp_path / name / 'iter_4.pth') for name in ('straight', 'resumed')]
    assert equal(*final)


def test_one_process_goes_on_where_two_stopped(two_ranks, config, tmp_path):
    """With the same number of images an iteration the data are the same, sums rounded otherwise.

    Where a gradient is nearly 0, Adam makes a step of that rounding; so all weights are compared
    together, not one by one.
    """
    run_here(
        train, config, '--work-dir', tmp_path, '--resume-from', two_ranks / 'iter_2.pth',
        *options(6, 2),
    )  # fmt: skip
    ours, theirs = weights_of(tmp_path / 'iter_6.pth'), weights_of(two_ranks / 'iter_6.pth')
    start_weights = weights_of(two_ranks / 'iter_2.pth')
    moved = sum(float((theirs[key] - start_weights[key]).square().sum()) for key in theirs)
    apart = sum(float((theirs[key] - ours[key]).square().sum()) for key in theirs)
    assert apart < 0.01**2 * moved  # of the squares
    assert list(train_records(tmp_path)) == [3, 4, 5, 6]


def test_another_number_of_images_an_iteration_is_refused(two_ranks, config, tmp_path, capsys):
    code, line = refused(
        capsys, train, config, '--work-dir', tmp_path, '--resume-from', two_ranks / 'iter_2.pth',
        *options(6, 1),
    )  # fmt: skip
    assert code == 4
    assert '2 images an iteration (2 processes of 1), now it would be 1 (1 of 1)' in line
    assert torch.load(two_ranks / 'iter_2.pth', weights_only=True)['meta']['world_size'] == 2
