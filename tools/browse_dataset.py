"""Draw the first samples of a config as its model gets them: after the pipeline, with prompts."""

import argparse
from itertools import islice
from pathlib import Path

from mmengine.registry import init_default_scope
from PIL import Image

from mmsam.apis import add_common_arguments, check_paths, check_writable, load_run_config, run_tool
from mmsam.errors import ConfigError
from mmsam.registry import DATA_SAMPLERS, DATASETS
from mmsam.structures import SAMDataSample
from mmsam.visualization import draw_sample


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('--phase', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--number', type=int, default=8, help='of pictures; 8 unless given')
    parser.add_argument('--show-dir', metavar='DIR', help='else WORK_DIR/samples')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    if args.number < 1:
        raise ConfigError(f'--number must be > 0, got {args.number}.')
    config = load_run_config(args.config, args.cfg_options, args.work_dir)
    name = f'{args.phase}_dataloader'
    loader = config.get(name)
    if loader is None:
        raise ConfigError(f'{args.config} has no {name}.')
    check_paths(config, (name,))
    init_default_scope(config.get('default_scope', 'mmsam'))
    dataset = DATASETS.build(loader.dataset)
    seed = config.get('randomness', {}).get('seed')
    sampler = DATA_SAMPLERS.build(loader.sampler, default_args=dict(dataset=dataset, seed=seed))
    folder = Path(args.show_dir or Path(config.work_dir) / 'samples')
    check_writable(str(folder))
    for place, index in enumerate(islice(sampler, args.number)):
        sample = dataset[index]
        data_sample = sample.get('data_samples')
        if not isinstance(data_sample, SAMDataSample):
            raise ConfigError(
                f'{name}: expected a pipeline that ends with PackSAMInputs, which gives a '
                f'SAMDataSample, got {type(data_sample).__name__}.'
            )
        path = folder / f'{place:04d}_{Path(data_sample.img_path).stem}.png'
        Image.fromarray(draw_sample(sample['inputs'], data_sample)).save(path)
        height, width = data_sample.img_shape
        print(f'{path}: {width}x{height} px, {len(data_sample.gt_instances)} objects')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
