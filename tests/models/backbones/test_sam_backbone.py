import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from reference_sam import build_reference_sam
from tiny_sam import TINY_ARCH

from mmsam.errors import ConfigError
from mmsam.models import SAMBackbone
from mmsam.registry import MODELS

SCOPES = pytest.mark.parametrize('scope', ['mmseg', 'mmsam'])


def build_encoder_decoder(scope: str, **backbone):
    """mmseg's own model; in its scope our name needs a prefix, in ours nothing does."""
    prefix = 'mmsam.' if scope == 'mmseg' else ''
    config = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, size=(64, 64)
        ),
        backbone=dict(type=f'{prefix}SAMBackbone', arch=TINY_ARCH, img_size=64, **backbone),
        decode_head=dict(
            type='FCNHead',
            num_convs=1,
            in_channels=256,
            channels=8,
            num_classes=2,
            dropout_ratio=0,
            norm_cfg=dict(type='BN'),
        ),
        test_cfg=dict(mode='whole'),
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(ConfigDict(config))
        model.init_weights()
    assert type(model).__module__.startswith('mmseg.')
    return model


def make_batch() -> dict:
    """Two images, bright where class 1 is."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(2, 1, 64, 64, dtype=torch.int64)
    truth[0, :, :32], truth[1, :, :, 32:] = 1, 1
    noise = torch.randint(0, 60, (2, 3, 64, 64), generator=generator)
    samples = []
    for mask in truth:
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=mask)
        samples.append(sample)
    return dict(inputs=list((noise + 150 * truth).to(torch.uint8)), data_samples=samples)


def optimizer_of(model) -> OptimWrapper:
    trainable = [p for p in model.parameters() if p.requires_grad]
    return OptimWrapper(torch.optim.AdamW(trainable, lr=1e-2))


@SCOPES
def test_a_packaged_mmseg_model_trains_and_predicts(scope):
    model = build_encoder_decoder(scope).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    wrapper, batch = optimizer_of(model), make_batch()
    losses = [model.train_step(batch, wrapper)['loss'].item() for _ in range(15)]
    assert losses[-1] < 0.7 * losses[0]
    moved = {name for name, value in model.named_parameters() if (value != before[name]).any()}
    assert {name for name in before if name.startswith('backbone')} <= moved

    model.eval()
    with torch.no_grad():
        predictions = model.test_step(batch)
    for prediction, sample in zip(predictions, batch['data_samples'], strict=True):
        agreement = prediction.pred_sem_seg.data.cpu() == sample.gt_sem_seg.data
        assert agreement.float().mean() > 0.8


@SCOPES
def test_a_frozen_backbone_stays_as_it_is(scope):
    model = build_encoder_decoder(scope, frozen=True).train()
    assert model.decode_head.training
    assert not any(module.training for module in model.backbone.modules())
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    wrapper, batch = optimizer_of(model), make_batch()
    losses = [model.train_step(batch, wrapper)['loss'].item() for _ in range(8)]
    assert losses[-1] < losses[0]
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name

    data = model.data_preprocessor(batch, training=True)
    model(**data, mode='loss')['decode.loss_ce'].backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.decode_head.parameters())
    assert not model.backbone(torch.randn(1, 3, 64, 64))[0].requires_grad


def test_with_cp_reaches_the_encoder():
    plain = build_encoder_decoder('mmseg').train()
    recomputing = build_encoder_decoder('mmseg', with_cp=True).train()
    recomputing.load_state_dict(plain.state_dict())
    calls = []
    recomputing.backbone.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    losses = [
        model.train_step(make_batch(), optimizer_of(model))['loss'].item()
        for model in (plain, recomputing)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert len(calls) == 2
    assert not torch.equal(plain.backbone.pos_embed, torch.zeros_like(plain.backbone.pos_embed))


def test_gives_a_tuple_of_what_the_encoder_gives():
    reference = build_reference_sam(TINY_ARCH, 64).image_encoder
    backbone = SAMBackbone(arch=TINY_ARCH, img_size=64)
    backbone.load_state_dict(reference.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        outputs = backbone(x)
        assert isinstance(outputs, tuple) and len(outputs) == 1
        torch.testing.assert_close(outputs[0], reference(x), rtol=0, atol=1e-4)


def test_another_number_of_channels_and_an_oblong_input():
    backbone = SAMBackbone(arch=TINY_ARCH, img_size=64, out_chans=32)
    assert backbone(torch.randn(1, 3, 32, 80))[0].shape == (1, 32, 2, 5)


@pytest.mark.parametrize('img_size', [64, 96])
def test_sam_weights_by_init_cfg(tmp_path, img_size):
    """A whole SAM's file; at another size the positions are resampled on the way in."""
    sam = build_reference_sam(TINY_ARCH, 64)
    torch.save(sam.state_dict(), tmp_path / 'sam.pth')
    backbone = SAMBackbone(
        arch=TINY_ARCH,
        img_size=img_size,
        init_cfg=dict(
            type='Pretrained', checkpoint=str(tmp_path / 'sam.pth'), prefix='image_encoder.'
        ),
    )
    backbone.init_weights()
    expected = SAMBackbone(arch=TINY_ARCH, img_size=img_size)
    expected.load_state_dict(sam.image_encoder.state_dict())
    assert not torch.equal(backbone.pos_embed, torch.zeros_like(backbone.pos_embed))
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_a_misspelled_option_fails_when_built():
    with pytest.raises(TypeError):
        SAMBackbone(arch=TINY_ARCH, with_checkpoint=True)


def test_the_options_of_the_encoder_reach_it():
    backbone = SAMBackbone(TINY_ARCH, 64, with_cp='global', frozen_stages=1).train()
    assert (backbone.with_cp, backbone.frozen_stages) == ('global', 1)
    assert [p.requires_grad for p in backbone.blocks.parameters()] == [False] * 14 + [True] * 14
    assert (backbone.blocks[0].training, backbone.blocks[1].training) == (False, True)


def test_a_frozen_backbone_records_nothing():
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    assert not SAMBackbone(TINY_ARCH, 64, frozen=True)(image)[0].requires_grad
    assert SAMBackbone(TINY_ARCH, 64)(image)[0].requires_grad


def test_all_frozen_and_only_the_front():
    with pytest.raises(ConfigError, match='got both, frozen_stages=1'):
        SAMBackbone(TINY_ARCH, 64, frozen=True, frozen_stages=1)
