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

from mmsam.errors import ConfigError, DataError
from mmsam.models import SAMSegmentor
from mmsam.models.segmentors.sam_segmentor import PARTS, PREDICTION_CHUNK
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


# -- the ragged batch


@pytest.mark.parametrize('counts', [COUNTS, [2, 0, 0, 0], [0, 0, 0, 2]])
@pytest.mark.bad_input(48)
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


def test_ragged_loss_and_gradients_equal_one_by_one():
    model = build()
    model.mask_loss = SquaredLogits()
    batch = random_batch(SIZES, COUNTS)
    losses = run(model, batch, 'loss')
    total(losses).backward()
    together = {n: p.grad.clone() for n, p in model.mask_decoder.named_parameters()}
    model.zero_grad()
    one_by_one = torch.zeros(())
    for index in range(len(COUNTS)):
        # a mean over the objects
        share = COUNTS[index] / sum(COUNTS)
        loss = share * total(run(model, split(batch, index), 'loss'))
        loss.backward()
        one_by_one += loss.detach()
    torch.testing.assert_close(total(losses).detach(), one_by_one, rtol=1e-5, atol=1e-6)
    for name, parameter in model.mask_decoder.named_parameters():
        scale = float(together[name].abs().max()) + 1e-3
        assert (parameter.grad - together[name]).abs().max() < 1e-4 * scale, name


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
    class Recorder(SquaredLogits):
        def forward(self, **arguments):
            self.arguments = arguments
            return super().forward(**arguments)

    model = build()
    model.mask_loss = Recorder()
    batch = random_batch(SIZES, COUNTS)
    run(model, batch, 'loss')
    arguments = model.mask_loss.arguments
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


# -- frozen parts


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


def test_predict_threshold_is_zero_on_logits():
    model = build()
    values = torch.linspace(-0.2, 0.6, 32 * 32).view(1, 1, 32, 32)
    model.decode_boxes = lambda *_: (values, torch.tensor([[0.25]]))
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
