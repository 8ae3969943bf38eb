"""Peak memory of a training step and of an evaluation with 375 objects in one image.

    python benchmarks/many_objects.py [--config configs/sam_stamp.py]

SAM ViT-B at 1024 px with random weights; the mask decoder trains, 16 prompts at a time
(``model.prompt_chunk=16``), with the prompts, clicks and loss of the config. The image is the one
of ``data/nuclei`` with most objects. Each measurement is a process of its own; its peak resident
memory (VmHWM) includes Python, torch, the model and the optimizer. The limit is 4 GiB. The
processes run with ``MALLOC_MMAP_THRESHOLD_``: by itself glibc keeps what is freed between the masks
of the clicks, which live until the backward pass, and the peak is near 5 GiB.

With the default config it takes about 20 minutes on two cores. The step alone and without clicks
is the row ``step_memory_375_prompts_vs_64`` of ``python -m benchmarks``.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmsam.datasets
import mmsam.engine
import mmsam.evaluation
import mmsam.models  # noqa: F401
from mmsam.engine.optim_wrappers import SAMOptimWrapper
from mmsam.registry import DATASETS, METRICS, MODELS

ROOT = Path(__file__).parents[1]
LIMIT = 4 * 2**30


def crowded_dataset(pipeline: list, test_mode: bool):
    """The data set of the validation image with most objects."""
    path = ROOT / 'data/nuclei/annotations_val.json'
    counts = Counter(record['image_id'] for record in json.loads(path.read_text())['annotations'])
    ids = [record['id'] for record in json.loads(path.read_text())['images']]
    return DATASETS.build(
        dict(
            type='BoxPromptDataset',
            data_root=str(ROOT / 'data/nuclei'),
            reader=dict(type='coco', ann_file=path.name),
            pipeline=pipeline,
            test_mode=test_mode,
            indices=[max(range(len(ids)), key=lambda index: counts[ids[index]])],
        )
    )


def train_step(config: Config) -> int:
    """An update with one object, for the optimizer's states, then one with all: their number."""
    pipeline = config.train_pipeline
    (limit,) = (step for step in pipeline if step['type'] == 'RandomObjects')
    config.model.update(prompt_chunk=16)
    model = MODELS.build(config.model).train()
    (hook,) = (hook for hook in config.custom_hooks if hook['type'] == 'MaskLossHook')
    model.mask_loss = MODELS.build(hook['loss'])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    wrapper = SAMOptimWrapper(torch.optim.AdamW(trained, lr=1e-4))
    for limit.max_objects in (1, 10**6):
        sample = crowded_dataset(pipeline, test_mode=False)[0]
        model.train_step({key: [value] for key, value in sample.items()}, wrapper)
    return len(sample['data_samples'].prompts)


def evaluation(config: Config) -> int:
    """Masks of boxes and of the config's clicks, their RLE and all scores."""
    dataset = crowded_dataset(config.test_pipeline, test_mode=True)
    model = MODELS.build(config.model).eval()
    with torch.no_grad():
        (sample,) = model.val_step({key: [value] for key, value in dataset[0].items()})
    metric = METRICS.build(config.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    metric.process(None, [sample.to_dict()])
    metric.evaluate(1)
    return len(sample.pred_instances)


def measure(task: str, config: Path, results: multiprocessing.Queue) -> None:
    torch.manual_seed(0)
    start = time.perf_counter()
    with DefaultScope.overwrite_default_scope('mmsam'):
        objects = {'train': train_step, 'evaluate': evaluation}[task](Config.fromfile(config))
    status = Path('/proc/self/status').read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1])
    results.put((objects, peak * 1024, time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', type=Path, default=ROOT / 'configs/sam_stamp.py')
    config = parser.parse_args().config
    os.environ['MALLOC_MMAP_THRESHOLD_'] = '4000000'  # bytes; read when a process starts
    context = multiprocessing.get_context('spawn')
    for task in ('train', 'evaluate'):
        results = context.Queue()
        process = context.Process(target=measure, args=(task, config, results))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f'{task} ended with {process.exitcode}.')
        objects, peak, seconds = results.get()
        print(
            f'{task}: {objects} objects, peak {peak / 2**30:.2f} GiB, {seconds:.0f} s', flush=True
        )
        if peak > LIMIT:
            raise SystemExit(f'{task}: expected at most {LIMIT / 2**30:.0f} GiB.')


if __name__ == '__main__':
    main()
