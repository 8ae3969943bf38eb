"""What writing a checkpoint costs a training, at once and behind its back.

    python benchmarks/checkpoint_writing.py [--saves 3] [--rounds 4] [--folder DIR]

SAM ViT-B whose decoder trains is saved (375 MB and the optimizer's 32 MB). In between, both cores
multiply matrices, as iterations do. ``at once`` is what SAMCheckpointHook does; ``behind`` copies
the weights and writes them in a thread, which the next save waits for. Prints seconds that one
save adds to the whole, in rounds of interleaved order, and the memory of the copy.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmsam.models  # noqa: F401
from mmsam.registry import MODELS
from mmsam.training_checkpoint import save_training_checkpoint

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'sam_stamp.py'
SECONDS_BETWEEN_SAVES = 4.0


def trained_decoder() -> Callable[[], dict]:
    """What a training checkpoint holds, of a model and an optimizer after a step."""
    init_default_scope('mmsam')
    model = MODELS.build(Config.fromfile(CONFIG).model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return lambda: dict(
        meta={}, message_hub={}, state_dict=model.state_dict(), optimizer=optimizer.state_dict()
    )


def iterations(number: int) -> None:
    matrix = torch.ones(900, 900)
    for _ in range(number):
        matrix @ matrix


def seconds(mode: str, content: Callable[[], dict], path: Path, saves: int, work: int) -> float:
    """Of a training with so many saves, each after the same work."""
    start = time.perf_counter()
    writing = threading.Thread()
    for _ in range(saves):
        iterations(work)
        if mode == 'at once':
            save_training_checkpoint(content(), path)
        elif mode == 'behind':
            if writing.ident is not None:
                writing.join()
            copied = deepcopy(content())
            writing = threading.Thread(target=save_training_checkpoint, args=(copied, path))
            writing.start()
    iterations(work)
    if writing.ident is not None:
        writing.join()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--saves', type=int, default=3, help='of a round')
    parser.add_argument('--rounds', type=int, default=4)
    parser.add_argument('--folder', help='disk to write to; else that of temporary files')
    args = parser.parse_args()
    content = trained_decoder()
    copied = sum(value.nbytes for value in content()['state_dict'].values())
    start = time.perf_counter()
    iterations(100)
    work = round(100 * SECONDS_BETWEEN_SAVES / (time.perf_counter() - start))
    modes = ('no save', 'at once', 'behind')
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for number in range(args.rounds):
            took = {
                mode: seconds(mode, content, Path(folder) / 'iter_1.pth', args.saves, work)
                for mode in (modes if number % 2 else reversed(modes))
            }
            added = [(took[mode] - took['no save']) / args.saves for mode in modes[1:]]
            print(f'a save at once: {added[0]:.2f} s; behind: {added[1]:.2f} s', flush=True)
    print(f'copied for each save behind: {copied / 1e6:.0f} MB')


if __name__ == '__main__':
    main()
