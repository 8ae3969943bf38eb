"""Decodes the run-length code of Label Studio's brush.

It is a stream of bits, the format of the library rle-pack, that holds the RGBA values of all pixels
row by row; what is painted has alpha. After 32 bits for the number of values, 5 for the bits of a
value less 1, and 4 times 4 for the bits of a length less 1, there are blocks: 1 bit (a run of one
value, or single values), 2 bits (which of the four sizes the length has), the length less 1, and
the value or values.

Source: thi.ng/umbrella, packages/rle-pack/src/index.ts @ 2065c92, ``decode``.
"""

import numpy as np

from mmsam.geometry import Size
from mmsam.structures.rle import RLE, encode_window

_CHANNELS, _ALPHA = 4, 3


def rle_of_brush(code: object, size: Size) -> RLE:
    """The compressed COCO RLE of what a brush painted on an image of ``size`` (H, W).

    No more than the rows that are painted are held as an array.

    Args:
        code: list of bytes 0..255.

    Raises:
        ValueError: it is no such code, or of another size; the message completes "rle ...".
    """
    if not isinstance(code, list):
        raise ValueError('must be a list of bytes')
    try:
        data = bytes(code)
    except (TypeError, ValueError) as error:
        raise ValueError('must be a list of bytes') from error
    starts, ends = painted_runs(data, size[0] * size[1])
    if len(starts) == 0:
        return encode_window(np.zeros((0, 0), bool), (0, 0), size)
    width = size[1]
    top, bottom = starts[0] // width, (ends[-1] - 1) // width + 1
    steps = np.zeros((bottom - top) * width + 1, np.int8)
    steps[starts - top * width] += 1
    steps[ends - top * width] -= 1
    rows = np.cumsum(steps[:-1], dtype=np.int8).reshape(-1, width).astype(bool)
    columns = np.flatnonzero(rows.any(axis=0))
    left, right = columns[0], columns[-1] + 1
    return encode_window(rows[:, left:right], (int(top), int(left)), size)


def painted_runs(data: bytes, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts (N,) and ends (N,) of the runs of painted pixels, counted row by row, ascending.

    Args:
        data: the code.
        pixels: of the image.

    Raises:
        ValueError: see :func:`rle_of_brush`.
    """
    bits = _Bits(data)
    number, word = bits.read(32), bits.read(5) + 1
    lengths = [bits.read(4) + 1 for _ in range(4)]
    if word != 8:
        raise ValueError(f'has values of {word} bits, expected 8')
    if number != _CHANNELS * pixels:
        raise ValueError(f'is of {number} values, expected {_CHANNELS} for each of {pixels} pixels')
    starts, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    position = 0
    while position < number:
        is_run = bits.read(1)
        end = position + bits.read(lengths[bits.read(2)]) + 1
        if end > number:
            raise ValueError(f'has more than the {number} values that it announces')
        # The alpha of pixel k is value 4 k + 3.
        first, last = position // _CHANNELS, end // _CHANNELS
        if is_run:
            painted = np.array([first] if bits.read(8) and first < last else [], np.int64)
            starts.append(painted)
            ends.append(painted - first + last)
        else:
            values = bits.read_bytes(end - position)
            painted = first + np.flatnonzero(values[(_ALPHA - position) % _CHANNELS :: _CHANNELS])
            starts.append(painted)
            ends.append(painted + 1)
        position = end
    all_starts, all_ends = np.concatenate(starts), np.concatenate(ends)
    joined = np.flatnonzero(all_starts[1:] == all_ends[:-1])
    return np.delete(all_starts, joined + 1), np.delete(all_ends, joined)


class _Bits:
    """Reads bytes as a stream of bits, the highest of each first."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def read(self, bits: int) -> int:
        """The next bits as a number.

        Raises:
            ValueError: there are not so many.
        """
        start, self.position = self.position, self.position + bits
        part = self.data[start // 8 : (self.position + 7) // 8]
        if self.position > 8 * len(self.data):
            raise ValueError('is cut off')
        return int.from_bytes(part, 'big') >> -self.position % 8 & (1 << bits) - 1

    def read_bytes(self, number: int) -> np.ndarray:
        """The next bytes (number,) uint8, which may begin within one of the data.

        Raises:
            ValueError: there are not so many.
        """
        start, self.position = self.position, self.position + 8 * number
        if self.position > 8 * len(self.data):
            raise ValueError('is cut off')
        shift = start % 8
        part = np.frombuffer(
            self.data, np.uint8, (start + 8 * number + 7) // 8 - start // 8, start // 8
        )
        if not shift:
            return part
        return part[:-1] << shift | part[1:] >> 8 - shift
