"""A data set without an object has no score."""

import torch
from mmengine.dist import all_reduce

from mmsam.errors import DataError


def check_any_object(metric: str, own_objects: int, images: int) -> None:
    """Check on every rank that some rank has an object.

    Args:
        metric: its name.
        own_objects: number of objects that this rank has seen.
        images: number of images of the data set.

    Raises:
        DataError: none has; raised on every rank, so that none waits for another.
    """
    objects = torch.tensor(own_objects)
    all_reduce(objects)
    if not objects:
        raise DataError(f'{metric} expected at least one object, got none in {images} images.')
