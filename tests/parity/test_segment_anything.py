"""Parity with the PyPI package segment-anything 1.0 on equal random weights, in float32."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as coco_mask
from reference_sam import Sam, build_reference_sam
from segment_anything import sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
from tiny_sam import TINY_ARCH, build_segmentor, random_boxes

from mmsam.geometry import logits_to_original, resize_longest_side_size, scale_boxes
from mmsam.models import SAMSegmentor
from mmsam.models.segmentors.prompt_batch import PromptBatch
from mmsam.structures import SAMDataSample

ATOL = 1e-4

ENCODERS = {
    # grid 8, windows of 3 need padding; one global block
    'padded-windows': (TINY_ARCH, 128),
    # grid 8, windows of 4 do not
    'fitting-windows': (dict(TINY_ARCH, window_size=4), 128),
    # SAM's own window; grid 20 gives four windows with padding
    'window-14': (
        dict(embed_dim=48, depth=3, num_heads=3, global_attn_indexes=(1,)),
        320,
    ),
    # a window larger than the grid
    'window-larger-than-grid': (dict(TINY_ARCH, window_size=14), 128),
    'only-global': (dict(TINY_ARCH, global_attn_indexes=(0, 1)), 128),
    'only-windows': (dict(TINY_ARCH, global_attn_indexes=()), 128),
}


def build_pair(arch=TINY_ARCH, img_size=128, **options) -> tuple[SAMSegmentor, Sam]:
    reference = build_reference_sam(arch, img_size)
    model = build_segmentor(img_size, arch, **options)
    model.load_state_dict(reference.state_dict(), strict=True)
    return model.eval(), reference


def assert_gradients_equal(
    ours: torch.nn.Module, reference: torch.nn.Module, tolerance: float = 1e-4
) -> None:
    """Relative to the largest gradient of each parameter; some are 0 but for rounding."""
    largest = max(float(p.grad.abs().max()) for p in reference.parameters() if p.grad is not None)
    names = set()
    for (name, a), (_, b) in zip(
        ours.named_parameters(), reference.named_parameters(), strict=True
    ):
        if b.grad is None:
            assert a.grad is None or not a.grad.any(), name
            continue
        names.add(name)
        scale = max(float(b.grad.abs().max()), 1e-2 * largest)
        assert float((a.grad - b.grad).abs().max()) < tolerance * scale, name
    assert names


@pytest.mark.parametrize('arch_name', ['vit_b', 'vit_l', 'vit_h'])
def test_names_and_shapes_of_the_published_sizes(arch_name):
    with torch.device('meta'):
        reference = sam_model_registry[arch_name]()
        model = build_segmentor(1024, arch_name)
    expected = {name: value.shape for name, value in reference.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == expected


@pytest.mark.parametrize(('arch', 'img_size'), ENCODERS.values(), ids=ENCODERS)
def test_image_encoder(arch, img_size):
    model, reference = build_pair(arch, img_size, frozen=())
    images = torch.randn(2, 3, img_size, img_size)
    ours, expected = model.image_encoder(images), reference.image_encoder(images)
    assert expected.abs().mean() > 0.1
    torch.testing.assert_close(ours, expected, rtol=0, atol=ATOL)

    weight = torch.randn_like(expected)
    (ours * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_gradients_equal(model.image_encoder, reference.image_encoder)


def points(labels: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(len(labels), len(labels[0]), 2) * 128, torch.tensor(labels)


PROMPTS = {
    'boxes': lambda: dict(boxes=random_boxes(3, (128, 128))),
    'points': lambda: dict(points=points([[1, 0], [1, 1], [0, 0]])),
    'padded-points': lambda: dict(points=points([[1, -1, -1], [0, 1, -1], [1, 1, 0]])),
    'masks': lambda: dict(masks=torch.randn(3, 1, 32, 32)),
    'boxes-points': lambda: dict(
        boxes=random_boxes(3, (128, 128)), points=points([[1, -1], [0, 1], [-1, -1]])
    ),
    'boxes-masks': lambda: dict(boxes=random_boxes(3, (128, 128)), masks=torch.randn(3, 1, 32, 32)),
    'all': lambda: dict(
        boxes=random_boxes(3, (128, 128)),
        points=points([[1, -1], [0, 1], [-1, -1]]),
        masks=torch.randn(3, 1, 32, 32),
    ),
}


@pytest.mark.parametrize('prompts', PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize('multimask_output', [False, True])
def test_prompt_encoder_and_mask_decoder(prompts, multimask_output):
    """Prompts of two images in one call, where upstream needs one call for each image."""
    torch.manual_seed(1)
    model, reference = build_pair(frozen=())
    given = prompts()
    sparse, dense = model.prompt_encoder(**given)
    expected_sparse, expected_dense = reference.prompt_encoder(
        **{'points': None, 'boxes': None, 'masks': None, **given}
    )
    torch.testing.assert_close(sparse, expected_sparse, rtol=0, atol=ATOL)
    torch.testing.assert_close(dense.expand_as(expected_dense), expected_dense, rtol=0, atol=ATOL)
    image_pe = model.prompt_encoder.get_dense_pe()
    expected_pe = reference.prompt_encoder.get_dense_pe()
    torch.testing.assert_close(image_pe, expected_pe, rtol=0, atol=ATOL)

    embeddings = torch.randn(2, 256, 8, 8)
    outputs = model.mask_decoder(
        embeddings, image_pe, sparse, dense, torch.tensor([0, 0, 1]), multimask_output
    )
    per_image = [
        reference.mask_decoder(
            image_embeddings=embeddings[image : image + 1],
            image_pe=expected_pe,
            sparse_prompt_embeddings=expected_sparse[own],
            dense_prompt_embeddings=expected_dense[own],
            multimask_output=multimask_output,
        )
        for image, own in enumerate((slice(0, 2), slice(2, 3)))
    ]
    expected = [torch.cat(parts) for parts in zip(*per_image, strict=True)]
    assert expected[0].std() > 0.1
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=ATOL)

    weights = [torch.randn_like(part) for part in expected]
    for pair in (outputs, expected):
        sum((part * weight).sum() for part, weight in zip(pair, weights, strict=True)).backward()
    assert_gradients_equal(model.mask_decoder, reference.mask_decoder)
    assert_gradients_equal(model.prompt_encoder, reference.prompt_encoder)


@pytest.mark.parametrize(
    'original_sizes', [[(100, 140), (300, 211)], [(128, 128), (41, 90)]], ids=['smaller', 'same']
)
def test_from_uint8_image_and_boxes_to_masks_in_original_px(original_sizes):
    model, reference = build_pair()
    rng = np.random.default_rng(0)
    images = [smooth_image(rng, size) for size in original_sizes]
    boxes = [random_boxes(3, size, seed=i) for i, size in enumerate(original_sizes)]

    transform = ResizeLongestSide(128)
    expected = reference(
        [
            dict(
                image=torch.from_numpy(transform.apply_image(image)).permute(2, 0, 1),
                original_size=size,
                boxes=transform.apply_boxes_torch(box, size),
            )
            for image, size, box in zip(images, original_sizes, boxes, strict=True)
        ],
        multimask_output=False,
    )

    inputs, samples = [], []
    for image, size, box in zip(images, original_sizes, boxes, strict=True):
        height, width = input_size = resize_longest_side_size(size, 128)
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        inputs.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1))
        sample = SAMDataSample(metainfo=dict(img_path='', ori_shape=size, img_shape=input_size))
        sample.prompts = InstanceData(boxes=scale_boxes(box, size, input_size))
        samples.append(sample)
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples))
    with torch.no_grad():
        logits, iou = model(**data, mode='tensor')
        predicted = model(**data, mode='predict')

    for index, (theirs, sample, size) in enumerate(
        zip(expected, predicted, original_sizes, strict=True)
    ):
        own = slice(3 * index, 3 * index + 3)
        torch.testing.assert_close(logits[own], theirs['low_res_logits'], rtol=0, atol=ATOL)
        torch.testing.assert_close(iou[own], theirs['iou_predictions'], rtol=0, atol=ATOL)
        torch.testing.assert_close(
            sample.pred_instances.iou_predictions,
            theirs['iou_predictions'][:, 0],
            rtol=0,
            atol=ATOL,
        )
        masks = np.stack([coco_mask.decode(rle) for rle in sample.pred_instances.rles])
        expected_masks = theirs['masks'][:, 0].numpy()
        assert masks.shape == expected_masks.shape == (3, *size)
        in_original = logits_to_original(logits[own], 128, sample.img_shape, size)[:, 0]
        differs = masks != expected_masks
        assert (in_original.abs().numpy()[differs] < 1e-3).all()
        assert 0.02 < expected_masks.mean() < 0.98  # else the comparison says little


def smooth_image(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W, 3) uint8 with structure at several scales."""
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)).astype(int)
    return (image + rng.integers(-20, 21, image.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('with_cp', [False, True, 'global'])
def test_gradients_of_the_whole_path(with_cp):
    """From a loss on the logits of three prompts of two images to every part's parameters."""
    model, reference = build_pair(frozen=())
    model.image_encoder.with_cp = with_cp
    images, boxes = torch.randn(2, 3, 128, 128), random_boxes(3, (128, 128))
    index = torch.tensor([0, 1, 1])
    logits, iou = model.decode_best(model.encode_images(images), PromptBatch.of_boxes(boxes, index))

    expected_logits, expected_iou = [], []
    for embedding, own in zip(reference.image_encoder(images), ([0], [1, 2]), strict=True):
        sparse, dense = reference.prompt_encoder(points=None, boxes=boxes[own], masks=None)
        masks, quality = reference.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=reference.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        expected_logits.append(masks)
        expected_iou.append(quality)
    target = (torch.rand_like(logits) > 0.5).float()
    for masks, quality in (
        (logits, iou),
        (torch.cat(expected_logits), torch.cat(expected_iou)),
    ):
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(masks, target)
        (100 * entropy + quality.square().sum()).backward()
    # rounding may switch one of the decoder's thousands of ReLUs, so less exact than part by part
    assert_gradients_equal(model, reference, tolerance=1e-3)
