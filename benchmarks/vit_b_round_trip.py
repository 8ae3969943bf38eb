"""Official weights in, tuned weights out, at ViT-B's size: print what changed and what did not.

    python benchmarks/vit_b_round_trip.py [--steps 3]

A random ViT-B is saved by segment_anything, loaded with ``--load-from`` by ``configs/sam_stamp.py``
at 1024 px, trained for a few decoder steps on generated pages and exported. segment_anything must
load the result strictly and predict what mmsam predicts; encoders must be equal bit by bit. Needs
``pip install --no-deps segment-anything==1.0``, 3 GB of memory and 5 minutes on 2 CPU cores. Exits
with 1 if something differs that must not.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import mmsam.datasets
import mmsam.models  # noqa: F401
from mmsam.models.sam.image_encoder import ARCHITECTURES
from mmsam.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tests'))

from reference_sam import build_reference_sam  # noqa: E402
from segment_anything import SamPredictor  # noqa: E402

CONFIG = ROOT / 'configs' / 'sam_stamp.py'
PAGES = 2
TOLERANCE = 1e-4
"""Largest error of a logit, relative to the largest logit."""


def run(*command: object) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)


def make_data(folder: Path) -> Path:
    """Generated pages of StaVer's layout, all of them for training."""
    tools = ROOT / 'tools' / 'dataset_converters'
    # more than are used: some pages have no stamp
    run(tools / 'make_stamps.py', folder / 'pages', '--pages', 3 * PAGES)
    data = folder / 'data'
    run(tools / 'staver.py', folder / 'pages', data, '--val-ratio', 0, '--test-ratio', 0)
    return data


def train(folder: Path, data: Path, weights: Path, steps: int) -> Path:
    """Tune the decoder; the checkpoint after ``steps`` iterations."""
    work_dir = folder / 'run'
    start = time.perf_counter()
    run(
        ROOT / 'tools' / 'train.py', CONFIG, '--load-from', weights, '--work-dir', work_dir,
        '--no-validate', '--options', f'train_cfg.max_iters={steps}',
        f'train_dataloader.dataset.data_root={data}', f'train_dataloader.dataset.indices={PAGES}',
        f'default_hooks.checkpoint.interval={steps}', 'default_hooks.logger.interval=1',
        'param_scheduler=[]', 'model.encoder_dtype=float32',
        f'embedding_cache.folder={folder / "embeddings"}',
    )  # fmt: skip
    memory = getrusage(RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f'training: {time.perf_counter() - start:.0f} s, at most {memory:.1f} GiB of memory')
    return work_dir / f'iter_{steps}.pth'


def largest_difference(
    first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], part: str
) -> tuple[float, int, int]:
    """Largest difference in a part of the model, tensors that differ, tensors in all."""
    keys = [key for key in first if key.startswith(f'{part}.')]
    differences = [float((first[key] - second[key]).abs().max()) for key in keys]
    return max(differences), sum(d > 0 for d in differences), len(keys)


@torch.no_grad()
def compare_predictions(data: Path, tuned: Path, sam: torch.nn.Module) -> float:
    """Error of mmsam's logits relative to the largest one; prints what else differs."""
    config = Config.fromfile(CONFIG)
    init_default_scope('mmsam')
    config.model.encoder_dtype = 'float32'
    ours = MODELS.build(config.model).eval()
    ours.load_weights(str(tuned))
    dataset_config = config.test_dataloader.dataset
    dataset_config.data_root = str(data)
    dataset_config.reader.ann_file = 'annotations_train.json'
    sample = DATASETS.build(dataset_config)[0]
    batch = ours.data_preprocessor(
        dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    )
    logits, quality = ours(**batch, mode='tensor')

    predictor = SamPredictor(sam)
    image = np.asarray(Image.open(sample['data_samples'].img_path).convert('RGB'))
    predictor.set_image(image)
    boxes = predictor.transform.apply_boxes_torch(
        sample['data_samples'].gt_instances.boxes, image.shape[:2]
    )
    masks, their_quality, their_logits = predictor.predict_torch(
        None, None, boxes, multimask_output=False
    )
    scale = float(their_logits.abs().max())
    error = float((logits - their_logits).abs().max())
    their_mask, our_mask = their_logits > 0, logits > 0
    print(
        f'predictions of {len(boxes)} boxes on a page of {image.shape[1]} x {image.shape[0]} px: '
        f'logits differ by {error:.1e} at most (they reach {scale:.1f}), '
        f'IoU estimates by {float((quality - their_quality).abs().max()):.1e}, '
        f'{int((their_mask != our_mask).sum())} of {their_mask.numel()} mask cells'
    )
    return error / scale


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--steps', type=int, default=3, help='iterations (3)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        official = folder / 'sam_vit_b.pth'
        sam = build_reference_sam(ARCHITECTURES['vit_b'], 1024)
        before = {key: value.clone() for key, value in sam.state_dict().items()}
        torch.save(before, official)
        data = make_data(folder)
        checkpoint = train(folder, data, official, args.steps)
        tuned = folder / 'tuned.pth'
        run(ROOT / 'tools' / 'export_weights.py', checkpoint, tuned)

        after = torch.load(tuned, weights_only=True)
        print(f'segment_anything loads strictly: {sam.load_state_dict(after, strict=True)}')
        good = True
        for part, trains in (
            ('image_encoder', False), ('prompt_encoder', False), ('mask_decoder', True),
        ):  # fmt: skip
            largest, changed, number = largest_difference(before, after, part)
            print(f'{part}: {changed} of {number} tensors changed, by {largest:.1e} at most')
            good &= (changed > 0) == trains
        good &= compare_predictions(data, tuned, sam) < TOLERANCE
    print('as it must be' if good else 'DIFFERENT from what it must be')
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
