"""Lets all ranks of a run end with the same error."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.dist import all_gather_object

from mmsam.errors import MMSAMError


@contextmanager
def raised_by_all() -> Iterator[None]:
    """An ``MMSAMError`` of any rank inside is raised by every rank at the end.

    All ranks must come here. Else those without the error would wait for the one that has ended.

    Raises:
        MMSAMError: that of the lowest rank that has one.
    """
    own = None
    try:
        yield
    except MMSAMError as error:
        own = error
    for first in all_gather_object(own):
        if first is not None:
            raise first
