"""Checks that a transform stands in the right place of a pipeline."""

from mmcv.transforms import BaseTransform

from mmsam.errors import ConfigError

_DRAWN = ('prompt_boxes', 'prompt_kinds', 'prompt_points', 'prompt_masks')
"""Keys of what JitterBoxes and RandomPrompts draw in the frame of the image."""


def check_no_prompts(transform: BaseTransform, results: dict) -> None:
    """For what moves the image or chooses objects: prompts that were drawn would stay as they are.

    Raises:
        ConfigError: there are prompts.
    """
    drawn = [key for key in _DRAWN if key in results]
    if drawn:
        raise ConfigError(
            f'{type(transform).__name__} must stand before JitterBoxes and RandomPrompts: '
            f'{drawn[0]} is drawn already.'
        )


def check_decoded(transform: BaseTransform, results: dict) -> None:
    """For what needs masks as arrays.

    Raises:
        ConfigError: they are still RLE.
    """
    if 'gt_masks' not in results:
        raise ConfigError(f'{type(transform).__name__} must stand behind DecodeObjectMasks.')


def check_not_decoded(transform: BaseTransform, results: dict) -> None:
    """For what moves masks as RLE.

    Raises:
        ConfigError: they are arrays already.
    """
    if 'gt_masks' in results:
        raise ConfigError(f'{type(transform).__name__} must stand before DecodeObjectMasks.')
