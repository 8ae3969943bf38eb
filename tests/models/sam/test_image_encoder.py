import copy

import pytest
import torch
from reference_sam import build_reference_sam, randomise
from tiny_sam import TINY_ARCH

from mmsam.models.sam import SAMImageEncoder
from mmsam.models.sam.image_encoder import resize_pos_embed


def build_encoder(img_size: int = 128, **options) -> SAMImageEncoder:
    encoder = SAMImageEncoder(arch=TINY_ARCH, img_size=img_size, **options)
    randomise(encoder)
    return encoder


def test_resize_pos_embed_by_hand():
    column = torch.tensor([0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    pos_embed = column.view(1, 8, 1, 1).expand(1, 8, 5, 2)
    enlarged = resize_pos_embed(pos_embed, (16, 5))

    def kernel(distance: float) -> float:
        """The cubic convolution with a = -3/4."""
        if distance <= 1:
            return 1.25 * distance**3 - 2.25 * distance**2 + 1
        if distance < 2:
            return -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        return 0.0

    expected = torch.tensor([4 * kernel(abs((i + 0.5) / 2 - 0.5 - 2)) for i in range(16)])
    for x in range(5):
        torch.testing.assert_close(enlarged[0, :, x, 1], expected, rtol=0, atol=1e-6)
    assert resize_pos_embed(pos_embed, (8, 5)) is pos_embed


def test_checkpointing_changes_neither_output_nor_gradients():
    plain = build_encoder()
    recomputing = build_encoder(with_cp=True)
    x = torch.randn(1, 3, 128, 128)
    outputs = [encoder(x) for encoder in (plain, recomputing)]
    assert torch.equal(*outputs)
    weight = torch.randn_like(outputs[0])
    for out in outputs:
        (out * weight).sum().backward()
    for (name, a), b in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
        assert a.grad.abs().max() > 0, name


@pytest.mark.bad_input(74)
def test_checkpointing_behind_frozen_layers():
    """Nothing that enters the first block has a gradient, which the re-entrant kind needs."""
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        encoder = build_encoder(with_cp=with_cp)
        encoder.pos_embed.requires_grad_(False)
        encoder.patch_embed.requires_grad_(False)
        encoder(torch.ones(1, 3, 128, 128)).square().sum().backward()
        gradients.append([p.grad for p in encoder.blocks.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)
        assert plain.abs().max() > 0


def test_checkpointing_recomputes_blocks_in_the_backward_pass():
    calls = []
    encoder = build_encoder(with_cp=True)
    encoder.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 3, 128, 128)
    encoder(x).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        encoder(x)
    assert len(calls) == 3


@pytest.mark.parametrize('img_size', [100, 0, -16])
def test_img_size_must_be_a_multiple_of_16(img_size):
    with pytest.raises(ValueError, match=f'multiple of 16, got {img_size}'):
        SAMImageEncoder(arch=TINY_ARCH, img_size=img_size)


def test_unknown_arch():
    with pytest.raises(ValueError, match=r'vit_b.*vit_x'):
        SAMImageEncoder(arch='vit_x')


def test_typo_in_arch():
    arch = {key: value for key, value in TINY_ARCH.items() if key != 'depth'}
    with pytest.raises(ValueError, match='depht'):
        SAMImageEncoder(arch=dict(arch, depht=2))
    with pytest.raises(ValueError, match='windows_size'):
        SAMImageEncoder(arch=dict(TINY_ARCH, windows_size=7))
    with pytest.raises(ValueError, match='depth'):
        SAMImageEncoder(arch=arch)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r'global_attn_indexes .* 0\.\.1'):
        SAMImageEncoder(arch=dict(TINY_ARCH, global_attn_indexes=(2,)))
    with pytest.raises(ValueError, match='num_heads 5 must divide embed_dim 48'):
        SAMImageEncoder(arch=dict(TINY_ARCH, num_heads=5))


def test_weights_of_another_img_size_load_as_upstream_would_use_them():
    """Upstream resamples relative positions at run time; its position embedding is set here."""
    reference = build_reference_sam(TINY_ARCH, 128).image_encoder
    state = reference.state_dict()
    encoder = SAMImageEncoder(arch=TINY_ARCH, img_size=192)
    encoder.load_state_dict(state)
    # windowed blocks keep their tables, global ones have them for the new grid
    assert encoder.blocks[0].attn.rel_pos_h.shape == (5, 16)
    assert encoder.blocks[1].attn.rel_pos_h.shape == (23, 16)

    reference.pos_embed = torch.nn.Parameter(
        torch.nn.functional.interpolate(
            reference.pos_embed.permute(0, 3, 1, 2), size=(12, 12), mode='bicubic'
        ).permute(0, 2, 3, 1)
    )
    x = torch.randn(1, 3, 192, 192)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), reference(x), rtol=0, atol=1e-4)


def test_loading_another_img_size_leaves_the_callers_weights_alone():
    state = build_encoder(128).state_dict()
    shapes = {name: value.shape for name, value in state.items()}
    SAMImageEncoder(arch=TINY_ARCH, img_size=192).load_state_dict(state)
    assert {name: value.shape for name, value in state.items()} == shapes


def test_loading_works_below_another_module_and_after_a_copy():
    state = build_encoder(128).state_dict()
    holder = torch.nn.ModuleDict(dict(image_encoder=SAMImageEncoder(arch=TINY_ARCH, img_size=192)))
    prefixed = {f'image_encoder.{name}': value for name, value in state.items()}
    holder.load_state_dict(prefixed)
    copied = copy.deepcopy(holder)
    torch.nn.init.zeros_(copied['image_encoder'].pos_embed)
    copied.load_state_dict(prefixed)
    assert torch.equal(copied['image_encoder'].pos_embed, holder['image_encoder'].pos_embed)


def test_weights_of_another_width_are_refused():
    state = build_encoder(128).state_dict()
    wider = SAMImageEncoder(arch=dict(TINY_ARCH, embed_dim=96), img_size=192)
    with pytest.raises(RuntimeError, match='pos_embed'):
        wider.load_state_dict(state)


def test_another_input_size_at_run_time_is_as_loading_into_that_size():
    encoder = build_encoder(128)
    larger = SAMImageEncoder(arch=TINY_ARCH, img_size=192)
    larger.load_state_dict(encoder.state_dict())
    x = torch.randn(1, 3, 192, 192)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), larger(x), rtol=0, atol=1e-5)


def test_oblong_input_as_upstream():
    reference = build_reference_sam(TINY_ARCH, 128).image_encoder
    encoder = SAMImageEncoder(arch=TINY_ARCH, img_size=128)
    encoder.load_state_dict(reference.state_dict())
    reference.pos_embed = torch.nn.Parameter(
        torch.nn.functional.interpolate(
            reference.pos_embed.permute(0, 3, 1, 2), size=(5, 10), mode='bicubic'
        ).permute(0, 2, 3, 1)
    )
    x = torch.randn(2, 3, 80, 160)
    with torch.no_grad():
        out = encoder(x)
        assert out.shape == (2, 256, 5, 10)
        torch.testing.assert_close(out, reference(x), rtol=0, atol=1e-4)


def test_gradient_reaches_every_parameter_at_another_input_size():
    encoder = build_encoder(128)
    encoder(torch.randn(1, 3, 96, 160)).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    assert encoder.pos_embed.grad.abs().max() > 0
