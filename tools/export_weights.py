"""Take the weights out of a training checkpoint, in a layout that other programs open.

    python tools/export_weights.py CHECKPOINT OUT [--format sam|hf]

``sam``: the flat ``.pth`` of segment_anything and what builds on it. ``hf``: a folder for
``transformers.SamModel.from_pretrained``. What was written is read again and compared.
"""

import argparse
from pathlib import Path

import torch

from mmsam.apis import run_tool
from mmsam.checkpoint import (
    read_state_dict,
    save_hugging_face,
    save_stock_weights,
    stock_state_dict,
)
from mmsam.errors import CheckpointError, ConfigError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='path or URL of a checkpoint with a whole SAM')
    parser.add_argument('out', type=Path, help='file (sam) or folder (hf) to write')
    parser.add_argument('--format', choices=('sam', 'hf'), default='sam', help='default: sam')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    out: Path = args.out
    if args.format == 'sam' and out.is_dir():
        raise ConfigError(f'OUT: expected a file to write, got the folder {out}.')
    if args.format == 'hf' and out.is_file():
        raise ConfigError(f'OUT: expected a folder to write, got the file {out}.')
    written = out if args.format == 'sam' else out / 'model.safetensors'
    source = Path(args.checkpoint)
    if source.exists() and (out.resolve() == source.resolve() or _same_file(source, written)):
        raise ConfigError(f'OUT is the checkpoint itself, {source}: it would be replaced.')

    weights = stock_state_dict(read_state_dict(args.checkpoint))
    (save_stock_weights if args.format == 'sam' else save_hugging_face)(weights, out)
    again = read_state_dict(str(out))
    differing = [
        key
        for key in weights.keys() | again.keys()
        if key not in weights or key not in again or not torch.equal(weights[key], again[key])
    ]
    if differing:
        raise CheckpointError(f'{out} was written, but differs in {", ".join(differing[:5])}.')
    number = sum(value.numel() for value in weights.values())
    print(
        f'{written}: {len(weights)} tensors, {number / 1e6:.1f} M values, '
        f'{written.stat().st_size / 1e6:.1f} MB, read again and equal'
    )


def _same_file(first: Path, second: Path) -> bool:
    return second.exists() and first.samefile(second)


if __name__ == '__main__':
    run_tool(main, parse_args())
