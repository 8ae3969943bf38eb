import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_logits import random_logits
from reference_sam import build_reference_sam
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from mmsam.geometry import (
    MASK_THRESHOLD,
    Orientation,
    enlarged_masks,
    logits_to_original,
    resize_longest_side_size,
    scale_boxes,
    scale_points,
    without_padding,
)


@pytest.mark.parametrize(
    ('original_size', 'image_size', 'input_size'),
    [
        ((480, 640), 1024, (768, 1024)),
        ((1000, 333), 256, (256, 85)),  # 85.248
        ((337, 1000), 256, (86, 256)),  # 86.272
        ((512, 5), 256, (256, 3)),  # 2.5 goes up; round to even would give 2
        ((512, 7), 256, (256, 4)),  # 3.5
        ((64, 64), 128, (128, 128)),
        ((1000, 1), 256, (256, 1)),  # 0.256 would vanish
        ((1, 4000), 1024, (1, 1024)),
    ],
)
def test_resize_longest_side_size(original_size, image_size, input_size):
    assert resize_longest_side_size(original_size, image_size) == input_size


def test_resize_longest_side_size_rounds_as_upstream():
    for height in range(20, 900, 37):
        for width in range(20, 900, 41):
            for side in (128, 320, 1024):
                assert resize_longest_side_size(
                    (height, width), side
                ) == ResizeLongestSide.get_preprocess_shape(height, width, side)


def test_scale_boxes_by_hand():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 200.0, 100.0]])
    scaled = scale_boxes(boxes, from_size=(100, 200), to_size=(50, 400))
    # x doubles, y halves; the far corner of the image stays the far corner
    assert scaled.tolist() == [[20.0, 10.0, 60.0, 30.0], [0.0, 0.0, 400.0, 50.0]]


def test_scale_boxes_there_and_back():
    boxes = torch.rand(50, 4) * 700
    there = scale_boxes(boxes, (611, 733), (214, 256))
    torch.testing.assert_close(
        scale_boxes(there, (214, 256), (611, 733)), boxes, rtol=1e-6, atol=1e-4
    )


def test_scale_boxes_as_upstream():
    original_size = (611, 733)
    input_size = resize_longest_side_size(original_size, 256)
    boxes = torch.rand(20, 4) * 600
    torch.testing.assert_close(
        scale_boxes(boxes, original_size, input_size),
        ResizeLongestSide(256).apply_boxes_torch(boxes, original_size),
        rtol=1e-6,
        atol=1e-5,
    )


def test_scale_boxes_without_boxes():
    assert scale_boxes(torch.zeros(0, 4), (10, 20), (5, 10)).shape == (0, 4)


def test_scale_points_keeps_the_centres_of_pixels():
    points = torch.tensor([[0.0, 3.0], [7.0, 0.0]])
    # four px become one, and one becomes two: x 0 to 3 has its centre at index 1.5
    shrunk = scale_points(points, from_size=(4, 8), to_size=(8, 2))
    assert shrunk.tolist() == [[-0.375, 6.5], [1.375, 0.5]]
    assert scale_points(shrunk, (8, 2), (4, 8)).tolist() == points.tolist()
    assert scale_points(torch.zeros(0, 2), (10, 20), (5, 10)).shape == (0, 2)


def test_logits_to_original_by_hand():
    low_res = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    # centres of the 8 px lie at -.375, -.125, .125, ... in cells: clamped, then linear
    ramp = torch.tensor([0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0])
    enlarged = 2 * ramp[:, None] + ramp[None]
    whole = logits_to_original(low_res, 8, input_size=(8, 8), original_size=(8, 8))
    torch.testing.assert_close(whole[0, 0], enlarged)

    cropped = logits_to_original(low_res, 8, input_size=(8, 3), original_size=(8, 3))
    torch.testing.assert_close(cropped[0, 0], enlarged[:, :3])

    # half the size without antialiasing: the mean of the two middle px
    halved = logits_to_original(low_res, 8, input_size=(4, 8), original_size=(2, 8))
    torch.testing.assert_close(halved[0, 0], enlarged[:4].reshape(2, 2, 8).mean(1))


def test_logits_to_original_sees_nothing_of_the_far_padding():
    low_res = torch.full((1, 1, 8, 8), -1.0)
    low_res[..., 5:] = 1e6  # cell 4 covers px 16 to 19, and the last px inside sees cell 5 not
    logits = logits_to_original(low_res, 32, input_size=(32, 17), original_size=(320, 170))
    assert (logits == -1).all()


def test_logits_to_original_gives_float32():
    low_res = torch.zeros(1, 1, 2, 2, dtype=torch.float16)
    assert logits_to_original(low_res, 8, (8, 8), (5, 5)).dtype == torch.float32


@pytest.mark.parametrize('original_size', [(96, 128), (480, 640), (31, 41)])
def test_logits_to_original_is_upstreams_postprocess_masks(original_size):
    sam = build_reference_sam(
        dict(embed_dim=16, depth=1, num_heads=1, global_attn_indexes=()), img_size=128
    )
    low_res = torch.randn(3, 2, 32, 32)
    input_size = resize_longest_side_size(original_size, 128)
    assert torch.equal(
        logits_to_original(low_res, 128, input_size, original_size),
        sam.postprocess_masks(low_res, input_size, original_size),
    )


def test_threshold_is_upstreams():
    assert MASK_THRESHOLD == Sam.mask_threshold


ALL_ORIENTATIONS = [
    Orientation(mirrored, turns) for mirrored in (False, True) for turns in range(4)
]


def test_the_eight_orientations_differ():
    image = torch.arange(6).reshape(2, 3)
    laid = {tuple(map(tuple, way.applied_to(image).tolist())) for way in ALL_ORIENTATIONS}
    assert len(laid) == 8


@pytest.mark.parametrize('start', ALL_ORIENTATIONS, ids=str)
def test_orientations_compose_as_what_is_done_to_arrays(start):
    image = np.arange(24).reshape(2, 3, 4)
    laid = start.applied_to(torch.from_numpy(image)).numpy()
    for after, expected in (
        (start.flipped('horizontal'), np.flip(laid, 2)),
        (start.flipped('vertical'), np.flip(laid, 1)),
        *((start.turned(turns), np.rot90(laid, turns, (1, 2))) for turns in range(4)),
    ):
        assert after in ALL_ORIENTATIONS
        assert np.array_equal(after.applied_to(torch.from_numpy(image)).numpy(), expected)


def smooth_logits(*shape: int) -> torch.Tensor:
    """Random logits whose masks have large parts inside and outside."""
    logits, _ = random_logits(*shape)
    return F.avg_pool2d(logits, 5, stride=1, padding=2, count_include_pad=False) - 0.3


@pytest.mark.parametrize('make', [smooth_logits, lambda *shape: random_logits(*shape)[0]])
def test_enlarged_masks_are_the_enlarged_logits_above_the_threshold(make):
    logits = make(5, 3, 32, 32)
    logits[0, 0], logits[0, 1] = -1.0, 1.0
    enlarged = F.interpolate(logits, (128, 128), mode='bilinear', align_corners=False)
    masks = enlarged_masks(logits)
    assert masks.shape == enlarged.shape and masks.dtype == torch.bool
    assert ((masks == (enlarged > MASK_THRESHOLD)) | (enlarged.abs() < 1e-5)).all()
    assert not masks[0, 0].any() and masks[0, 1].all()


def test_enlarged_masks_of_no_prompt_and_under_autocast():
    assert enlarged_masks(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 32, 32)
    logits = smooth_logits(2, 1, 16, 16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(enlarged_masks(logits), enlarged_masks(logits.clone()))
    assert torch.equal(enlarged_masks(logits.bfloat16()), enlarged_masks(logits.bfloat16().float()))


@pytest.mark.trap(8)
def test_without_padding():
    masks = torch.ones(2, 3, 8, 8, dtype=torch.bool)
    kept = without_padding(masks, torch.tensor([[8, 3], [5, 8]]))
    expected = torch.zeros_like(masks)
    expected[0, :, :, :3] = True
    expected[1, :, :5] = True
    assert torch.equal(kept, expected)
    assert masks.all()
    assert torch.equal(
        without_padding(masks[:, 0].byte(), torch.tensor([[8, 3], [5, 8]])), expected[:, 0].byte()
    )
