"""One reader per annotation format; ``READERS`` maps the ``type`` of a config to its class."""

import inspect
from collections.abc import Mapping

from mmsam.errors import ConfigError
from mmsam.options import check_choice

from .base import AnnotatedImage, AnnotationReader, Objects
from .coco import CocoReader
from .davis import DavisReader
from .label_studio import LabelStudioReader
from .labelme import LabelmeReader
from .mask_folder import MaskFolderReader
from .problems import first_few
from .sa1b import SA1BReader
from .voc import VOCReader
from .yolo_seg import YoloSegReader

__all__ = [
    'READERS', 'AnnotatedImage', 'AnnotationReader', 'Objects', 'build_reader', 'first_few',
]  # fmt: skip

READERS: dict[str, type[AnnotationReader]] = {
    'coco': CocoReader,
    'davis': DavisReader,
    'label_studio': LabelStudioReader,
    'labelme': LabelmeReader,
    'mask_folder': MaskFolderReader,
    'sa1b': SA1BReader,
    'voc': VOCReader,
    'yolo_seg': YoloSegReader,
}


def build_reader(config: Mapping, data_root: str) -> AnnotationReader:
    """Builds the reader that ``config`` describes: ``type`` from ``READERS``, and its options.

    Raises:
        ConfigError: no dict, an unknown type or option, a missing option.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"reader must be a dict, such as dict(type='coco', ...), got {config!r}.")
    options = dict(config)
    kind = options.pop('type', None)
    check_choice('reader type', kind, READERS)
    parameters = dict(inspect.signature(READERS[kind]).parameters)
    del parameters['data_root']
    for option in options:
        check_choice(f"option of reader '{kind}'", option, parameters)
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise ConfigError(f"Reader '{kind}' needs the option '{name}'.")
    return READERS[kind](data_root, **options)  # type: ignore[call-arg]
