from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from reference_sam import randomise
from tiny_sam import (
    SquaredLogits,
    build_segmentor,
    make_sample,
    random_batch,
    random_boxes,
    segmentor_config,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmsam.errors import ConfigError, DataError
from mmsam.models import SAMSegmentor
from mmsam.models.losses import SAMMaskLoss
from mmsam.models.segmentors import sam_segmentor
from mmsam.models.segmentors.prompted_prediction import PREDICTION_CHUNK
from mmsam.models.segmentors.sam_segmentor import PARTS, objects_per_rank
from mmsam.prompt_sampling import PromptKind
from mmsam.registry import MODELS

SIZES = [(128, 96), (64, 128), (128, 128), (37, 128)]
COUNTS = [3, 0, 1, 5]


def build(**options) -> SAMSegmentor:
    model = build_segmentor(**options)
    randomise(model)
    return model


def run(model: SAMSegmentor, batch: dict, mode: str):
    data = model.data_preprocessor(batch, training=mode == 'loss')
    return model(**data, mode=mode)


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return losses['loss_mask'] + losses['loss_iou']


def split(batch: dict, index: int) -> dict:
    return {key: value[index : index + 1] for key, value in batch.items()}


# -- embeddings in place of images


@pytest.mark.parametrize('mode', ['loss', 'predict', 'tensor'])
def test_embeddings_in_place_of_images_give_the_same(mode):
    model = build().eval()
    model.mask_loss = SquaredLogits()
    results = []
    with torch.no_grad():
        for has_embeddings in (False, True):
            data = model.data_preprocessor(random_batch(SIZES, COUNTS))
            if has_embeddings:
                data['image_embeddings'] = model.encode_images(data.pop('inputs'))
                model.encode_images = None
            results.append(model(**data, mode=mode))
    images, embeddings = results
    if mode == 'loss':
        assert total(images) == total(embeddings)
    elif mode == 'tensor':
        assert all(torch.equal(*pair) for pair in zip(images, embeddings, strict=True))
    else:
        for one, other in zip(images, embeddings, strict=True):
            assert one.pred_instances.rles == other.pred_instances.rles


def test_neither_images_nor_embeddings():
    with pytest.raises(DataError, match='expected inputs or image_embeddings, got neither'):
        build()(data_samples=[make_sample((64, 64), [])])


# -- the ragged batch


@pytest.mark.parametrize('counts', [COUNTS, [2, 0, 0, 0], [0, 0, 0, 2]])
@pytest.mark.bad_input(48)
@pytest.mark.trap(6)
def test_ragged_batch_equals_one_by_one(counts):
    model = build()
    batch = random_batch(SIZES, counts)
    with torch.no_grad():
        logits, iou = run(model, batch, 'tensor')
        assert logits.shape == (sum(counts), 1, 32, 32)
        parts = [run(model, split(batch, index), 'tensor') for index in range(len(counts))]
    assert [len(part[0]) for part in parts] == counts
    torch.testing.assert_close(logits, torch.cat([p[0] for p in parts]), rtol=0, atol=1e-5)
    torch.testing.assert_close(iou, torch.cat([p[1] for p in parts]), rtol=0, atol=1e-5)


def test_as_many_prompts_as_images_all_of_the_first():
    model = build()
    batch = random_batch(SIZES[:2], [2, 0])
    swapped = random_batch(SIZES[:2], [1, 1])
    first = batch['data_samples'][0].prompts.boxes
    swapped['data_samples'][0].prompts = InstanceData(boxes=first[:1])
    swapped['data_samples'][1].prompts = InstanceData(boxes=first[1:])
    with torch.no_grad():
        logits, _ = run(model, batch, 'tensor')
        alone, _ = run(model, split(batch, 0), 'tensor')
        other, _ = run(model, swapped, 'tensor')
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)
    # the same boxes on the second image are something else
    torch.testing.assert_close(logits[0], other[0], rtol=0, atol=1e-5)
    assert (logits[1] - other[1]).abs().max() > 1e-2


def gradients(model: SAMSegmentor) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_close_gradients(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name in first:
        scale = float(first[name].abs().max()) + 1e-3
        assert (second[name] - first[name]).abs().max() < 1e-4 * scale, name


def with_prompts(batch: dict, kinds: str, seed: int = 0) -> dict:
    """Adds seeds, and first prompts: 'b', 'p' or 'm' for each object of the batch in turn."""
    rng = np.random.default_rng(seed)
    start = 0
    for sample in batch['data_samples']:
        prompts, (height, width) = sample.prompts, sample.img_shape
        own = kinds[start : start + len(prompts)]
        start += len(prompts)
        prompts.seeds = torch.from_numpy(rng.integers(0, 2**62, len(prompts)))
        prompts.kinds = torch.tensor(['bpm'.index(kind) for kind in own], dtype=torch.int64)
        points = rng.integers(0, min(height, width), (len(prompts), 1, 2))
        prompts.points = torch.from_numpy(points).float()
        shares = rng.random((len(prompts), -(-height // 4), -(-width // 4)))
        prompts.masks = torch.from_numpy(shares).float()
    return batch


MIXED = 'bpmbmppbp'  # as many as COUNTS has


@pytest.mark.parametrize('correction', [None, dict(num_clicks=2, num_repeats=1)])
@pytest.mark.trap(6)
def test_ragged_loss_and_gradients_equal_one_by_one(correction):
    """Every object counts the same, and its clicks do not depend on the rest of the batch."""
    model = build(frozen=('image_encoder',), correction=correction)
    model.mask_loss = SquaredLogits()
    batch = with_prompts(random_batch(SIZES, COUNTS), MIXED)
    losses = run(model, batch, 'loss')
    total(losses).backward()
    together = gradients(model)
    one_by_one = torch.zeros(())
    for index, count in enumerate(COUNTS):
        loss = total(run(model, split(batch, index), 'loss')) * count / sum(COUNTS)
        loss.backward()
        one_by_one += loss.detach()
    torch.testing.assert_close(total(losses).detach(), one_by_one, rtol=1e-5, atol=1e-6)
    assert_close_gradients(together, gradients(model))


class AllocatedElements(TorchDispatchMode):
    """Adds up the elements of what every operation returns."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        self.total += sum(t.numel() for t in tree_leaves(results) if isinstance(t, torch.Tensor))
        return results


def test_a_training_step_does_not_know_the_size_of_the_original_image():
    """Clicks and their masks included, it makes as many elements at 16 times the pixels."""
    model = build(correction=dict(num_clicks=1, num_repeats=0))
    model.mask_loss = SAMMaskLoss(lovasz_weight=1.0)
    totals = []
    for scale in (1, 1, 4):  # the first step makes constants that later ones keep
        batch = random_batch(SIZES[:2], [3, 1])
        for sample, (height, width) in zip(batch['data_samples'], SIZES[:2], strict=True):
            sample.set_metainfo(dict(ori_shape=(scale * height, scale * width)))
            sample.prompts.seeds = torch.arange(len(sample.prompts))
        with AllocatedElements() as allocated:
            losses = run(model, batch, 'loss')
            sum(value for name, value in losses.items() if 'loss' in name).backward()
        totals.append(allocated.total)
        model.zero_grad()  # the first gradient is kept, later ones are added to it
    assert totals[1] == totals[2] > 0


def test_objects_per_rank_alone():
    assert objects_per_rank(7, device=torch.device('cpu')) == 7
    assert objects_per_rank(0, device=torch.device('cpu')) == 1


@pytest.mark.trap(15)
def test_a_batch_without_prompts():
    model = build()
    model.mask_loss = SquaredLogits()
    batch = random_batch(SIZES[:2], [0, 0])
    losses = run(model, batch, 'loss')
    assert total(losses) == 0
    total(losses).backward()
    for parameter in model.mask_decoder.parameters():
        assert parameter.grad is not None and (parameter.grad == 0).all()
    logits, iou = run(model, batch, 'tensor')
    assert logits.shape == (0, 1, 32, 32) and iou.shape == (0, 1)
    for sample in run(model, batch, 'predict'):
        assert sample.pred_instances.rles == []
        assert sample.pred_instances.iou_predictions.shape == (0,)


# -- what the loss is given


def test_the_loss_gets_every_prompt_with_its_image():
    model = build()
    model.mask_loss = Recorder()
    batch = random_batch(SIZES, COUNTS)
    run(model, batch, 'loss')
    (arguments,) = model.mask_loss.calls
    assert arguments['low_res_logits'].shape == (9, 1, 32, 32)
    assert arguments['iou_predictions'].shape == (9, 1)
    expected_sizes = [SIZES[0]] * 3 + [SIZES[2]] + [SIZES[3]] * 5
    assert [tuple(size) for size in arguments['input_sizes'].tolist()] == expected_sizes
    targets = arguments['target_masks']
    assert targets.shape == (9, 128, 128) and targets.dtype == torch.uint8
    masks = [mask for sample in batch['data_samples'] for mask in sample.gt_instances.masks]
    for target, mask, (height, width) in zip(targets, masks, expected_sizes, strict=True):
        assert torch.equal(target[:height, :width], mask)
        assert target.sum() == mask.sum()  # nothing in the padding


def test_what_mmengine_trains_is_averaged_over_all_ranks(monkeypatch):
    class Named(torch.nn.Module):
        def forward(self, low_res_logits, **_):
            ones = low_res_logits.flatten(1).sum(1) * 0 + 1
            return {'loss_a': ones, 'b_loss': ones, 'share': ones}

    model = build()
    model.mask_loss = Named()
    # the other rank has no object
    monkeypatch.setattr(
        'mmsam.models.segmentors.sam_segmentor.all_reduce', lambda data, op: data.div_(2)
    )
    losses = run(model, random_batch(SIZES[:1], [4]), 'loss')
    assert {name: value.item() for name, value in losses.items()} == {
        'loss_a': 2,
        'b_loss': 2,
        'share': 1,
    }
    assert model.parse_losses(losses)[0].item() == 4


# -- boxes, points and masks in one batch


def decoded_alone(model: SAMSegmentor, batch: dict) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each prompt by itself, as upstream's predictor gives it to the parts; all four slots."""
    data = model.data_preprocessor(batch)
    results = []
    for index, sample in enumerate(data['data_samples']):
        embedding = model.image_encoder(data['inputs'][index : index + 1])
        for prompt in sample.prompts:
            if prompt.kinds == PromptKind.BOX:
                arguments = dict(boxes=prompt.boxes)
            elif prompt.kinds == PromptKind.POINT:
                arguments = dict(points=(prompt.points, torch.ones(1, 1)))
            else:
                # SAM 2's stand-in for a missing point, and the padding point behind it
                logits = torch.full((1, 1, 32, 32), -10.0)
                height, width = prompt.masks.shape[-2:]
                logits[0, 0, :height, :width] += 20 * prompt.masks[0]
                arguments = dict(points=(torch.zeros(1, 1, 2), -torch.ones(1, 1)), masks=logits)
            sparse, dense = model.prompt_encoder(**arguments)
            results.append(
                model.mask_decoder.predict_masks(
                    embedding, model.prompt_encoder.get_dense_pe(), sparse, dense,
                    torch.zeros(1, dtype=torch.int64), slice(None),
                )
            )  # fmt: skip
    return results


@torch.no_grad()
def test_mixed_prompts_equal_each_alone():
    """A box and a mask give slot 0, a point the one of slots 1 to 3 that looks best."""
    model = build()
    batch = with_prompts(random_batch(SIZES, COUNTS), MIXED)
    logits, iou = run(model, batch, 'tensor')
    for index, (kind, (masks, qualities)) in enumerate(
        zip(MIXED, decoded_alone(model, batch), strict=True)
    ):
        slot = int(qualities[0, 1:].argmax()) + 1 if kind == 'p' else 0
        torch.testing.assert_close(logits[index, 0], masks[0, slot], rtol=0, atol=1e-5)
        torch.testing.assert_close(iou[index, 0], qualities[0, slot], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.trap(5)
def test_samples_without_kinds_are_boxes_beside_others():
    model = build()
    batch = random_batch(SIZES[:2], [2, 2])
    first, second = batch['data_samples']
    with_prompts(split(batch, 0), 'mp')
    with torch.no_grad():
        logits, _ = run(model, batch, 'tensor')
        boxes, _ = run(model, split(batch, 1), 'tensor')
        others, _ = run(model, split(batch, 0), 'tensor')
    torch.testing.assert_close(logits, torch.cat([others, boxes]), rtol=0, atol=1e-5)
    assert 'kinds' in first.prompts and 'kinds' not in second.prompts


def test_the_best_looking_of_three():
    model = build()
    values = torch.arange(12.0).view(3, 4, 1, 1)
    qualities = torch.tensor([[0.9, 0.1, 0.3, 0.2], [0.9, 0.5, 0.3, 0.2], [0.1, 0.5, 0.3, 0.6]])
    model.decode = lambda *_: (values, qualities)
    batch = with_prompts(random_batch([(128, 128)], [3]), 'pbp')
    logits, iou = run(model, batch, 'tensor')
    assert logits.flatten().tolist() == [2, 4, 11]
    torch.testing.assert_close(iou, torch.tensor([[0.3], [0.9], [0.6]]))


class Recorder(SquaredLogits):
    """Remembers what each call was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, torch.Tensor]] = []

    def forward(self, **arguments):
        self.calls.append(arguments)
        return super().forward(**arguments)


def test_the_loss_is_the_mean_over_all_predictions():
    model = build(correction=dict(num_clicks=3, num_repeats=2))
    model.mask_loss = Recorder()
    encode, encoded = model.encode_images, []
    model.encode_images = lambda inputs: encoded.append(1) or encode(inputs)
    batch = with_prompts(random_batch(SIZES, COUNTS), MIXED)
    losses = run(model, batch, 'loss')
    assert len(encoded) == 1
    calls = model.mask_loss.calls
    shapes = [tuple(call['iou_predictions'].shape) for call in calls]
    # the points alone have three masks; from then on all have one: 3 clicks and 2 repetitions
    assert shapes == [(4, 3), (5, 1)] + [(9, 1)] * 5
    expected = sum(SquaredLogits()(**call)['loss_mask'].sum() for call in calls) / 6 / 9
    torch.testing.assert_close(losses['loss_mask'], expected)
    targets = calls[2]['target_masks']
    assert torch.equal(calls[0]['target_masks'], targets[[1, 5, 6, 8]])
    assert torch.equal(calls[1]['input_sizes'], calls[2]['input_sizes'][[0, 2, 3, 4, 7]])


def test_clicks_are_on_errors_and_logits_are_fed_back():
    model = build(correction=dict(num_clicks=2, num_repeats=1))
    model.mask_loss = SquaredLogits()
    decode, seen = model.decode, []

    def remember(image_embeddings, prompts):
        output = decode(image_embeddings, prompts)
        seen.append((prompts, output[0]))
        return output

    model.decode = remember
    batch = with_prompts(random_batch(SIZES, COUNTS), 'b' * 9)
    targets = [mask for sample in batch['data_samples'] for mask in sample.gt_instances.masks]
    run(model, batch, 'loss')
    assert [prompts.click_labels.shape[1] for prompts, _ in seen] == [0, 1, 2, 2]
    for (_, before), (prompts, _) in zip(seen, seen[1:], strict=False):
        assert torch.equal(prompts.masks, before) and not prompts.masks.requires_grad
    for number in range(2):
        enlarged = torch.nn.functional.interpolate(seen[number][1], (128, 128), mode='bilinear')
        later = seen[number + 1][0]
        for index, target in enumerate(targets):
            x, y = later.click_coords[index, number].int().tolist()
            label = int(later.click_labels[index, number])
            predicted = enlarged[index, 0] > 0
            height, width = target.shape
            assert x < width and y < height
            if (predicted[:height, :width] != target).any():
                assert label == target[y, x] != predicted[y, x]


def test_other_seeds_other_clicks():
    model = build(correction=dict(num_clicks=1, num_repeats=0))
    model.mask_loss = SquaredLogits()
    batch = random_batch(SIZES, COUNTS)
    values = []
    for seed in (0, 0, 1):
        losses = run(model, with_prompts(batch, 'b' * 9, seed), 'loss')
        values.append(total(losses).item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize('correction', [None, dict(num_clicks=2, num_repeats=2)])
def test_chunks_change_nothing(correction):
    """Also not the trace of memory: activations of one chunk at a time are computed again."""
    batch = with_prompts(random_batch(SIZES, COUNTS), 'bpbbbppbp')
    model = build(frozen=(), correction=correction)
    model.mask_loss = SquaredLogits()
    results = []
    for model.prompt_chunk in (64, 4):
        losses = run(model, batch, 'loss')
        total(losses).backward()
        results.append((total(losses).detach(), gradients(model)))
    torch.testing.assert_close(results[0][0], results[1][0])
    assert_close_gradients(results[0][1], results[1][1])


def test_corrections_without_prompts_or_seeds():
    model = build(correction=dict(num_clicks=2))
    model.mask_loss = SquaredLogits()
    batch = with_prompts(random_batch(SIZES[:2], [0, 0]), '')
    total(run(model, batch, 'loss')).backward()
    with pytest.raises(DataError, match=r'made_in_test.png: .*seeds'):
        run(model, random_batch(SIZES[:1], [1]), 'loss')


@pytest.mark.parametrize(
    'correction', [dict(clicks=3), dict(num_clicks=-1), dict(num_repeats=1.5), True]
)
def test_a_wrong_correction(correction):
    with pytest.raises(ConfigError, match='correction of SAMSegmentor'):
        build_segmentor(correction=correction)


@pytest.mark.parametrize('chunk', [0, '64'])
def test_a_wrong_chunk(chunk):
    with pytest.raises(ConfigError, match=f'prompt_chunk .* at least 1, got {chunk!r}'):
        build_segmentor(prompt_chunk=chunk)


# -- frozen parts


@pytest.mark.trap(10)
def test_frozen_parts_stay_in_eval():
    model = build()
    model.train()
    assert model.training and all(m.training for m in model.mask_decoder.modules())
    for part in ('image_encoder', 'prompt_encoder'):
        assert not any(module.training for module in getattr(model, part).modules())
    model.eval()
    assert not model.mask_decoder.training
    assert model.train() is model


@pytest.mark.parametrize(
    'frozen',
    [
        ('image_encoder', 'prompt_encoder'),
        ('prompt_encoder', 'mask_decoder'),
        ('image_encoder', 'mask_decoder'),
        ('mask_decoder',),
        (),
    ],
    ids=lambda frozen: '+'.join(frozen) or 'none',
)
def test_gradient_reaches_every_trainable_part_and_no_frozen_one(frozen):
    model = build(frozen=frozen).train()
    model.mask_loss = SquaredLogits()
    total(run(model, random_batch(SIZES[:2], [2, 1]), 'loss')).backward()
    # box prompts use nothing of these, in upstream either
    unused = ('point_embeddings.0', 'point_embeddings.1', 'not_a_point', 'mask_downscaling')
    for part in PARTS:
        for name, parameter in getattr(model, part).named_parameters():
            assert parameter.requires_grad == (part not in frozen), (part, name)
            if part in frozen or name.startswith(unused):
                assert parameter.grad is None, (part, name)
            else:
                assert parameter.grad is not None, (part, name)
        if part not in frozen:
            grads = [p.grad for p in getattr(model, part).parameters() if p.grad is not None]
            assert any(grad.abs().max() > 0 for grad in grads), part


def test_a_frozen_encoder_records_nothing():
    images = torch.randn(1, 3, 128, 128)
    assert not build().encode_images(images).requires_grad
    assert build(frozen=()).encode_images(images).requires_grad
    # also not for the image, whose gradient would keep all activations
    assert not build().encode_images(images.requires_grad_()).requires_grad


def test_no_gradient_where_the_caller_wants_none():
    with torch.no_grad():
        assert not build(frozen=()).encode_images(torch.randn(1, 3, 128, 128)).requires_grad


# -- precision of a frozen encoder


@pytest.fixture
def fast_devices(monkeypatch):
    monkeypatch.setattr(sam_segmentor, 'fast_bfloat16', lambda device: True)


def embeddings_of(autocast: bool = False, **options) -> tuple[torch.Tensor, torch.dtype]:
    """Embeddings of an image, and the dtype in which the first block multiplies."""
    model = build(**options).eval()
    dtypes = []
    model.image_encoder.blocks[0].attn.qkv.register_forward_hook(
        lambda module, args, out: dtypes.append(out.dtype)
    )
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        embeddings = model.encode_images(image)
    assert embeddings.dtype == torch.float32
    return embeddings, dtypes[0]


@pytest.mark.trap(12)
def test_a_frozen_encoder_computes_in_the_dtype_of_its_option(fast_devices):
    exact, dtype = embeddings_of(encoder_dtype='float32')
    assert dtype == torch.float32
    for option in ('bfloat16', 'auto'):
        rounded, dtype = embeddings_of(encoder_dtype=option)
        assert dtype == torch.bfloat16
        assert 0 < (rounded - exact).norm() / exact.norm() < 0.02
    # whatever the run around it computes in
    assert torch.equal(embeddings_of(encoder_dtype='float32', autocast=True)[0], exact)


def test_auto_is_float32_where_bfloat16_is_not_fast():
    exact, _ = embeddings_of(encoder_dtype='float32')
    assert torch.equal(embeddings_of()[0], exact)
    assert embeddings_of(autocast=True)[1] == torch.bfloat16  # as --amp asks


def test_an_encoder_that_trains_computes_as_the_run_does(fast_devices):
    assert embeddings_of(frozen=())[1] == torch.float32
    assert embeddings_of(frozen=(), autocast=True)[1] == torch.bfloat16


@pytest.mark.parametrize('encoder_dtype', ['float32', 'bfloat16'])
def test_encoder_dtype_of_an_encoder_that_trains(encoder_dtype):
    with pytest.raises(ConfigError, match=f"expected 'auto' .*, got '{encoder_dtype}'; --amp"):
        build_segmentor(frozen=(), encoder_dtype=encoder_dtype)


def test_unknown_encoder_dtype():
    with pytest.raises(ConfigError, match=r"\['auto', 'float32', 'bfloat16'\], got 'float16'"):
        build_segmentor(encoder_dtype='float16')


def test_frozen_stages_of_an_encoder_that_is_frozen_as_a_whole():
    with pytest.raises(ConfigError, match='frozen_stages: expected -1 .*, got 1; take'):
        build_segmentor(encoder=dict(frozen_stages=1))
    model = build_segmentor(encoder=dict(frozen_stages=1), frozen=())
    names = {name for name, p in model.image_encoder.named_parameters() if p.requires_grad}
    assert {name.split('.')[0] for name in names} == {'blocks', 'neck'}
    assert not any(name.startswith('blocks.0.') for name in names)
    model.train()
    assert not model.image_encoder.blocks[0].training
    assert model.image_encoder.blocks[1].training


@pytest.mark.parametrize('frozen', [('encoder',), 'image_encoder', PARTS])
def test_wrong_frozen_parts(frozen):
    with pytest.raises(ConfigError, match='frozen'):
        build_segmentor(frozen=frozen)


# -- configuration


def test_loss_mode_without_a_loss():
    model = build()
    with pytest.raises(ConfigError, match='MaskLossHook'):
        run(model, random_batch(SIZES[:1], [1]), 'loss')


@pytest.mark.parametrize(
    ('part', 'option'),
    [('prompt_encoder', 'image_size'), ('data_preprocessor', 'image_size')],
)
def test_sizes_that_disagree(part, option):
    config = segmentor_config(128)
    config[part][option] = 256
    config['data_preprocessor']['type'] = 'mmsam.SAMDataPreprocessor'
    with pytest.raises(ConfigError, match=f'{part}.{option} is 256, .* is 128'):
        build_from(config)


def build_from(config: dict) -> SAMSegmentor:
    with DefaultScope.overwrite_default_scope('mmsam'):
        return MODELS.build(config)


def test_builds_without_a_default_scope(monkeypatch):
    # whatever other tests have left
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    config = segmentor_config()
    config.pop('type')
    assert isinstance(SAMSegmentor(**config), SAMSegmentor)


def test_the_wrong_mode_or_missing_samples():
    model = build()
    images = torch.zeros(1, 3, 128, 128)
    with pytest.raises(ConfigError, match='evaluate'):
        model(images, [make_sample((128, 128), [])], mode='evaluate')
    for mode in ('loss', 'predict'):
        with pytest.raises(DataError, match=mode):
            model(images, mode=mode)


def test_state_dict_has_the_parts_keys_only():
    keys = build().state_dict().keys()
    assert {key.split('.')[0] for key in keys} == set(PARTS)
    model = build()
    model.mask_loss = SquaredLogits()
    assert model.state_dict().keys() == keys


# -- prediction


def test_tensor_mode_without_samples_gives_the_embeddings():
    model = build()
    images = torch.randn(2, 3, 128, 128)
    embeddings = model(images)
    assert embeddings.shape == (2, 256, 8, 8)
    with torch.no_grad():  # as a frozen encoder computes
        assert torch.equal(embeddings, model.image_encoder(images))


def test_predict_decodes_to_the_masks_of_the_logits():
    """Upsampling, cropping and resizing are redone here by way of upstream's two steps."""
    model = build()
    sizes, originals = [(128, 96), (64, 128)], [(200, 150), (64, 128)]
    batch = random_batch(sizes, [PREDICTION_CHUNK + 1, 2])
    for sample, original in zip(batch['data_samples'], originals, strict=True):
        sample.set_metainfo(dict(ori_shape=original))
    with torch.no_grad():
        logits, iou = run(model, batch, 'tensor')
        samples = run(model, batch, 'predict')
    start = 0
    resize = torch.nn.functional.interpolate
    for sample, size, original in zip(samples, sizes, originals, strict=True):
        number = len(sample.prompts)
        own = slice(start, start + number)
        start += number
        padded = resize(logits[own], (128, 128), mode='bilinear')[..., : size[0], : size[1]]
        expected = resize(padded, original, mode='bilinear')[:, 0]
        masks = np.stack([coco_mask.decode(rle) for rle in sample.pred_instances.rles])
        assert masks.shape == (number, *original)
        clear = (expected.abs() > 1e-3).numpy()
        np.testing.assert_array_equal(masks[clear], (expected > 0).numpy()[clear])
        assert 0.02 < masks.mean() < 0.98  # else the comparison says little
        torch.testing.assert_close(
            sample.pred_instances.iou_predictions, iou[own, 0], rtol=0, atol=1e-5
        )


@pytest.mark.trap(3)
def test_predict_threshold_is_zero_on_logits():
    model = build()
    values = torch.linspace(-0.2, 0.6, 32 * 32).view(1, 1, 32, 32)
    model.decode_best = lambda *_: (values, torch.tensor([[0.25]]))
    data = dict(inputs=torch.zeros(1, 3, 128, 128))
    sample = make_sample((128, 128), [[0, 0, 9, 9]])
    (out,) = model(**data, data_samples=[sample], mode='predict')
    area = coco_mask.area(out.pred_instances.rles[0])
    assert abs(area / 128**2 - 0.75) < 0.01  # three quarters of the values are above 0
    assert out.pred_instances.iou_predictions.tolist() == [0.25]


def test_train_step_moves_the_decoder_only():
    from mmengine.optim import OptimWrapper

    model = build().train()
    model.mask_loss = SquaredLogits()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    wrapper = OptimWrapper(torch.optim.SGD(trainable, lr=1e-3))
    log = model.train_step(random_batch(SIZES, COUNTS), wrapper)
    parts = log['loss_mask'] + log['loss_iou']
    assert log['loss'].item() == pytest.approx(parts.item())
    changed = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert changed and {name.split('.')[0] for name in changed} == {'mask_decoder'}


def test_val_step_leaves_the_prompts_as_they_are():
    model = build().eval()
    batch = random_batch([(64, 128)], [2])
    boxes = random_boxes(2, (64, 128))
    with torch.no_grad():
        (sample,) = model.val_step(batch)
    assert torch.equal(sample.prompts.boxes, boxes)
    assert len(sample.pred_instances) == 2
