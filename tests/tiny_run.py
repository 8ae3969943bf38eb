"""A training run small enough for tests: images of ellipses, a config, and starts of the tools."""

import gc
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from processes import children
from pycocotools import mask as mask_utils
from tiny_sam import segmentor_config
from yapf.yapflib import yapf_api

from mmsam.apis import run_tool
from mmsam.engine.loader_workers import kill_workers
from tools import train

# what was imported is no garbage: each of mmengine's data sets collects, and would look through it
gc.freeze()

ROOT = Path(train.__file__).parents[1]
BASE = ROOT / 'configs' / '_base_'

TRAIN_COUNTS = (1, 2, 0, 3, 1, 2)
VAL_COUNTS = (2, 1, 1)
"""Objects of each image; one training image has none."""


def write_dataset(folder: Path) -> Path:
    """COCO files ``annotations_{train,val,test}.json`` and ``images/``: ellipses on noise.

    The images differ in size, about 100 px a side. Test is the same as val.
    """
    (folder / 'images').mkdir(parents=True)
    splits = (('train', TRAIN_COUNTS), ('val', VAL_COUNTS), ('test', VAL_COUNTS))
    for split, counts in splits:
        # the same numbers for val and test
        rng = np.random.default_rng(0 if split == 'train' else 1)
        _write_split(folder, split, counts, rng)
    return folder


def _write_split(folder: Path, split: str, counts: Sequence[int], rng: np.random.Generator) -> None:
    images, annotations = [], []
    for image_id, count in enumerate(counts, start=1):
        height, width = (int(side) for side in rng.integers(70, 130, 2))
        image = rng.integers(150, 255, (height, width, 3), dtype=np.uint8)
        name = f'{split}_{image_id}.png'
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
        for _ in range(count):
            axes = tuple(int(axis) for axis in rng.integers(8, 25, 2))
            centre = int(rng.integers(25, width - 25)), int(rng.integers(25, height - 25))
            shape = (centre, axes, float(rng.integers(180)), 0, 360)
            mask = cv2.ellipse(np.zeros((height, width), np.uint8), *shape, 1, -1)
            image[mask > 0] = rng.integers(0, 120, 3)
            rle = mask_utils.encode(np.asfortranarray(mask))
            box = mask_utils.toBbox(rle).tolist()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=1,
                    segmentation=dict(size=[height, width], counts=rle['counts'].decode()),
                    bbox=box,
                    area=int(mask.sum()),
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(folder / 'images' / name), image)
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='ellipse')])
    (folder / f'annotations_{split}.json').write_text(json.dumps(content))


def write_config(
    folder: Path, data_root: Path, img_size: int = 64, max_iters: int = 6, extra: str = ''
) -> Path:
    """A config of ``tiny_sam``'s model for ``write_dataset``'s folder, upon the shipped ``_base_``.

    Args:
        folder: gets ``tiny.py``.
        data_root: of ``write_dataset``.
        img_size: side of the padded square, in px.
        max_iters: iterations, validated half way and at the end.
        extra: more lines of the config.
    """
    bases = [
        'datasets/tiny_stamps.py',
        'schedules/scratch_800.py',
        'default_runtime.py',
    ]
    text = f"""
_base_ = {[str(BASE / base) for base in bases]}
model = {segmentor_config(img_size, frozen=())}
train_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='RandomObjects', max_objects=16),
    dict(type='ResizeLongestSide', image_size={img_size}),
    dict(type='DecodeObjectMasks'),
    dict(type='RandomPromptedFlip', prob=0.5),
    dict(type='JitterBoxes'),
    dict(type='PackSAMInputs'),
]
test_pipeline = [
    dict(type='LoadSAMImage'),
    dict(type='ResizeLongestSide', image_size={img_size}),
    dict(type='PackSAMInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root={str(data_root)!r}, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root={str(data_root)!r}, pipeline=test_pipeline))
test_dataloader = dict(
    num_workers=0,
    dataset=dict(data_root={str(data_root)!r}, pipeline=test_pipeline))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=2, by_epoch=False),
    dict(type='CosineAnnealingLR', by_epoch=False),
]
train_cfg = dict(max_iters={max_iters}, val_interval={max(1, max_iters // 2)})
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval={max(1, max_iters // 2)}))
prepare_data = 'make the-data'
{extra}
"""
    path = folder / 'tiny.py'
    path.write_text(text)
    return path


def environment(**variables: str) -> dict[str, str]:
    """Of a tool's process: one thread, this checkout, and ``variables``."""
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    return {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(filter(None, paths)),
        'OMP_NUM_THREADS': '1',
        'PYTHON': sys.executable,
        **variables,
    }


def start(tool: str, *args: object, cwd: Path, **variables: str) -> subprocess.Popen:
    """Start ``tools/<tool>`` (Python or shell) with arguments in the folder ``cwd``."""
    path = str(ROOT / 'tools' / tool)
    command = [path] if tool.endswith('.sh') else [sys.executable, path]
    return subprocess.Popen(
        [*command, *map(str, args)],
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> subprocess.CompletedProcess:
    """Wait for a process of ``start``; its exit status and what it printed."""
    try:
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def finish_after_signal(
    process: subprocess.Popen, text: str, number: int
) -> subprocess.CompletedProcess:
    """As ``finish``; when the process has printed ``text``, it gets signal ``number``.

    So do its children, as from a terminal and from torchrun.
    """
    try:
        for line in process.stdout:
            if text in line:
                for child in [process.pid, *children(process.pid)]:
                    os.kill(child, number)
                break
    finally:
        done = finish(process)
    return done


_RUNS = itertools.count()


@contextmanager
def formatting_once() -> Iterator[None]:
    """mmengine has yapf format the same config five times a run, a fourth of a short one."""
    memory: dict[str, tuple[str, bool]] = {}
    format_code = yapf_api.FormatCode

    def format_once(text: str, **options: Any) -> tuple[str, bool]:
        if text not in memory:
            memory[text] = format_code(text, **options)
        return memory[text]

    with mock.patch.object(yapf_api, 'FormatCode', format_once):
        yield


def run_here(tool: ModuleType, *args: object) -> None:
    """Run a Python tool's command line in this process, which spares it the imports.

    mmengine keeps loggers and histories by the experiment's name for as long as a process lives:
    each run gets a name of its own.

    Raises:
        SystemExit: the tool ended with an exit code other than 0.
    """
    torch.set_num_threads(1)  # as in the processes of ``start``
    name = ['--options', f'experiment_name=in_process_{next(_RUNS)}']
    try:
        with (
            mock.patch.object(sys, 'argv', [str(tool.__file__), *map(str, args), *name]),
            formatting_once(),
        ):
            run_tool(tool.main, tool.parse_args())
    finally:
        kill_workers()  # a data loader that is garbage later would wait 5 s for each


def refused(capsys: pytest.CaptureFixture, tool: ModuleType, *args: object) -> tuple[int, str]:
    """Exit code and the last line on stderr of a run that must not start."""
    with pytest.raises(SystemExit) as end:
        run_here(tool, *args)
    return end.value.code, capsys.readouterr().err.splitlines()[-1]


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    """The records a run logged, of training and validation, in their order."""
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def train_records(work_dir: Path) -> dict[int, dict[str, Any]]:
    """Records of the training iterations, by iteration (from 1)."""
    return {record['iter']: record for record in scalars(work_dir) if 'loss' in record}


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint that a test made itself."""
    return torch.load(checkpoint, weights_only=False)['state_dict']


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are the same bit by bit."""
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


def assert_equal(a, b, where='checkpoint') -> None:
    """Bit by bit, in all parts of two checkpoints."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f'{where}[{key!r}]')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_equal(*pair, f'{where}[{index}]')
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b or a != a and b != b, where
