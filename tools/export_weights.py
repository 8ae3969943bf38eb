"""Take the weights out of a training checkpoint, in a layout that other programs open.

    python tools/export_weights.py CHECKPOINT OUT [--format sam|hf]
    python tools/export_weights.py CHECKPOINT OUT.safetensors --format slim --base BASE
    python tools/export_weights.py SLIM OUT --base BASE [--format sam|hf]

``sam``: the flat ``.pth`` of segment_anything and what builds on it. ``hf``: a folder for
``transformers.SamModel.from_pretrained``. ``slim``: a small file to publish, of the tensors that
differ from BASE, the weights that the training started from; the third form joins it with them
again, bit for bit. Weights are recognized by the digest of their values, whatever file they are in.
What was written is read again and compared.
"""

import argparse
import sys
from pathlib import Path

import torch

from mmsam.checkpoint import (
    is_slim_file,
    join_slim_weights,
    read_state_dict,
    save_hugging_face,
    save_slim_weights,
    save_stock_weights,
    stock_state_dict,
)
from mmsam.errors import CheckpointError, ConfigError, MMSAMError


def export(checkpoint: str, out: Path, layout: str, base: str | None = None) -> str:
    """Write the weights of a checkpoint to ``out``; returns what was written, in words.

    Args:
        checkpoint: see ``read_state_dict``; or a slim file.
        out: file, or folder for ``'hf'``.
        layout: ``'sam'``, ``'hf'`` or ``'slim'``.
        base: weights that a slim file builds upon; only and always where there is one.

    Raises:
        CheckpointError: the checkpoint holds no whole SAM, or cannot be read or written; the base
            is another one.
        ConfigError: ``out`` is of the wrong kind or is the checkpoint itself; ``base`` is missing
            or not needed.
    """
    from_slim = is_slim_file(checkpoint)
    if (base is not None) != (from_slim or layout == 'slim'):
        have = 'none' if base is None else base
        raise ConfigError(
            '--base: expected the weights that a slim file builds upon where one is read or '
            f'written (--format slim), and only there, got {have}.'
        )
    if layout == 'slim' and out.suffix != '.safetensors':
        raise ConfigError(f'OUT: expected a name that ends with .safetensors, got {out}.')
    if layout != 'hf' and out.is_dir():
        raise ConfigError(f'OUT: expected a file to write, got the folder {out}.')
    if layout == 'hf' and out.is_file():
        raise ConfigError(f'OUT: expected a folder to write, got the file {out}.')
    written = out / 'model.safetensors' if layout == 'hf' else out
    for source in map(Path, filter(None, (checkpoint, base))):
        if source.exists() and any(p.exists() and p.samefile(source) for p in (written, out)):
            name = 'base' if str(source) == base else 'checkpoint'
            raise ConfigError(f'OUT is the {name} itself, {source}: it would be replaced.')

    if base is not None and from_slim:
        weights = join_slim_weights(Path(checkpoint), base)
    else:
        weights = stock_state_dict(read_state_dict(checkpoint))
    if base is not None and layout == 'slim':
        save_slim_weights(weights, base, out)
        again = join_slim_weights(out, base)
    elif layout == 'sam':
        save_stock_weights(weights, out)
        again = read_state_dict(str(out))
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
    content = f'{len(weights)} tensors, {number / 1e6:.1f} M values'
    if layout == 'slim':
        content = f'makes, with {base}, {content}'
    return f'{written}: {content}, {written.stat().st_size / 1e6:.1f} MB, read again and equal'


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'checkpoint', help='path or URL of a checkpoint with a whole SAM, or a slim file'
    )
    parser.add_argument('out', type=Path, help='file (sam, slim) or folder (hf) to write')
    parser.add_argument(
        '--format', choices=('sam', 'hf', 'slim'), default='sam', help='default: sam'
    )
    parser.add_argument('--base', help='path or URL of the weights that a slim file builds upon')
    args = parser.parse_args(argv)
    try:
        print(export(args.checkpoint, args.out, args.format, args.base))
    except MMSAMError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == '__main__':
    sys.exit(main())
