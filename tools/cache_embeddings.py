"""Compute the image embeddings of a config ahead, as a training or test with it would.

On several processes: tools/dist_cache.sh. What is there already is not computed again.
"""

# ruff: noqa: E402, I001  (a signal may come while the rest is imported)
from mmsam import stop_signal

if __name__ == '__main__':
    stop_signal.listen()

import argparse
from pathlib import Path

from mmengine.dist import is_main_process

from mmsam.apis import (
    add_common_arguments,
    check_annotation_memory,
    check_load_from,
    check_paths,
    check_writable,
    load_run_config,
    run_tool,
)
from mmsam.engine import SAMRunner, init_distributed
from mmsam.engine.embedding_build import use_embeddings
from mmsam.engine.hooks import StallHook
from mmsam.errors import ConfigError

PHASES = ('train', 'val', 'test')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        '--load-from', metavar='CKPT', help="path or URL of the weights; else the config's"
    )
    parser.add_argument(
        '--phases',
        nargs='+',
        choices=PHASES,
        default=('train', 'val'),
        help='of which data; default: what a training needs',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    config = load_run_config(args.config, args.cfg_options, args.work_dir)
    if config.get('embedding_cache') is None:
        raise ConfigError(
            f'{args.config} has no embedding_cache: expected dict(folder=...), such as --options '
            'embedding_cache.folder=work_dirs/embeddings.'
        )
    names = [f'{phase}_dataloader' for phase in args.phases if config.get(f'{phase}_dataloader')]
    config.load_from = args.load_from or config.get('load_from')
    if config.load_from is None:
        raise ConfigError(
            f'{args.config} has no load_from: expected the weights of the encoder, --load-from.'
        )
    config.resume, config.launcher = False, args.launcher
    check_paths(config, tuple(names))
    check_load_from(config)
    init_distributed(args.launcher)
    check_writable(config.work_dir)
    check_annotation_memory(config, tuple(names))
    folder = Path(config.embedding_cache.folder)
    runner = SAMRunner.from_cfg(config)
    stall = StallHook()
    runner.register_hook(stall)
    stall.before_run(runner)
    before = _bytes_in(folder)
    runner.load_or_resume()
    loaders = {name: runner.build_dataloader(config[name], seed=runner.seed) for name in names}
    use_embeddings(runner, folder, loaders)
    if is_main_process():
        runner.logger.info(
            f'{folder} took {before / 1e6:.1f} MB and takes {_bytes_in(folder) / 1e6:.1f} MB.'
        )
    stall.after_run(runner)


def _bytes_in(folder: Path) -> int:
    """Of the caches of all encoders."""
    return sum(path.stat().st_size for path in folder.glob('*/*.safetensors'))


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
