"""Against sums of wider numbers, at sides that fill words and sides that do not."""

import pytest
import torch
import torch.nn.functional as F

from mmsam.pixel_counts import cell_counts, pixel_counts, row_counts


def random_masks(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.3


@pytest.mark.parametrize('width', [1, 8, 13, 64, 2500])
def test_rows_and_masks(width):
    masks = random_masks(3, 2, 5, width)
    assert torch.equal(row_counts(masks), masks.sum(-1))
    assert torch.equal(row_counts(masks.byte()), masks.sum(-1))
    assert torch.equal(pixel_counts(masks), masks.sum((-2, -1)))


def test_full_rows_longer_than_a_byte_counts():
    """Each byte of a word gets one pixel of eight: 255 words are the most that fit."""
    for width in (8 * 255, 8 * 255 + 1, 8 * 256, 8 * 600):
        assert row_counts(torch.ones(1, width, dtype=torch.bool)).tolist() == [width]


def test_parts_of_a_tensor():
    masks = random_masks(4, 6, 33)
    for part in (masks[1:, ::2], masks[..., 3:], masks.transpose(1, 2), masks[:0]):
        assert torch.equal(row_counts(part), part.sum(-1))


def test_cells():
    masks = random_masks(3, 24, 24)
    masks[0] = True
    expected = (F.avg_pool2d(masks[:, None].float(), 4) * 16)[:, 0].int()
    assert torch.equal(cell_counts(masks), expected)
    assert torch.equal(cell_counts(masks.byte()), expected)
    assert torch.equal(cell_counts(masks.transpose(1, 2)), expected.transpose(1, 2))
