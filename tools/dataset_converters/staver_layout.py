"""The file layout of the StaVer archive, for its converter and the generator of like pages.

One page is four files. The published archive keeps each kind in a folder of the same name
twice (``scans/scans/stampDS-00001.png``); some mirrors unpack with one folder less.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Both ground truth images are dark on white: 0 where there is ink or region, else 255.
MARKED = 0
BLANK = 255


@dataclass(frozen=True)
class Part:
    """One kind of file of a page: the folder that holds it and how its name ends."""

    folder: str
    suffix: str

    def path(self, root: Path, page: str) -> Path:
        """Where the published archive under ``root`` keeps this file of the page."""
        return root / self.folder / self.folder / f'{page}{self.suffix}'


SCAN = Part('scans', '.png')  # the scanned page, RGB
INK = Part('ground-truth-pixel', '-px.png')  # the pixels of stamp ink
REGION = Part('ground-truth-maps', '-gt.png')  # the filled outlines of the stamps
INFO = Part('info', '.txt')  # loose text, the number of stamps in it
PARTS = (SCAN, INK, REGION, INFO)


def page_name(number: int) -> str:
    """Name of the ``number``-th page, counted from 1."""
    return f'stampDS-{number:05d}'
