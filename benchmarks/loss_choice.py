"""Which loss trains a small SAM best: nuclei and generated stamps, one table for each.

    make demo     # the weights that every run starts from, and the stamps
    python benchmarks/loss_choice.py [--iterations 200] [--losses NAME ...] [--seeds 0 1]

Every loss trains from the same weights, with the same images, flips and boxes in the same order,
for the same number of iterations, in a process of one thread. A finished run is kept in the work
dir and not repeated, so that seeds or losses can be added later. The scores are those of the
validation after the last iteration, averaged over the seeds; the seconds are those of the fastest
ten iterations.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from prettytable import PrettyTable

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {'nuclei': 'sam_tiny_nuclei_boxes.py', 'stamps': 'sam_tiny_stamp.py'}
NO_PIXELWISE = dict(focal_weight=0, dice_weight=0)
LOSSES: dict[str, dict[str, Any]] = {
    'focal+dice': dict(),
    'bce+dice': dict(focal_weight=0, bce_weight=1),
    'mse': dict(**NO_PIXELWISE, mse_weight=1),
    'focal+dice+lovasz': dict(lovasz_weight=1),
    'focal+dice+boundary': dict(boundary_weight=1),
    'focal+dice points': dict(resolution='points'),
    'focal+dice input': dict(resolution='input'),
    'focal+dice+lovasz points': dict(lovasz_weight=1, resolution='points'),
}
SCORES = ('mIoU', 'mDice', 'mBIoU', 'mIoU_small', 'mIoU_medium', 'mIoU_large', 'IoU_error')
MAX_OBJECTS = 4
"""Of an image in an iteration: more images of few objects teach more a second than the reverse."""


def train(name: str, data: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Last scores, and the ``seconds`` of an iteration; only read where the run was made."""
    work_dir = args.work_dir / data / name.replace(' ', '_') / f'{args.iterations}_seed_{seed}'
    done = work_dir / 'scores.json'
    if not done.exists():
        work_dir.mkdir(parents=True, exist_ok=True)
        config = work_dir / 'run.py'
        hooks = [
            dict(type='DivergenceHook', max_skipped=10),
            dict(type='MaskLossHook', loss=dict(type='SAMMaskLoss', **LOSSES[name])),
        ]
        config.write_text(
            f'_base_ = {str(ROOT / "configs" / CONFIGS[data])!r}\ncustom_hooks = {hooks!r}\n'
        )
        options = [
            f'train_cfg.max_iters={args.iterations}',
            f'train_cfg.val_interval={args.iterations}',
            'default_hooks.logger.interval=10',
            f'train_dataloader.dataset.pipeline.1.max_objects={MAX_OBJECTS}',
        ]
        command = [sys.executable, ROOT / 'tools' / 'train.py', config, '--work-dir', work_dir]
        command += ['--load-from', args.load_from, '--seed', seed, '--options', *options]
        with (work_dir / 'output.txt').open('w') as output:
            subprocess.run(
                [str(part) for part in command],
                check=True,
                cwd=ROOT,
                env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        done.write_text(json.dumps(read_scores(work_dir)))
    return json.loads(done.read_text())


def read_scores(work_dir: Path) -> dict[str, float]:
    """From the records of the latest start in ``work_dir``; of the time, the fastest ten."""
    path = max(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    seconds = min(record['time'] for record in records if 'loss' in record)
    scores = {
        key.removeprefix('sam/'): value for key, value in records[-1].items() if 'sam/' in key
    }
    return scores | dict(seconds=seconds)


def table(runs: dict[str, list[dict[str, float]]]) -> PrettyTable:
    """One row per loss; ``runs`` are its scores, one dict per seed."""
    present = [
        score for score in SCORES if all(score in run for own in runs.values() for run in own)
    ]
    result = PrettyTable(['loss', *present, 'mIoU of each seed', 's/iteration'], align='r')
    result.align['loss'] = 'l'
    for name, own in runs.items():
        result.add_row(
            [
                name,
                *(f'{mean(run[score] for run in own):.4f}' for score in present),
                ' '.join(f'{run["mIoU"]:.4f}' for run in own),
                f'{mean(run["seconds"] for run in own):.2f}',
            ]
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--iterations', type=int, default=200)
    parser.add_argument('--losses', nargs='+', default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument('--data', nargs='+', default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--load-from', type=Path, default=ROOT / 'work_dirs/demo/sam_tuned.pth')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/loss_choice')
    args = parser.parse_args()
    runs: dict[str, dict[str, list[dict[str, float]]]] = {data: {} for data in args.data}
    for seed in args.seeds:
        for name in args.losses:
            for data in args.data:
                scores = train(name, data, seed, args)
                runs[data].setdefault(name, []).append(scores)
                print(f'{data}, {name}, seed {seed}: mIoU {scores["mIoU"]:.4f}', flush=True)
    for data, own in runs.items():
        filled = next(iter(own.values()))[0]['box_fill_mIoU']
        print(f'\n{data}, after {args.iterations} iterations; the filled box has {filled:.4f}')
        print(table(own))


if __name__ == '__main__':
    main()
