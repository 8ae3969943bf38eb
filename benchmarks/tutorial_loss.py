"""The loss of a public tutorial on fine-tuning SAM, as published and in a form that learns.

    make data/tiny_stamps/annotations_train.json
    python tools/train.py configs/sam_tiny_stamp.py --work-dir work_dirs/tutorial_loss/start \\
        --options train_cfg.max_iters=300 train_cfg.val_interval=300
    python benchmarks/tutorial_loss.py

Both train the mask decoder of the same small SAM as ``configs/sam_stamp_tutorial.py`` does: Adam at
1e-4, one image and one box a step, without augmentation, the same images in the same order. The
weights they start from are those of a short training (the first command), so that there is
something left to learn. Prints a table and draws both curves to ``docs/images/tutorial_loss.png``.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from mmengine.config import Config
from prettytable import PrettyTable
from torch import Tensor, nn

from mmsam.engine import SAMRunner
from mmsam.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
SMOOTHED = 200
"""Iterations over which the training loss is averaged."""


@MODELS.register_module()
class PublishedTutorialLoss(nn.Module):
    """``MSELoss()(normalize(threshold(masks, 0.0, 0)), mask)`` for every prompt, without padding.

    It has no gradient but rounding errors: see docs/tutorial.md. Never use it.
    """

    def forward(
        self,
        *,
        low_res_logits: Tensor,
        iou_predictions: Tensor,
        target_masks: Tensor,
        input_sizes: Tensor,
    ) -> dict[str, Tensor]:
        """Arguments and result as of ``SAMMaskLoss``."""
        side = target_masks.shape[-1]
        masks = F.interpolate(low_res_logits, (side, side), mode='bilinear', align_corners=False)
        losses = []
        for mask, target, (height, width) in zip(
            masks, target_masks.float(), input_sizes.tolist(), strict=True
        ):
            upscaled = mask[None, :, :height, :width]  # (1, 1, h, w) as in the tutorial
            binary = F.normalize(F.threshold(upscaled, 0.0, 0))
            losses.append(F.mse_loss(binary[0, 0], target[:height, :width]))
        # the sum keeps a batch without prompts in the graph
        return {'loss_mse': torch.stack(losses) if losses else masks.sum((1, 2, 3))}


LOSSES = {
    'as published': dict(type='PublishedTutorialLoss'),
    'with sigmoid': dict(
        type='SAMMaskLoss', resolution='input', focal_weight=0.0, dice_weight=0.0, mse_weight=1.0,
        iou_weight=0.0,
    ),
}  # fmt: skip


def tutorial_config(loss: dict, args: argparse.Namespace, work_dir: Path) -> Config:
    """The recipe of ``sam_stamp_tutorial.py`` on model and data of ``sam_tiny_stamp.py``."""
    config = Config.fromfile(ROOT / 'configs' / 'sam_tiny_stamp.py')
    tutorial = Config.fromfile(ROOT / 'configs' / 'sam_stamp_tutorial.py')
    config.model.frozen = tutorial.model.frozen
    config.optim_wrapper = tutorial.optim_wrapper
    config.param_scheduler = tutorial.param_scheduler
    pipeline = tutorial.train_dataloader.dataset.pipeline
    for transform in pipeline:
        if 'image_size' in transform:
            transform.image_size = config.image_size
    config.train_dataloader.dataset.pipeline = pipeline
    config.train_dataloader.batch_size = tutorial.train_dataloader.batch_size
    config.train_dataloader.sampler = tutorial.train_dataloader.sampler
    # without GradientCheckHook, which refuses the published loss in the first iteration
    config.custom_hooks = [dict(type='MaskLossHook', loss=loss), dict(type='ZeroShotHook')]
    config.train_cfg.update(max_iters=args.iterations, val_interval=args.interval)
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = args.iterations
    config.load_from = str(args.start)
    config.work_dir = str(work_dir)
    config.experiment_name = work_dir.name
    return config


Curve = list[tuple[int, float]]


def train(loss: dict, args: argparse.Namespace, work_dir: Path) -> tuple[Curve, Curve]:
    """Training loss of each iteration, and mIoU of each validation; read where already there."""
    if not (work_dir / 'results.json').exists():
        SAMRunner.from_cfg(tutorial_config(loss, args, work_dir)).train()
    path = max(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [(record['iter'], record['loss_mse']) for record in records if 'loss_mse' in record]
    scores = [(record['step'], record['sam/mIoU']) for record in records if 'sam/mIoU' in record]
    return losses, scores


def smooth(curve: Curve) -> Curve:
    """The mean of each ``SMOOTHED`` values, at the last one's place."""
    values = [value for _, value in curve]
    return [(end, mean(values[end - SMOOTHED : end])) for end in range(SMOOTHED, len(values) + 1)]


def draw(curves: dict[str, tuple[Curve, Curve]], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout='constrained')
    titles = (
        f'training loss (MSE), mean of {SMOOTHED} steps',
        'mIoU of the masks on pages not trained on',
    )
    for index, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        for name, both in curves.items():
            curve = smooth(both[0]) if index == 0 else both[1]
            axis.plot(*zip(*curve, strict=True), label=name, marker='.' if index else '')
        axis.set_title(title, fontsize=10)
        axis.set_xlabel('steps of one image and one box')
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = ROOT / 'work_dirs' / 'tutorial_loss'
    parser.add_argument('--iterations', type=int, default=1000)
    parser.add_argument('--interval', type=int, default=100, help='between validations')
    parser.add_argument('--start', type=Path, default=folder / 'start' / 'sam_tuned.pth')
    parser.add_argument('--work-dir', type=Path, default=folder)
    parser.add_argument('--picture', type=Path, default=ROOT / 'docs/images/tutorial_loss.png')
    args = parser.parse_args()
    table = PrettyTable(['loss', 'first losses', 'last losses', 'mIoU before', 'mIoU after'])
    curves = {}
    for name, loss in LOSSES.items():
        curves[name] = train(loss, args, args.work_dir / name.replace(' ', '_'))
        losses, scores = curves[name]
        smoothed = smooth(losses)
        ends = (smoothed[0][1], smoothed[-1][1], scores[0][1], scores[-1][1])
        table.add_row([name, *(f'{value:.4f}' for value in ends)])
    draw(curves, args.picture)
    print(table)


if __name__ == '__main__':
    main()
