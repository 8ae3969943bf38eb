"""Recipes on the nuclei, from the same weights and for the same number of steps.

    make demo                       # weights of boxes on generated stamps
    python benchmarks/recipes.py    # writes work_dirs/recipes, prints the table

A small SAM first learns points and clicks, on generated stamps and then on the nuclei
(``sam_tiny_stamp_mixed.py``, ``sam_tiny_nuclei_mixed.py``): it stands in for stock SAM, which knows
boxes and points. From there it is tuned on the nuclei by the default recipe, with the whole model
and with the decoder alone, with boxes only, with the prompts of SAM's paper, and as a well-known
tutorial does it. Each is tested with boxes, with noisy boxes and with clicks.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from prettytable import PrettyTable

ROOT = Path(__file__).parents[1]
DEMO_WEIGHTS = ROOT / 'work_dirs/demo/sam_tuned.pth'
FIRST_STEPS = {'stamp': 150, 'nuclei': 200}

OBJECTS = 4
"""Of an image in a step, where a config has 16: a step of five predictions takes a CPU long."""

SCORES = (
    'mIoU', 'mBIoU', 'mIoU_noise10', 'mIoU_noise20', 'mIoU_click1', 'mIoU_click2', 'mIoU_click3',
    'mIoU_click5', 'mIoU_click10', 'NoC85', 'NoC90', 'IoU_error',
)  # fmt: skip

DECODER_ONLY = """
_base_ = '{root}/configs/sam_tiny_nuclei.py'
model = dict(frozen=('image_encoder', 'prompt_encoder'))
optim_wrapper = dict(optimizer=dict(lr=1e-4))  # as sam_stamp.py
"""

TUTORIAL = """
_base_ = '{root}/configs/sam_tiny_nuclei.py'
model = dict(frozen=('image_encoder', 'prompt_encoder'), correction=None)
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=1),
    dict(type='ResizeLongestSide', image_size=256),
    dict(type='DecodeObjectMasks'),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=1e-4, weight_decay=0, fused=None), clip_grad=None)
auto_scale_lr = dict(base_batch_size=1)
param_scheduler = []
custom_hooks = [
    dict(type='MaskLossHook', loss=dict(
        type='SAMMaskLoss', resolution='input', focal_weight=0, dice_weight=0, mse_weight=1,
        iou_weight=0)),
    dict(type='StockWeightsHook'),
]
"""


def train(config: Path, start: Path, steps: int, work_dir: Path) -> Path:
    """Tuned weights in the layout of stock SAM."""
    weights = work_dir / 'sam_tuned.pth'
    is_tutorial = config.stem == 'tutorial'
    if not weights.exists():
        options = [
            f'train_cfg.max_iters={steps}', f'train_cfg.val_interval={steps}',
            f'train_dataloader.dataset.pipeline.1.max_objects={1 if is_tutorial else OBJECTS}',
        ]  # fmt: skip
        run('train', config, '--load-from', start, '--work-dir', work_dir, '--no-validate',
            '--options', *options)  # fmt: skip
    return weights


def test(weights: Path, work_dir: Path) -> dict[str, float]:
    """Scores of the validation images by name, without their prefix."""
    run('test', ROOT / 'configs/sam_tiny_nuclei.py', weights, '--work-dir', work_dir,
        '--clicks', 10, '--box-noise', 0.1, 0.2)  # fmt: skip
    path = max(work_dir.glob('*/*.json'))  # of the latest test
    return {
        name.removeprefix('sam/'): value for name, value in json.loads(path.read_text()).items()
    }


def seconds_per_step(weights: Path) -> str:
    """Of the training that wrote them, the median; machines and other work change it."""
    path = max(weights.parent.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return f'{median(record["time"] for record in records if "loss" in record):.2f}'


def run(tool: str, *args: object) -> None:
    command = [sys.executable, ROOT / f'tools/{tool}.py', *args]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f'{" ".join(map(str, command))} ended with {done.returncode}: {done.stderr}'
        )


def main(steps: int, work_dir: Path) -> None:
    configs = ROOT / 'configs'
    start = DEMO_WEIGHTS
    for data, first_steps in FIRST_STEPS.items():
        name = f'sam_tiny_{data}_mixed'
        start = train(configs / f'{name}.py', start, first_steps, work_dir / name)
    tutorial, decoder_only = work_dir / 'tutorial.py', work_dir / 'decoder_only.py'
    tutorial.write_text(TUTORIAL.format(root=ROOT))
    decoder_only.write_text(DECODER_ONLY.format(root=ROOT))
    recipes = {
        'default': configs / 'sam_tiny_nuclei.py',
        'tutorial': tutorial,
        'default, decoder only': decoder_only,
        'boxes only': configs / 'sam_tiny_nuclei_boxes.py',
        "SAM's recipe": configs / 'sam_tiny_nuclei_mixed.py',
    }
    table = PrettyTable(['score'], align='r')
    table.add_rows([[name] for name in (*SCORES, 's/step')])
    weights = {'before': start} | {
        name: train(config, start, steps, work_dir / f'run_{number}')
        for number, (name, config) in enumerate(recipes.items())
    }
    for number, (name, path) in enumerate(weights.items()):
        scores = test(path, work_dir / f'test_{number}')
        seconds = seconds_per_step(path) if number else '-'
        table.add_column(name, [*(f'{scores[score]:.4f}' for score in SCORES), seconds])
        print(table, flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=150)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/recipes')
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    main(arguments.steps, arguments.work_dir)
