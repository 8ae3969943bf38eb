"""The arguments that say with what prompts a model is tested, and what they set in its config."""

import argparse

from mmengine.config import Config

from mmsam.errors import ConfigError


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``test.py`` that choose prompts; without them the config chooses."""
    parser.add_argument(
        '--prompt',
        choices=('box', 'point'),
        help="what the masks are predicted from: each object's box, or its centre",
    )
    parser.add_argument(
        '--clicks',
        type=int,
        metavar='N',
        help='also predict each object after 1 to N clicks, the next one on the largest error',
    )
    parser.add_argument(
        '--box-noise',
        type=float,
        nargs='+',
        metavar='SHARE',
        help='also predict from boxes moved by these shares of their sides, e.g. 0.05 0.1 0.2',
    )
    parser.add_argument(
        '--boxes',
        metavar='JSON',
        help="a detector's COCO results: their boxes are the prompts, the metric is mask AP",
    )


def apply_prompt_arguments(config: Config, args: argparse.Namespace) -> None:
    """Set what ``add_prompt_arguments`` gave.

    Args:
        config: with a ``test_dataloader``.
        args: of the command line.

    Raises:
        ConfigError: the config's model or data set knows no prompts, or arguments exclude each
            other.
    """
    chosen = {
        option: (key, value)
        for option, key, value in (
            ('--prompt', 'prompt', args.prompt),
            ('--clicks', 'num_clicks', args.clicks),
            ('--box-noise', 'box_noise', args.box_noise and tuple(args.box_noise)),
        )
        if value is not None
    }
    for option, (key, value) in chosen.items():
        _check_type(config.get('model'), 'SAMSegmentor', 'model', option)
        config.model.test_cfg = {**(config.model.get('test_cfg') or {}), key: value}
    if args.boxes is None:
        return
    excluded = [*chosen, *(['--show-dir'] if args.show_dir else [])]
    if excluded:
        raise ConfigError(
            '--boxes: expected without --prompt, --clicks, --box-noise and --show-dir, which need '
            f'the object of each box, got {" and ".join(excluded)}.'
        )
    dataset = config.test_dataloader.get('dataset')
    _check_type(dataset, 'BoxPromptDataset', 'test_dataloader.dataset', '--boxes')
    if _type_of(config.get('model')) == 'SAMSegmentor':
        config.model.test_cfg = {}  # clicks and noise of the config are for the true objects
    dataset.update(prompt_boxes=args.boxes, empty_images='keep')
    config.test_evaluator = dict(type='mmsam.COCOMaskAP')


def _check_type(module: object, name: str, where: str, option: str) -> None:
    found = _type_of(module)
    if found != name:
        raise ConfigError(f'{option}: expected a {name} as {where}, got {found}.')


def _type_of(module: object) -> str:
    """Name of a config's type, without its scope."""
    found = module.get('type') if isinstance(module, dict) else None
    return str(getattr(found, '__name__', found)).split('.')[-1]
