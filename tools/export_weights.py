"""Take the weights out of a training checkpoint, in a layout that other programs open.

    python tools/export_weights.py CHECKPOINT OUT [--format sam|hf]

``sam``: the flat ``.pth`` of segment_anything and what builds on it. ``hf``: a folder for
``transformers.SamModel.from_pretrained``. What was written is read again and compared.
"""

import argparse
import sys
from pathlib import Path

import torch

from mmsam.checkpoint import (
    read_state_dict,
    save_hugging_face,
    save_stock_weights,
    stock_state_dict,
)
from mmsam.errors import CheckpointError, ConfigError, MMSAMError


def export(checkpoint: str, out: Path, layout: str) -> str:
    """Write the weights of a checkpoint to ``out``; returns what was written, in words.

    Raises:
        CheckpointError: the checkpoint holds no whole SAM, or cannot be read or written.
        ConfigError: ``out`` is of the wrong kind or is the checkpoint itself.
    """
    if layout == 'sam' and out.is_dir():
        raise ConfigError(f'OUT: expected a file to write, got the folder {out}.')
    if layout == 'hf' and out.is_file():
        raise ConfigError(f'OUT: expected a folder to write, got the file {out}.')
    written = out if layout == 'sam' else out / 'model.safetensors'
    source = Path(checkpoint)
    if source.exists() and any(path.exists() and path.samefile(source) for path in (written, out)):
        raise ConfigError(f'OUT is the checkpoint itself, {source}: it would be replaced.')

    weights = stock_state_dict(read_state_dict(checkpoint))
    if layout == 'sam':
        save_stock_weights(weights, out)
    else:
        save_hugging_face(weights, out)
    again = read_state_dict(str(out))
    differing = [
        key
        for key in sorted(weights.keys() | again.keys())
        if key not in weights or key not in again or not torch.equal(weights[key], again[key])
    ]
    if differing:
        raise CheckpointError(f'{out} was written, but differs in {", ".join(differing[:5])}.')
    number = sum(value.numel() for value in weights.values())
    return (
        f'{written}: {len(weights)} tensors, {number / 1e6:.1f} M values, '
        f'{written.stat().st_size / 1e6:.1f} MB, read again and equal'
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='path or URL of a checkpoint with a whole SAM')
    parser.add_argument('out', type=Path, help='file (sam) or folder (hf) to write')
    parser.add_argument('--format', choices=('sam', 'hf'), default='sam', help='default: sam')
    args = parser.parse_args(argv)
    try:
        print(export(args.checkpoint, args.out, args.format))
    except MMSAMError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == '__main__':
    sys.exit(main())
