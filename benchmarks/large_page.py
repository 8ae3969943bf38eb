"""Time and memory of one large page with hundreds of objects, from the file to the predictions.

    python -m benchmarks.large_page [--side 20000] [--objects 375]

Generates a page of SIDE x SIDE px with ellipses and its COCO file, then prints for each step the
seconds and the highest resident memory of the process. Predictions are made of the true masks, as
logits that a decoder would give; the last line is how well they come back.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from mmsam.datasets import BoxPromptDataset
from mmsam.structures.predicted_masks import rles_of_logits

from .memory import forget_peak, resident
from .pages import draw_page, write_pages

IMAGE_SIZE = 1024
STEPS = (
    dict(type='LoadSAMImage'),
    dict(type='ResizeLongestSide', image_size=IMAGE_SIZE),
    dict(type='DecodeObjectMasks'),
    dict(type='PackSAMInputs'),
)


def measured(name: str, step: Callable[[], Any]) -> Any:
    forget_peak()
    start = time.perf_counter()
    result = step()
    seconds = time.perf_counter() - start
    print(f'{name:24} {seconds:7.2f} s   peak {resident("VmHWM"):5.2f} GiB', flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--side', type=int, default=20_000, help='px')
    parser.add_argument('--objects', type=int, default=375)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        page = draw_page((args.side, args.side), args.objects)
        write_pages(root, [page], 'annotations.json')
        del page  # it would stand in the memory that is measured
        dataset = BoxPromptDataset(
            reader=dict(type='coco', ann_file='annotations.json'),
            data_root=folder,
            max_pixels=args.side**2,
            pipeline=STEPS,
            test_mode=True,
        )
        info = measured('annotations', lambda: dataset.get_data_info(0))
        truth = info['rles']
        for step, transform in zip(STEPS, dataset.pipeline.transforms, strict=True):
            info = measured(step['type'], lambda t=transform, i=info: t(i))
    sample = info['data_samples']
    masks = sample.gt_instances.masks
    size = (IMAGE_SIZE // 4, IMAGE_SIZE // 4)
    logits = torch.cat([F.adaptive_avg_pool2d(m[None, None].float(), size) for m in masks]) - 0.5
    predicted = measured(
        'rles_of_logits',
        lambda: rles_of_logits(logits, sample.img_shape, sample.ori_shape),
    )
    ious = [coco_mask.iou([a], [b], [0]).item() for a, b in zip(predicted, truth, strict=True)]
    print(f'{len(masks)} objects, mean IoU with the truth {np.mean(ious):.3f}')


if __name__ == '__main__':
    main()
