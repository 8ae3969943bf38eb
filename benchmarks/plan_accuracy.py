"""How far the memory that tools/plan.py predicts is from that of a real training step on the CPU.

    python -m benchmarks.plan_accuracy [ROW ...]

SAM ViT-B at 1024 px with random weights. Each step runs in a process of its own, twice: as any
process, and so that glibc gives freed blocks of 1 MiB and more back to the system, which leaves
what is in use (``measure_step``). Peaks are VmHWM. The prediction has to be within 15 % of both,
and within 15 % of what the tensors take, which is the second without Python and the libraries
(``PROCESS_BYTES``).
"""

import argparse
from functools import partial
from pathlib import Path

from mmengine.config import Config
from prettytable import PrettyTable

from mmsam.apis import load_run_config
from mmsam.apis.plan.machine import PROCESS_BYTES, memory_of_process
from mmsam.apis.plan.prediction import TracedTraining
from mmsam.apis.plan.training_step import BatchSize, Training
from mmsam.apis.plan.variants import add_adapters

from .real_step import measure_step

CONFIGS = Path(__file__).parents[1] / 'configs'
LIMIT = 0.15
AMP = {'optim_wrapper.type': 'mmsam.BFloat16OptimWrapper'}
ALL_TRAINS = {'model.image_encoder.with_cp': False}


def config(name: str, **options: object) -> Config:
    return load_run_config(str(CONFIGS / name), {'embedding_cache': None, **options}, None)


def rows() -> dict[str, tuple[Training, BatchSize]]:
    decoder, full = 'sam_stamp.py', 'sam_stamp_full.py'
    lora = Training(config(full, **ALL_TRAINS), change=partial(add_adapters, rank=16))
    return {
        'all': (Training(config(full, **ALL_TRAINS)), BatchSize(1, 2)),
        'all_with_cp': (Training(config(full)), BatchSize(1, 2)),
        'all_amp': (Training(config(full, **ALL_TRAINS, **AMP)), BatchSize(1, 2)),
        'lora': (lora, BatchSize(1, 2)),
        'decoder': (Training(config(decoder)), BatchSize(1, 4)),
        'decoder_amp': (Training(config(decoder, **AMP)), BatchSize(1, 4)),
        'decoder_cached': (Training(config(decoder), is_cached=True), BatchSize(1, 4)),
        'decoder_cached_16': (Training(config(decoder), is_cached=True), BatchSize(1, 16)),
        'boxes_cached_1': (Training(config('sam_stamp_boxes.py'), is_cached=True), BatchSize(1, 1)),
        'boxes_2_images': (Training(config('sam_stamp_boxes.py')), BatchSize(2, 8)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = rows()
    parser.add_argument('rows', nargs='*', metavar='ROW', help=f'of {", ".join(known)}; else all')
    names = parser.parse_args().rows or list(known)
    table = PrettyTable(['row', 'batch', 'memory', 'in use', 'off by', 'process', 'peak', 'by'])
    missed = []
    for name in names:
        training, size = known[name]
        step = TracedTraining(training).step(size)
        memory, process = step.memory, memory_of_process(step)
        in_use = measure_step(training, size, frees_at_once=True) - PROCESS_BYTES
        measured = measure_step(training, size)
        errors = memory / in_use - 1, process / measured - 1
        table.add_row(
            [
                *(name, f'{size.images} x {size.objects}'),
                *(_gigabytes(memory), _gigabytes(in_use), f'{errors[0]:+.1%}'),
                *(_gigabytes(process), _gigabytes(measured), f'{errors[1]:+.1%}'),
            ]
        )
        print(table.get_string(start=len(table.rows) - 1, header=False, border=False), flush=True)
        if max(map(abs, errors)) > LIMIT:
            missed.append(name)
    print(table)
    if missed:
        raise SystemExit(f'Expected errors of at most {LIMIT:.0%}, not so {", ".join(missed)}.')


def _gigabytes(number: float) -> str:
    return f'{number / 1e9:.2f} GB'


if __name__ == '__main__':
    main()
