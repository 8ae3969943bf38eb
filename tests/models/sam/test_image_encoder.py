import copy

import pytest
import torch
from reference_sam import build_reference_sam, randomise
from tiny_sam import TINY_ARCH

from mmsam.models.sam import SAMImageEncoder
from mmsam.models.sam.image_encoder import resize_pos_embed
from mmsam.models.sam.layers import LayerNorm2d


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


def calls_of_blocks(encoder: SAMImageEncoder) -> list[int]:
    """How often each block is called from now on."""
    calls = [0] * len(encoder.blocks)
    for index, block in enumerate(encoder.blocks):
        block.register_forward_pre_hook(
            lambda *_, index=index: calls.__setitem__(index, calls[index] + 1)
        )
    return calls


@pytest.mark.parametrize(
    ('with_cp', 'frozen_stages', 'expected'),
    [('global', -1, [1, 2]), (True, 1, [1, 2]), (True, 2, [1, 1])],
    ids=['global', 'behind frozen blocks', 'all blocks frozen'],
)
def test_which_blocks_are_recomputed(with_cp, frozen_stages, expected):
    """The second block of the tiny encoder is the global one."""
    encoder = build_encoder(with_cp=with_cp, frozen_stages=frozen_stages)
    calls = calls_of_blocks(encoder)
    encoder(torch.randn(1, 3, 128, 128)).sum().backward()
    assert calls == expected


def test_with_cp_of_global_blocks_changes_no_gradient():
    x = torch.randn(1, 3, 128, 128)
    gradients = []
    for with_cp in (False, 'global'):
        encoder = build_encoder(with_cp=with_cp)
        encoder(x).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def saved_for_backward(encoder: SAMImageEncoder) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = encoder(torch.ones(1, 3, 128, 128))
    assert out.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize('frozen_stages', [0, 1, 2])
@pytest.mark.trap(10)
def test_the_frozen_front(frozen_stages):
    """It stores nothing, stays in eval mode, and changes neither result nor other gradients."""
    free = build_encoder().train()
    frozen = build_encoder(frozen_stages=frozen_stages).train()
    trained = [name for name, p in frozen.named_parameters() if p.requires_grad]
    behind = tuple(f'blocks.{index}.' for index in range(frozen_stages, 2))
    assert trained == [n for n, _ in frozen.named_parameters() if n.startswith((*behind, 'neck.'))]
    modes = [frozen.patch_embed.training, *(block.training for block in frozen.blocks)]
    assert modes == [False, *(index >= frozen_stages for index in range(2))]
    for block in list(frozen.blocks)[:frozen_stages]:
        assert not any(module.training for module in block.modules())
    assert frozen.neck.training

    x = torch.randn(1, 3, 128, 128)
    outputs = [encoder(x) for encoder in (frozen, free)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    for out in outputs:
        out.square().sum().backward()
    of_free = dict(free.named_parameters())
    for name, parameter in frozen.named_parameters():
        if name in trained:
            torch.testing.assert_close(
                parameter.grad, of_free[name].grad, rtol=1e-3, atol=1e-3, msg=name
            )
        else:
            assert parameter.grad is None, name


def test_each_frozen_stage_stores_less():
    stored = [saved_for_backward(build_encoder(frozen_stages=stages)) for stages in (-1, 0, 1, 2)]
    assert stored[0] > stored[1] > stored[2] > stored[3]
    # of the neck: 48 channels in, 256 before and after the first and before the last norm, on 8 x 8
    # places, and the norms' means and deviations
    assert stored[3] <= 4 * 64 * (48 + 3 * 256 + 2 * 2)


@pytest.mark.trap(12)
def test_under_autocast_norms_sums_and_result_are_in_float32():
    encoder = build_encoder()
    x = torch.randn(1, 3, 128, 128)
    dtypes = []
    for module in encoder.modules():
        if isinstance(module, torch.nn.LayerNorm | LayerNorm2d):
            module.register_forward_hook(
                lambda module, args, out: dtypes.append((args[0].dtype, out.dtype))
            )
    with torch.no_grad():
        exact = encoder(x)
        dtypes.clear()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            rounded = encoder(x)
    assert dtypes == [(torch.float32, torch.float32)] * 6
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02


def test_compiled_blocks(monkeypatch):
    """Each block is what is compiled, and parameters keep their names."""
    compiled_calls = []

    def compile_it(function, **options):
        assert not options
        return lambda *args: compiled_calls.append(function.__self__) or function(*args)

    monkeypatch.setattr(torch, 'compile', compile_it)
    plain, compiled = build_encoder(), build_encoder(compile_blocks=True)
    x = torch.randn(1, 3, 128, 128)
    assert torch.equal(plain(x), compiled(x))
    assert compiled_calls == list(compiled.blocks)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize('with_cp', ['all', None, 2])
def test_unknown_with_cp(with_cp):
    with pytest.raises(ValueError, match="with_cp must be False, True or 'global', got"):
        SAMImageEncoder(arch=TINY_ARCH, img_size=128, with_cp=with_cp)


@pytest.mark.parametrize('stages', [-2, 3])
def test_frozen_stages_that_are_not_there(stages):
    with pytest.raises(ValueError, match=rf'frozen_stages must lie in -1\.\.2, .*, got {stages}'):
        SAMImageEncoder(arch=TINY_ARCH, img_size=128, frozen_stages=stages)


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
