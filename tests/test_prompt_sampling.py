"""Against definitions computed pixel by pixel, and against what must not matter."""

import numpy as np
import pytest
import torch

from mmsam.prompt_sampling import (
    BACKGROUND,
    FOREGROUND,
    NO_POINT,
    SEED_LIMIT,
    centre_click,
    correction_steps,
    jitter_boxes,
    normals,
    pick_pixels,
    random_error_clicks,
    uniforms,
)

SEEDS = torch.from_numpy(np.random.default_rng(0).integers(0, SEED_LIMIT, 20_000))


# -- random numbers


def test_uniforms_are_those_of_splitmix64():
    """In Python's own whole numbers, which do not wrap round."""
    wrap = 2**64

    def mix(value: int) -> int:
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % wrap
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % wrap
        return value ^ (value >> 31)

    for seed in (0, 1, 12345678901234567, SEED_LIMIT - 1):
        for stream in (0, 1, 77):
            word = mix((mix(seed) + (stream + 1) * 0x9E3779B97F4A7C15) % wrap)
            expected = (word >> 11) / 2**53
            assert float(uniforms(torch.tensor([seed]), stream)) == expected


def test_uniforms_are_uniform_and_streams_differ():
    first, second = uniforms(SEEDS, 0), uniforms(SEEDS, 1)
    for numbers in (first, second, uniforms(torch.arange(20_000), 0)):
        assert numbers.min() >= 0 and numbers.max() < 1
        shares = torch.histc(numbers, 10, 0, 1) / len(numbers)
        assert (shares - 0.1).abs().max() < 0.01
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.03


def test_an_objects_numbers_do_not_depend_on_the_others():
    assert torch.equal(uniforms(SEEDS, 3)[[5, 2]], uniforms(SEEDS[[5, 2]], 3))


def test_normals_are_normal():
    numbers = normals(SEEDS, 2, 4)
    assert numbers.shape == (20_000, 4)
    assert (numbers.mean(dim=0)).abs().max() < 0.03
    assert (numbers.std(dim=0) - 1).abs().max() < 0.03
    within = (numbers.abs() < 1).double().mean()
    assert abs(float(within) - 0.6827) < 0.01
    correlation = torch.corrcoef(torch.cat([numbers, normals(SEEDS, 3, 4)], dim=1).T)
    assert (correlation - torch.eye(8)).abs().max() < 0.04


# -- boxes


def test_jitter_by_hand():
    boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 10, 10], [90, 40, 100, 50]])
    noise = torch.tensor([[1.0, -1, 2, 0.5], [-5, 3, -9, 9], [0.0, 0, 5, 0]]).double()
    sizes = torch.tensor([[80, 100], [80, 100], [50, 95]])
    moved = jitter_boxes(boxes, sizes, noise, ratio=0.1, max_pixels=3)
    # sides 20 and 40: 2, -4 -> -3, 4 -> 3, 2
    assert moved[0].tolist() == [12, 17, 33, 62]
    # -3 -> the edge, 3, -3, 3; a width of 7, a height of 10
    assert moved[1].tolist() == [0, 3, 7, 13]
    # 3 beyond an edge that is at 95
    assert moved[2].tolist() == [90, 40, 95, 50]


def test_a_jittered_box_keeps_a_pixel_inside():
    boxes = torch.tensor([[5.0, 5, 8, 8], [97, 60, 100, 80]])
    noise = torch.tensor([[9.0, 0, -9, 0], [50, 50, 50, 50]]).double()
    moved = jitter_boxes(boxes, torch.tensor([[80, 100]]), noise, ratio=1, max_pixels=float('inf'))
    # the first is turned inside out, from 32 to 0, the second thrown off the lower right corner
    assert moved[0].tolist() == [15.5, 5, 16.5, 8]
    assert moved[1].tolist() == [99, 79, 100, 80]


# -- pixels


def test_every_pixel_is_picked_equally_often():
    mask = torch.zeros(4, 6, dtype=torch.uint8)
    mask[0, 5] = mask[2, 1] = mask[2, 2] = mask[3, 0] = 1
    numbers = (torch.arange(400).double() + 0.5) / 400
    pixels, found = pick_pixels(mask.expand(400, 4, 6), numbers)
    assert found.all()
    chosen, times = pixels.unique(dim=0, return_counts=True)
    assert chosen.tolist() == [[0, 3], [1, 2], [2, 2], [5, 0]]
    assert times.tolist() == [100] * 4


def test_a_mask_without_pixels_has_none_to_pick():
    masks = torch.zeros(2, 3, 3, dtype=torch.bool)
    masks[1, 2, 2] = True
    pixels, found = pick_pixels(masks, torch.tensor([0.9, 0.999999]).double())
    assert found.tolist() == [False, True]
    assert pixels.tolist() == [[0, 0], [2, 2]]
    assert pick_pixels(masks[:0], torch.zeros(0).double())[0].shape == (0, 2)


def random_masks(count: int, side: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, count, side, side, generator=generator)
    return noise[0] > 0.5, (noise[1] > 0.5).to(torch.uint8)


def test_clicks_fall_on_errors_inside_the_image():
    predicted, target = random_masks(200, 12, seed=1)
    sizes = torch.randint(2, 13, (200, 2), generator=torch.Generator().manual_seed(2))
    points, labels = random_error_clicks(predicted, target, sizes, uniforms(SEEDS[:200], 0))
    assert points.shape == (200, 1, 2) and labels.shape == (200, 1)
    for index, ((x, y),) in enumerate(points.int().tolist()):
        height, width = sizes[index].tolist()
        area = (slice(0, height), slice(0, width))
        if (predicted[index][area] == target[index][area]).all():
            assert x < width and y < height and labels[index] == BACKGROUND
            continue
        assert x < width and y < height
        assert predicted[index, y, x] != target[index, y, x]
        assert labels[index] == (FOREGROUND if target[index, y, x] else BACKGROUND)


def test_clicks_where_all_is_right():
    target = torch.zeros(2, 4, 4, dtype=torch.uint8)
    target[0, :, :2] = 1  # the right half of the image, which ends at x = 3, is background
    target[1, :2, :2] = 1  # fills its image of 2x2
    sizes = torch.tensor([[4, 3], [2, 2]])
    for seed in range(20):
        numbers = uniforms(torch.tensor([seed, seed]), 0)
        points, labels = random_error_clicks(target.bool(), target, sizes, numbers)
        assert points[0, 0, 0] == 2
        assert labels.tolist() == [[BACKGROUND], [NO_POINT]]


def test_the_papers_steps():
    counts = set()
    for seed in range(50):
        steps = correction_steps(seed, num_clicks=8, num_repeats=2)
        assert len(steps) == 10 and sum(steps) == 8 and not steps[-1]
        counts.add(steps.index(False))
        assert steps == correction_steps(seed, num_clicks=8, num_repeats=2)
    assert len(counts) > 5  # the other repetition moves
    assert correction_steps(0, num_clicks=2, num_repeats=0) == [True, True]
    assert correction_steps(0, num_clicks=1, num_repeats=1) == [True, False]


# -- clicks that the data determine


def innermost(mask: np.ndarray) -> tuple[float, set[tuple[int, int]]]:
    """Greatest distance to a pixel outside, the image's edge included, and where it is reached."""
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    best, places = 0.0, set()
    for y, x in np.argwhere(padded):
        distance = np.sqrt(((outside - (y, x)) ** 2).sum(axis=1).min())
        if distance > best + 1e-9:
            best, places = distance, set()
        if abs(distance - best) < 1e-9:
            places.add((int(x) - 1, int(y) - 1))
    return best, places


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((15, 19), bool)
    for _ in range(3):
        y, x = rng.integers(0, 12, 2)
        height, width = rng.integers(1, 9, 2)
        mask[y : y + height, x : x + width] ^= True
    return mask


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.trap(16)
def test_the_first_click_is_farthest_from_the_boundary(seed):
    mask = blobs(seed)
    click = centre_click(mask)
    assert (click.x, click.y) in innermost(mask)[1]
    assert click.label == FOREGROUND


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.trap(16)
def test_the_next_click_is_the_centre_of_the_largest_error(seed):
    target, predicted = blobs(seed), blobs(seed + 100)
    missed, added = innermost(target & ~predicted), innermost(predicted & ~target)
    click = centre_click(target, predicted)
    expected = added if added[0] > missed[0] else missed
    assert (click.x, click.y) in expected[1]
    assert click.label == (BACKGROUND if added[0] > missed[0] else FOREGROUND)


def test_no_error_no_click():
    mask = blobs(0)
    assert centre_click(mask, mask).label == NO_POINT
    assert centre_click(np.zeros((3, 3), np.uint8)).label == NO_POINT
    everything = np.ones((3, 3), np.uint8)
    assert centre_click(everything) == (1, 1, FOREGROUND)
    assert centre_click(np.zeros((3, 3), np.uint8), everything > 0) == (1, 1, BACKGROUND)
