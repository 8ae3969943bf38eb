"""Divides a data set's images into parts, such as training and validation."""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmsam.errors import ConfigError
from mmsam.options import check_choice

_KEYS = ('part', 'ratios', 'group', 'seed')


class Split:
    """One part of the images, chosen by a hash of each image's path or group.

    Whether an image belongs to a part depends on nothing but its path in the image folder and on
    the options: other images, added or removed, move none. The sizes are therefore near the
    ratios, not equal to them, above all where there are few images or groups.

    Args:
        part: key of ``ratios``, the part that is wanted.
        ratios: share of each part, > 0, together 1. The order does not matter.
        group: images of a group stay together. 'folder': those of one folder. Else a regular
            expression that is searched for in an image's path, such as ``(patient_\\d+)``; what
            its first group matches names the image's group. None: each image for itself.
        seed: another seed, another division.

    Raises:
        ConfigError: a wrong option.
    """

    def __init__(
        self,
        part: str,
        ratios: Mapping[str, float],
        group: str | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(ratios, Mapping) or not ratios:
            raise ConfigError(f'ratios of split must be a dict of part and share, got {ratios!r}.')
        check_choice('part of split', part, ratios)
        for name, ratio in ratios.items():
            if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
                raise ConfigError(
                    f'ratios of split: {name} must be above 0, at most 1, got {ratio!r}.'
                )
        if not math.isclose(sum(ratios.values()), 1, abs_tol=1e-6):
            raise ConfigError(
                f'ratios of split must add up to 1, got {sum(ratios.values()):g}: {dict(ratios)}.'
            )
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ConfigError(f'seed of split must be a whole number, got {seed!r}.')
        self.part = part
        self.ratios = {name: ratios[name] for name in sorted(ratios)}
        self.group = group
        self.seed = seed
        self._pattern = None if group in (None, 'folder') else _compiled(group)

    def of_image(self, path: str) -> str:
        """The part to which an image belongs.

        Args:
            path: relative to the image folder, with slashes.

        Raises:
            ConfigError: the regular expression does not match the path.
        """
        place = _place(f'{self.seed}/{self.group_of(path)}')
        end = 0.0
        for name, ratio in self.ratios.items():
            end += ratio
            if place < end:
                return name
        return name  # ratios may add up to a little less than 1

    def group_of(self, path: str) -> str:
        """The name of an image's group, see ``group``; its path where it has none."""
        if self._pattern is None:
            return os.path.dirname(path) if self.group == 'folder' else path
        match = self._pattern.search(path)
        if match is None or match[1] is None:
            raise ConfigError(f'group of split: {self.group!r} is not found in the image {path}.')
        return match[1]

    def chosen(self, paths: Sequence[str], img_dir: Path) -> list[int]:
        """The places in ``paths`` of the images that belong to the part.

        Args:
            paths: image files.
            img_dir: folder of the images.

        Raises:
            ConfigError: no image belongs to it.
        """
        keys = [Path(os.path.relpath(path, img_dir)).as_posix() for path in paths]
        parts = [self.of_image(key) for key in keys]
        found = [place for place, part in enumerate(parts) if part == self.part]
        if paths and not found:
            counts = Counter(parts)
            numbers = ', '.join(f'{name} {counts[name]}' for name in self.ratios)
            groups = len({self.group_of(key) for key in keys})
            raise ConfigError(
                f'split: expected at least one of the {len(paths)} images in {img_dir} in the part '
                f"'{self.part}', got {numbers}, from {groups} groups; set another seed or ratio."
            )
        return found


def build_split(options: object) -> Split:
    """The split that a config describes.

    Raises:
        ConfigError: no dict, an unknown key, a missing one, a wrong value.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"split must be a dict, such as dict(part='val', ratios=...): {options!r}."
        )
    for key in options:
        check_choice('key of split', key, _KEYS)
    for key in ('part', 'ratios'):
        if key not in options:
            raise ConfigError(f"split needs the key '{key}'.")
    return Split(**options)


def _place(key: str) -> float:
    """A number in [0, 1) that the text alone decides."""
    digest = hashlib.sha256(key.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:6], 'big') / 2**48


def _compiled(group: object) -> re.Pattern[str]:
    try:
        pattern = re.compile(group)  # type: ignore[call-overload]
    except (re.error, TypeError) as error:
        raise ConfigError(
            f'group of split is no regular expression: {group!r}: {error}.'
        ) from error
    if pattern.groups == 0:
        raise ConfigError(
            f"group of split must be 'folder', or have a group in brackets that names the images' "
            f'group, such as (patient_\\d+): got {group!r}.'
        )
    return pattern
