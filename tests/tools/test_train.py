"""Training by the command line; runs whose command line is not the point stay in this process."""

import json
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_run import (
    equal,
    finish,
    finish_after_signal,
    refused,
    run_here,
    scalars,
    start,
    train_records,
    weights_of,
    write_config,
)
from tiny_sam import build_segmentor

from mmsam.apis import hold_work_dir
from tools import train

MMSEG_CONFIGS = Path(__import__('mmseg').__file__).parent / '.mim' / 'configs'


@pytest.fixture(scope='module')
def config(data, tmp_path_factory) -> Path:
    """Trains for 2 iterations, which the command line may change."""
    return write_config(tmp_path_factory.mktemp('config'), data, max_iters=2)


SIX_ITERATIONS = [
    '--options',
    'train_cfg.max_iters=6',
    'evaluation.interval=3',
    'default_hooks.checkpoint.interval=3',
]


@pytest.fixture(scope='module')
def straight(config, tmp_path_factory):
    """A run of 6 iterations: its process and its work dir."""
    folder = tmp_path_factory.mktemp('straight')
    process = start(
        'train.py', config, '--work-dir', 'run', '--tensorboard', *SIX_ITERATIONS, cwd=folder
    )
    done = finish(process)
    assert done.returncode == 0, done.stderr
    return done, folder / 'run'


# ------------------------------------------------------------------------------- one whole run


def test_it_validates_before_training_and_at_each_interval(straight):
    _, work_dir = straight
    order = [
        ('train', record['iter']) if 'loss' in record else ('val', record['step'])
        for record in scalars(work_dir)
    ]
    trained = [('train', iteration) for iteration in range(1, 7)]
    assert order == [('val', 0), *trained[:3], ('val', 3), *trained[3:], ('val', 6)]


def test_results_hold_the_first_and_the_last_validation(straight):
    _, work_dir = straight
    results = json.loads((work_dir / 'results.json').read_text())
    first, *_, last = [record for record in scalars(work_dir) if 'sam/mIoU' in record]
    for scores, record in ((results['before'], first), (results['after'], last)):
        assert {'mIoU', 'mDice'} <= scores.keys()
        for name, value in scores.items():
            assert value == record[f'sam/{name}']
    assert results['iteration'] == 6
    # ellipses fill pi/4 of their box, unless they are rotated or overlap
    assert 0.5 < results['box_fill']['mIoU'] < 0.9


def test_the_dumped_config_is_the_one_that_ran(straight):
    _, work_dir = straight
    dumped = Config.fromfile(work_dir / 'tiny.py')
    assert (dumped.train_cfg.max_iters, dumped.train_cfg.val_interval) == (6, 3)
    assert dumped.default_hooks.checkpoint.interval == 3
    assert 'evaluation' not in dumped
    assert dumped.work_dir == 'run'
    assert dumped.visualizer.vis_backends[-1].type == 'TensorboardVisBackend'


def test_checkpoints_are_kept(straight):
    _, work_dir = straight
    for iteration in (3, 6):
        checkpoint = torch.load(work_dir / f'iter_{iteration}.pth', weights_only=False)
        assert checkpoint['meta']['iter'] == iteration
        assert checkpoint['state_dict'].keys() == build_segmentor(64).state_dict().keys()
        assert {'optimizer', 'param_schedulers'} <= checkpoint.keys()
    assert Path((work_dir / 'last_checkpoint').read_text()).name == 'iter_6.pth'
    assert len(list(work_dir.glob('best_*.pth'))) == 1
    first, last = (weights_of(work_dir / f'iter_{n}.pth') for n in (3, 6))
    assert not equal(first, last)


def test_it_shows_progress(straight):
    done, _ = straight
    (line,) = [line for line in done.stdout.splitlines() if 'Iter(train) [4/6]' in line]
    assert 'eta: ' in line and 'loss: ' in line and 'lr: ' in line


def test_tensorboard_writes_an_events_file(straight):
    _, work_dir = straight
    (events,) = work_dir.rglob('events.out.tfevents.*')
    assert events.stat().st_size > 500


@pytest.mark.bad_input(12)
def test_images_of_a_few_pixels(tmp_path):
    """Trains and validates on images that SAM's patches of 16 px are far larger than."""
    sizes = [(1, 1), (3, 40), (1, 300), (300, 2)]
    root = tmp_path / 'data'
    (root / 'images').mkdir(parents=True)
    images, annotations = [], []
    for number, (height, width) in enumerate(sizes, start=1):
        picture = np.full((height, width, 3), 50 * number, np.uint8)
        cv2.imwrite(str(root / 'images' / f'{number}.png'), picture)
        size = dict(height=height, width=width)
        images.append(dict(id=number, file_name=f'{number}.png', **size))
        mask = dict(size=[height, width], counts=[0, height * width])  # all of the image
        annotations.append(
            dict(id=number, image_id=number, category_id=1, segmentation=mask,
                 bbox=[0, 0, width, height])
        )  # fmt: skip
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='spot')])
    for split in ('train', 'val'):
        (root / f'annotations_{split}.json').write_text(json.dumps(content))
    config = write_config(tmp_path, root, max_iters=1, extra="train_dataloader['batch_size'] = 4")
    run_here(train, config, '--work-dir', tmp_path / 'run')
    losses = [record['loss'] for record in train_records(tmp_path / 'run').values()]
    assert len(losses) == 1 and np.isfinite(losses).all()
    results = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert results['box_fill'] == dict(mIoU=1.0, mDice=1.0)
    assert 0 <= results['after']['mIoU'] <= 1


# ------------------------------------------------------------------- load, resume, no validation


def test_load_from_starts_at_iteration_0_with_exactly_these_weights(straight, config, tmp_path):
    _, trained = straight
    weights = trained / 'iter_6.pth'
    run_here(
        train, config, '--load-from', weights, '--work-dir', tmp_path,
        '--options', 'train_cfg.max_iters=1', 'optim_wrapper.optimizer.lr=0.0',
        'default_hooks.checkpoint.interval=1',
    )  # fmt: skip
    assert list(train_records(tmp_path)) == [1]
    checkpoint = torch.load(tmp_path / 'iter_1.pth', weights_only=False)
    assert equal(checkpoint['state_dict'], weights_of(weights))  # a learning rate of 0
    steps = {int(state['step']) for state in checkpoint['optimizer']['state'].values()}
    assert steps == {1}, 'the optimizer is a new one'
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['before'] == json.loads((trained / 'results.json').read_text())['after']


def assert_continued(resumed: Path, straight: Path) -> None:
    """The run in ``resumed``, from iteration 3 on, is the second half of ``straight``."""
    records, expected = train_records(resumed), train_records(straight)
    assert list(records) == [4, 5, 6]
    for iteration, record in records.items():
        for name in ('lr', 'loss', 'grad_norm'):
            assert record[name] == expected[iteration][name], (iteration, name)
    first = torch.load(straight / 'iter_6.pth', weights_only=False)
    second = torch.load(resumed / 'iter_6.pth', weights_only=False)
    assert equal(second['state_dict'], first['state_dict'])
    assert second['param_schedulers'] == first['param_schedulers']
    states = first['optimizer']['state'], second['optimizer']['state']
    assert states[0].keys() == states[1].keys() and len(states[0]) > 100
    for number, state in states[0].items():
        assert equal(state, states[1][number])


def test_resume_continues_from_the_latest(straight, config, tmp_path):
    """The work dir is that of a run which was stopped after iteration 3."""
    _, work_dir = straight
    for name in ('iter_3.pth', 'results.json'):
        shutil.copy(work_dir / name, tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_3.pth'))
    run_here(train, config, '--resume', '--work-dir', tmp_path, *SIX_ITERATIONS)
    assert_continued(tmp_path, work_dir)
    # that of iteration 3 is made again unless its score was the best
    assert [r['step'] for r in scalars(tmp_path) if 'sam/mIoU' in r] in ([6], [3, 6])
    before, after = (json.loads((d / 'results.json').read_text()) for d in (work_dir, tmp_path))
    assert after['before'] == before['before'] and after['after'] == before['after']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])  # SIGUSR1: tests/faults
@pytest.mark.bad_input(81)
def test_a_signal_saves_and_resume_goes_on_bit_by_bit(straight, config, tmp_path, number):
    _, work_dir = straight
    workers = ['train_dataloader.num_workers=2', 'val_dataloader.num_workers=1']
    args = ['train.py', config, '--work-dir', 'run', *SIX_ITERATIONS, *workers]
    process = start(*args, cwd=tmp_path)
    done = finish_after_signal(process, 'Iter(train) [1/6]', number)
    assert done.returncode == 75
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith(f'StoppedError: {number.name}: stopped after iteration ')
    assert last_line.endswith('.pth).') and 'go on with --resume (saved as ' in last_line
    run_here(train, config, '--work-dir', tmp_path / 'run', '--resume', *SIX_ITERATIONS)
    assert equal(weights_of(tmp_path / 'run' / 'iter_6.pth'), weights_of(work_dir / 'iter_6.pth'))


@pytest.mark.bad_input(83)
def test_a_signal_during_the_imports_is_not_lost(config, tmp_path):
    """Slurm's may come that early; the run then stops after its first iteration."""
    process = start('train.py', config, '--work-dir', 'run', *SIX_ITERATIONS, cwd=tmp_path)
    status = Path(f'/proc/{process.pid}/status')
    while True:  # until the process listens, before torch is imported, which takes seconds
        caught = int(status.read_text().partition('SigCgt:')[2].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.returncode == 75
    assert 'SIGTERM: stopped after iteration 1; go on with --resume' in done.stderr


def test_resume_passes_over_a_damaged_checkpoint(straight, config, tmp_path):
    _, work_dir = straight
    for path in work_dir.glob('iter_*'):
        shutil.copy(path, tmp_path)
    shutil.copy(work_dir / 'last_checkpoint', tmp_path)
    with (tmp_path / 'iter_6.pth').open('r+b') as file:
        file.seek(5000)
        file.write(b'x')
    run_here(train, config, '--resume', '--work-dir', tmp_path, *SIX_ITERATIONS)
    assert_continued(tmp_path, work_dir)


@pytest.fixture(scope='module')
def seed_1(config, tmp_path_factory) -> Path:
    """One iteration without validation, by the path of its work dir."""
    return run_once(config, tmp_path_factory.mktemp('seed_1'), '--seed', 1)


def run_once(config: Path, work_dir: Path, *args: object) -> Path:
    run_here(
        train, config, '--no-validate', '--work-dir', work_dir, *args,
        '--options', 'train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1',
        "param_scheduler=[]",
    )  # fmt: skip
    return work_dir


def test_no_validate(seed_1):
    assert len(scalars(seed_1)) == 1
    assert not list(seed_1.glob('best_*')) and not (seed_1 / 'results.json').exists()
    assert (seed_1 / 'iter_1.pth').is_file()


def test_the_seed_decides_the_weights(seed_1, config, tmp_path):
    again = run_once(config, tmp_path / 'again', '--seed', 1)
    other = run_once(config, tmp_path / 'other', '--seed', 2)
    weights = [weights_of(folder / 'iter_1.pth') for folder in (seed_1, again, other)]
    assert equal(weights[0], weights[1])
    assert not equal(weights[0], weights[2])


def test_deterministic(seed_1, config, tmp_path, monkeypatch):
    """Same weights on a CPU; here that torch was told, and that nothing refuses."""
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # set by torch's advice, restored
    try:
        run_once(config, tmp_path, '--seed', 1, '--deterministic')
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
    assert equal(weights_of(tmp_path / 'iter_1.pth'), weights_of(seed_1 / 'iter_1.pth'))


def test_amp_trains_in_bfloat16(seed_1, config, tmp_path):
    run_once(config, tmp_path, '--seed', 1, '--amp')
    assert Config.fromfile(tmp_path / 'tiny.py').optim_wrapper.type == 'mmsam.BFloat16OptimWrapper'
    exact, rounded = train_records(seed_1)[1]['loss'], train_records(tmp_path)[1]['loss']
    assert exact != rounded and rounded == pytest.approx(exact, rel=2e-2)
    weights = weights_of(tmp_path / 'iter_1.pth')
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_auto_scale_lr(seed_1, config, tmp_path, capsys):
    """The schedule is for 8 images an update; here there are 2."""
    run_once(config, tmp_path, '--seed', 1, '--auto-scale-lr')
    plain, scaled = (train_records(folder)[1]['lr'] for folder in (seed_1, tmp_path))
    assert (plain, scaled) == (1.5e-3, pytest.approx(1.5e-3 / 4))
    assert 'for 8 images an update, there are 2 (1 processes x 2' in capsys.readouterr().out


# ------------------------------------------------------------------------------ what is refused


def test_auto_scale_lr_without_a_base(config, tmp_path, capsys):
    lines = config.read_text() + '\nauto_scale_lr = None\n'
    (tmp_path / 'tiny.py').write_text(lines)
    code, line = refused(capsys, train, tmp_path / 'tiny.py', '--auto-scale-lr')
    assert code == 2 and 'expected auto_scale_lr=dict(base_batch_size=N)' in line


def test_missing_data_is_one_line_by_the_command_line(config, tmp_path):
    process = start(
        'train.py', config, '--work-dir', tmp_path / 'run',
        '--options', 'train_dataloader.dataset.data_root=no/such/folder', cwd=tmp_path,
    )  # fmt: skip
    done = finish(process)
    assert done.returncode == 3
    assert 'Traceback' not in done.stderr + done.stdout
    assert done.stderr.splitlines()[-1] == (
        'DataError: train_dataloader: the data folder no/such/folder does not exist: '
        'run make the-data.'
    )
    assert not (tmp_path / 'run').exists(), 'it stops before it makes anything'


def test_two_starts_at_once(config, capsys):
    code, line = refused(capsys, train, config, '--load-from', 'a.pth', '--resume-from', 'b.pth')
    assert code == 2
    assert line.startswith('ConfigError: ') and '--load-from and --resume-from' in line


@pytest.mark.bad_input(64)
def test_resume_in_an_empty_folder(config, tmp_path, capsys):
    code, line = refused(capsys, train, config, '--resume', '--work-dir', tmp_path)
    assert code == 4 and f'{tmp_path} holds no checkpoint' in line


def iterations_of_the_last_run(work_dir):
    path = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line)['iter'] for line in path.read_text().splitlines()]


def run_in_a_folder_of_its_own(*args):
    """mmengine names the folder of a run by the second in which it begins."""
    time.sleep(1)
    run_here(*args)


def options_until(iterations):
    return ['--no-validate', '--options', f'train_cfg.max_iters={iterations}']


def test_auto_resume(config, tmp_path, monkeypatch):
    """The first run saves while the second one waits for the folder."""
    args = [train, config, '--auto-resume', '--work-dir']
    run_here(*args, tmp_path / 'first', *options_until(1))
    assert iterations_of_the_last_run(tmp_path / 'first') == [1]

    def hold_once_the_first_has_ended(folder):
        shutil.copytree(tmp_path / 'first', folder)
        return hold_work_dir(folder)

    monkeypatch.setattr(train, 'hold_work_dir', hold_once_the_first_has_ended)
    run_in_a_folder_of_its_own(*args, tmp_path / 'second', *options_until(3))
    assert iterations_of_the_last_run(tmp_path / 'second') == [2, 3]


def test_a_requeued_job_of_slurm_goes_on(config, tmp_path, monkeypatch):
    monkeypatch.setenv('SLURM_JOB_ID', '9')
    args = [train, config, '--work-dir', tmp_path]
    run_here(*args, *options_until(1))
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    run_in_a_folder_of_its_own(*args, '--load-from', tmp_path / 'iter_1.pth', *options_until(3))
    assert iterations_of_the_last_run(tmp_path) == [2, 3]
    # what another job has left does not count
    monkeypatch.setenv('SLURM_JOB_ID', '10')
    run_in_a_folder_of_its_own(*args, *options_until(1))
    assert iterations_of_the_last_run(tmp_path) == [1]


def test_resume_from_a_missing_file(config, tmp_path, capsys):
    code, line = refused(capsys, train, config, '--resume-from', tmp_path / 'no.pth')
    assert code == 4 and 'no.pth: no such file' in line


@pytest.mark.parametrize('option', ['evaluation.intervall=3', 'evaluation.interval=0'])
def test_wrong_evaluation(option, config, capsys):
    code, line = refused(capsys, train, config, '--options', option)
    assert code == 2 and line.startswith('ConfigError: evaluation')


def test_unknown_config_file(capsys):
    code, line = refused(capsys, train, 'configs/no_such.py')
    assert (code, line) == (2, 'ConfigError: configs/no_such.py: no such config file.')


def test_load_from_of_another_architecture(config, tmp_path, capsys):
    wider = dict(embed_dim=96, depth=1, num_heads=3, global_attn_indexes=(0,), window_size=0)
    torch.save(build_segmentor(64, wider).state_dict(), tmp_path / 'wider.pth')
    code, line = refused(
        capsys, train, config, '--load-from', tmp_path / 'wider.pth', '--work-dir', tmp_path,
        '--no-validate',
    )  # fmt: skip
    assert code == 4
    assert 'ViT (width 96, depth 1)' in line and 'ViT (width 48, depth 2)' in line


@pytest.mark.bad_input(61)
def test_resume_from_weights_without_a_run(config, tmp_path, capsys):
    """A likely mix-up with --load-from."""
    torch.save(build_segmentor(64).state_dict(), tmp_path / 'sam.pth')
    code, line = refused(
        capsys, train, config, '--resume-from', tmp_path / 'sam.pth', '--work-dir', tmp_path
    )
    assert code == 4 and 'sam.pth' in line and '--load-from' in line


def test_resume_from_another_architecture(straight, data, tmp_path, capsys):
    _, work_dir = straight
    deeper = write_config(tmp_path, data, extra='model["image_encoder"]["arch"].update(depth=3)')
    code, line = refused(
        capsys,
        train,
        deeper,
        '--resume-from',
        work_dir / 'iter_3.pth',
        '--work-dir',
        tmp_path / 'run',
    )
    assert code == 4 and 'iter_3.pth' in line
    assert 'ViT (width 48, depth 2)' in line and 'ViT (width 48, depth 3)' in line


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(SystemExit):
        run_here(train, 'configs/no_such.py', '--debug')
    assert 'Traceback' in capsys.readouterr().err


# ----------------------------------------------------------------------------- mmseg's own config


def test_a_packaged_config_of_mmseg_trains(tmp_path, monkeypatch):
    """UNet on CHASE DB1's folder layout, with the option that the config itself has off."""
    rng = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for folder in ('images', 'annotations'):
            (tmp_path / 'data' / folder / split).mkdir(parents=True)
        for number in range(2):
            image = rng.integers(0, 255, (80, 96, 3), dtype=np.uint8)
            mask = np.zeros((80, 96), np.uint8)
            mask[20:40, 30:60] = 1
            name = f'Image_{number:02d}L'
            cv2.imwrite(str(tmp_path / 'data' / 'images' / split / f'{name}.png'), image)
            label = tmp_path / 'data' / 'annotations' / split / f'{name}_1stHO.png'
            cv2.imwrite(str(label), mask)
    used = []
    checkpoint = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        torch.utils.checkpoint,
        'checkpoint',
        lambda *args, **kwargs: used.append(1) or checkpoint(*args, **kwargs),
    )
    batch_norm = [
        f'model.{part}.norm_cfg.type=BN' for part in ('backbone', 'decode_head', 'auxiliary_head')
    ]
    root = tmp_path / 'data'
    run_here(
        train, MMSEG_CONFIGS / 'unet' / 'unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py',
        '--work-dir', tmp_path / 'run', '--options', 'model.backbone.with_cp=True', *batch_norm,
        'model.backbone.base_channels=4', 'model.decode_head.in_channels=4',
        'model.decode_head.channels=4', 'model.auxiliary_head.in_channels=8',
        'model.auxiliary_head.channels=4',
        'model.data_preprocessor.size=(64,64)',
        'model.test_cfg.crop_size=(64,64)', 'model.test_cfg.stride=(42,42)',
        f'train_dataloader.dataset.dataset.data_root={root}',
        'train_dataloader.dataset.dataset.pipeline.2.scale=(96,80)',
        'train_dataloader.dataset.dataset.pipeline.3.crop_size=(64,64)',
        'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        f'val_dataloader.dataset.data_root={root}', 'val_dataloader.num_workers=0',
        'val_dataloader.dataset.pipeline.1.scale=(96,80)',
        'val_dataloader.persistent_workers=False',
        'train_cfg.max_iters=2', 'evaluation.interval=2', 'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=2', 'visualizer.vis_backends.0.type=LocalVisBackend',
    )  # fmt: skip
    assert used, 'with_cp=True had no effect'
    records = train_records(tmp_path / 'run')
    assert list(records) == [1, 2] and np.isfinite(records[2]['loss'])
    assert any('mDice' in record for record in scalars(tmp_path / 'run'))
    assert Config.fromfile(next((tmp_path / 'run').glob('*.py'))).model.backbone.with_cp is True
    assert 'backbone.encoder.0.0.convs.0.conv.weight' in weights_of(tmp_path / 'run/iter_2.pth')
