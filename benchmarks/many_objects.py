"""Peak memory of a training step and of an evaluation with 375 objects in one image.

    python benchmarks/many_objects.py [--corrections]

SAM ViT-B at 1024 px with random weights; the mask decoder trains, 16 prompts at a time
(``model.prompt_chunk=16``). The image is the one of
``data/nuclei`` with most objects. Each measurement is a process of its own; its peak resident
memory (VmHWM) includes Python, torch, the model and the optimizer. The limit is 4 GiB.
"""

import argparse
import json
import multiprocessing
import time
from collections import Counter
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import mmsam.datasets
import mmsam.engine
import mmsam.evaluation  # noqa: F401
from mmsam.engine.optim_wrappers import SAMOptimWrapper
from mmsam.models import SAMSegmentor
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


def build_model(config: Config, corrections: bool) -> SAMSegmentor:
    if corrections:
        config.model.update(correction=dict(num_clicks=8, num_repeats=2))
    config.model.update(prompt_chunk=16)
    return MODELS.build(config.model)


def train_step(config: Config, corrections: bool) -> int:
    """Two updates, the second with the optimizer's states; the number of objects."""
    pipeline = [step for step in config.train_pipeline if step['type'] != 'RandomObjects']
    sample = crowded_dataset(pipeline, test_mode=False)[0]
    model = build_model(config, corrections).train()
    model.mask_loss = MODELS.build(dict(type='SAMMaskLoss', lovasz_weight=1.0))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    wrapper = SAMOptimWrapper(torch.optim.AdamW(trained, lr=1e-4))
    for _ in range(1 if corrections else 2):
        model.train_step({key: [value] for key, value in sample.items()}, wrapper)
    return len(sample['data_samples'].prompts)


def evaluation(config: Config, corrections: bool) -> int:
    """Masks, their RLE and all scores; with ``corrections`` of three clicks, too."""
    dataset = crowded_dataset(config.test_pipeline, test_mode=True)
    if corrections:
        config.model.update(test_cfg=dict(num_clicks=3))
    model = build_model(config, corrections=False).eval()
    with torch.no_grad():
        (sample,) = model.val_step({key: [value] for key, value in dataset[0].items()})
    metric = METRICS.build(config.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    metric.process(None, [sample.to_dict()])
    metric.evaluate(1)
    return len(sample.pred_instances)


def measure(task: str, corrections: bool, results: multiprocessing.Queue) -> None:
    torch.manual_seed(0)
    start = time.perf_counter()
    config = Config.fromfile(ROOT / 'configs/sam_stamp.py')
    with DefaultScope.overwrite_default_scope('mmsam'):
        objects = {'train': train_step, 'evaluate': evaluation}[task](config, corrections)
    status = Path('/proc/self/status').read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1])
    results.put((objects, peak * 1024, time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--corrections', action='store_true', help='with clicks, as in the paper')
    corrections = parser.parse_args().corrections
    context = multiprocessing.get_context('spawn')
    for task in ('train', 'evaluate'):
        results = context.Queue()
        process = context.Process(target=measure, args=(task, corrections, results))
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
