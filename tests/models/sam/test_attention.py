import copy

import pytest
import torch
from reference_sam import randomise
from segment_anything.modeling import image_encoder as upstream
from segment_anything.modeling.image_encoder import get_rel_pos
from segment_anything.modeling.transformer import Attention

from mmsam.models.sam import attention as attention_module
from mmsam.models.sam.attention import (
    RelativePositionAttention,
    TokenImageAttention,
    resize_rel_pos,
    window_indices,
)


def naive_attention(attention: RelativePositionAttention, x: torch.Tensor) -> torch.Tensor:
    """The documented score of every pair of positions, one pair at a time."""
    batch, height, width, dim = x.shape
    heads, head_dim = attention.num_heads, dim // attention.num_heads
    qkv = attention.qkv(x).reshape(batch, height * width, 3, heads, head_dim)
    q, k, v = qkv.unbind(2)
    places = [(y, x) for y in range(height) for x in range(width)]
    rel_h = resize_rel_pos(attention.rel_pos_h, 2 * height - 1)
    rel_w = resize_rel_pos(attention.rel_pos_w, 2 * width - 1)
    scores = []
    for i, (y, x_) in enumerate(places):
        for j, (v_, u) in enumerate(places):
            bias = rel_h[y - v_ + height - 1] + rel_w[x_ - u + width - 1]
            scores.append((q[:, i] * (k[:, j] * head_dim**-0.5 + bias)).sum(-1))
    weights = torch.stack(scores, dim=-1).unflatten(-1, (len(places), -1)).softmax(-1)
    out = torch.einsum('bnij,bjnc->binc', weights, v).reshape(batch, height, width, dim)
    return attention.proj(out)


@pytest.fixture(params=['by chunks', 'folded'])
def way(request, monkeypatch) -> None:
    """Of a CPU, and of accelerators."""
    monkeypatch.setattr(
        attention_module, 'attends_by_chunks', lambda qkv: request.param == 'by chunks'
    )


BOTH_WAYS = pytest.mark.usefixtures('way')


@BOTH_WAYS
@pytest.mark.parametrize(
    ('built_for', 'size'),
    [((3, 3), (3, 3)), ((4, 2), (4, 2)), ((3, 3), (4, 2))],
    ids=['square', 'oblong', 'other-size-at-run-time'],
)
def test_relative_position_attention_is_the_documented_formula(built_for, size):
    attention = RelativePositionAttention(dim=12, num_heads=2, input_size=built_for)
    randomise(attention)
    parameters = list(attention.parameters())
    x = torch.randn(2, *size, 12, requires_grad=True)
    ours, expected = attention(x), naive_attention(attention, x)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)

    weight = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weight).sum(), [x, *parameters]),
        torch.autograd.grad((expected * weight).sum(), [x, *parameters]),
        rtol=1e-4,
        atol=1e-5,
    )
    with torch.no_grad():
        torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


class InWindows(torch.nn.Module):
    """Upstream's attention between its two steps of a windowed block."""

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        size = (window_size, window_size)
        self.attn = upstream.Attention(dim, num_heads, use_rel_pos=True, input_size=size)
        self.window_size = window_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows, padded_size = upstream.window_partition(x, self.window_size)
        size = (x.shape[1], x.shape[2])
        return upstream.window_unpartition(self.attn(windows), self.window_size, padded_size, size)


GRIDS = pytest.mark.parametrize('size', [(6, 3), (5, 3), (6, 4), (4, 5), (2, 2)], ids=str)
"""Maps for windows of 3: without padding, with padding below, beside, both; smaller than one."""


def pair_in_windows() -> tuple[RelativePositionAttention, InWindows]:
    reference = InWindows(dim=12, num_heads=2, window_size=3)
    randomise(reference)
    ours = RelativePositionAttention(12, 2, input_size=(8, 8), window_size=3)
    ours.load_state_dict(reference.attn.state_dict())
    return ours, reference


@BOTH_WAYS
@GRIDS
def test_in_windows_as_upstream_with_gradients(size):
    """What fills the windows up has keys and values, and their bias a gradient."""
    ours, reference = pair_in_windows()
    x = torch.randn(2, *size, 12, requires_grad=True)
    expected = reference(x)
    assert_same_with_gradients(ours(x), expected, (ours, reference.attn), [x])
    with torch.no_grad():
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)


@GRIDS
def test_windows_as_upstream(size):
    x = torch.randn(*size, 4)
    tokens, places = window_indices(size, (3, 3), torch.device('cpu'))
    filled = torch.cat([x.flatten(0, 1), torch.zeros(1, 4)])
    expected, _ = upstream.window_partition(x[None], 3)
    assert torch.equal(filled[tokens], expected.flatten(0, 2))
    assert torch.equal(filled[tokens][places], x.flatten(0, 1))


def test_only_the_map_is_projected():
    """And, for what fills the windows up, a single zero."""
    ours, _ = pair_in_windows()
    rows = {}
    for name in ('qkv', 'proj'):
        getattr(ours, name).register_forward_pre_hook(
            lambda module, args, name=name: rows.update({name: args[0].shape[:-1].numel()})
        )
    ours(torch.randn(2, 4, 5, 12))
    assert rows == dict(qkv=2 * (4 * 5 + 1), proj=2 * 4 * 5)


@pytest.mark.parametrize('at_once', [1, 4 * 20, 20 * 20, 2 * 20 * 20, 10**9], ids=str)
def test_chunks_change_nothing(at_once, monkeypatch):
    """Of rows, of heads, of maps, all at once: 3 maps of 4 x 5 places with 2 heads."""
    attention = RelativePositionAttention(12, 2, (4, 5))
    randomise(attention)
    x = torch.randn(3, 4, 5, 12, requires_grad=True)
    monkeypatch.setattr(attention_module, '_SCORES_AT_ONCE', at_once)
    assert_same_with_gradients(
        attention(x), naive_attention(attention, x), (attention, attention), [x]
    )
    with torch.no_grad():
        torch.testing.assert_close(
            attention(x), naive_attention(attention, x), rtol=1e-5, atol=1e-5
        )


def test_gradients_of_chunks_by_differences(monkeypatch):
    monkeypatch.setattr(attention_module, '_SCORES_AT_ONCE', 8)
    attention = RelativePositionAttention(4, 2, (2, 3)).double()
    randomise(attention)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    parameters = dict(attention.named_parameters())
    assert torch.autograd.gradcheck(
        lambda x, *values: torch.func.functional_call(
            attention, dict(zip(parameters, values, strict=True)), x
        ),
        (x, *parameters.values()),
    )


def without_gradient(attention, x, **autocast):
    with torch.no_grad(), torch.autocast('cpu', **autocast):
        return attention(x).float()


@pytest.mark.trap(12)
def test_bfloat16_of_a_cpu_adds_up_in_float32():
    """All values are equal, so the result is the sum of 400 weights, 1, times the value.

    The exponentials of equal scores would add up to 256 in bfloat16, not to 400.
    """
    attention = RelativePositionAttention(12, 2, (20, 20))
    randomise(attention)
    torch.nn.init.zeros_(attention.qkv.weight)
    torch.nn.init.zeros_(attention.rel_pos_h)
    torch.nn.init.zeros_(attention.rel_pos_w)
    x = torch.randn(1, 20, 20, 12)
    exact = without_gradient(attention, x, enabled=False)
    rounded = without_gradient(attention, x, dtype=torch.bfloat16)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)


def test_amx_leaves_bfloat16_to_the_fused_kernel(monkeypatch):
    ways = []
    for has_amx in (False, True):
        monkeypatch.setattr(attention_module, '_HAS_AMX', has_amx)
        for dtype in (torch.float32, torch.bfloat16):
            ways.append(attention_module.attends_by_chunks(torch.zeros(1, dtype=dtype)))
    assert ways == [True, True, True, False]
    assert not attention_module.attends_by_chunks(torch.zeros(1, device='meta'))


@BOTH_WAYS
def test_bfloat16_is_near_float32():
    ours, _ = pair_in_windows()
    x = torch.randn(2, 4, 5, 12)
    exact, gradient = of_training(ours, x, enabled=False)
    rounded, rounded_gradient = of_training(ours, x, dtype=torch.bfloat16)
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02
    assert 0 < (rounded_gradient - gradient).norm() / gradient.norm() < 0.02
    assert torch.equal(without_gradient(ours, x, dtype=torch.bfloat16), rounded)


def of_training(attention, x, **autocast):
    """The output, and the gradient of all parameters and of the input, in one row."""
    x = x.clone().requires_grad_()
    with torch.autocast('cpu', **autocast):
        out = attention(x).float()
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    gradients = torch.autograd.grad((out * weights).sum(), [x, *attention.parameters()])
    return out.detach(), torch.cat([gradient.flatten() for gradient in gradients])


@BOTH_WAYS
def test_what_is_kept_follows_size_and_dtype():
    ours, reference = pair_in_windows()
    for dtype in (torch.float32, torch.float64):
        ours, reference = ours.to(dtype), reference.to(dtype)
        for size in ((5, 3), (4, 5), (5, 3)):
            x = torch.randn(1, *size, 12, dtype=dtype)
            torch.testing.assert_close(ours(x), reference(x), rtol=1e-5, atol=1e-5)
    assert ours.state_dict().keys() == reference.attn.state_dict().keys()
    assert not list(ours.buffers())
    torch.testing.assert_close(copy.deepcopy(ours)(x), reference(x), rtol=1e-5, atol=1e-5)


def test_training_after_inference_mode():
    """What inference mode made and the module kept, autograd would refuse to save."""
    ours, _ = pair_in_windows()
    x = torch.randn(1, 4, 5, 12)
    with torch.inference_mode():
        ours(x)
    ours(x).sum().backward()
    assert ours.rel_pos_h.grad.abs().max() > 0


class LowRank(torch.nn.Module):
    """``qkv`` as LoRA wraps it; B is not 0, so that A has a gradient too."""

    def __init__(self, frozen: torch.nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.a = torch.nn.Parameter(torch.randn(2, frozen.in_features))
        self.b = torch.nn.Parameter(torch.randn(frozen.out_features, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + x @ self.a.t() @ self.b.t()


@BOTH_WAYS
@GRIDS
def test_qkv_wrapped_by_low_rank_matrices(size):
    """It is what merging the matrices into upstream's weight gives, and they get its gradient."""
    ours, reference = pair_in_windows()
    ours.qkv = LowRank(ours.qkv)
    ours, reference = ours.double(), reference.double()
    qkv = reference.attn.qkv
    qkv.weight.data += (ours.qkv.b @ ours.qkv.a).detach()
    x = torch.randn(2, *size, 12).double()
    out, expected = ours(x), reference(x)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(expected)
    a, b = ours.qkv.a, ours.qkv.b
    grad_a, grad_b = torch.autograd.grad((out * weight).sum(), [a, b])
    (grad,) = torch.autograd.grad((expected * weight).sum(), [qkv.weight])
    torch.testing.assert_close(grad_a, b.t() @ grad)
    torch.testing.assert_close(grad_b, grad @ a.t())


def test_qkv_that_is_not_zero_of_zero_only_by_its_bias():
    """What fills the windows up is ``qkv(0)``, whatever stands in place of ``qkv``."""
    ours, reference = pair_in_windows()

    class Shifted(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + torch.cos(x).repeat(1, 1, 3)

    ours.qkv = Shifted(ours.qkv)
    x = torch.randn(1, 4, 5, 12)
    reference.attn.qkv.register_forward_hook(
        lambda module, args, out: out + torch.cos(args[0]).repeat(1, 1, 1, 3)
    )
    torch.testing.assert_close(ours(x), reference(x), rtol=1e-5, atol=1e-5)


def test_resize_rel_pos_by_hand():
    rel_pos = torch.tensor([[0.0, 10.0], [1.0, 10.0]])
    # 2 to 4 entries, centres at -.25, .25, .75, 1.25: clamped, then linear
    expected = [[0.0, 10.0], [0.25, 10.0], [0.75, 10.0], [1.0, 10.0]]
    assert resize_rel_pos(rel_pos, 4).tolist() == expected
    assert resize_rel_pos(rel_pos, 2) is rel_pos


@pytest.mark.parametrize('size', [3, 8, 13])
def test_resize_rel_pos_as_upstream(size):
    rel_pos = torch.randn(2 * 8 - 1, 4)
    resized = resize_rel_pos(rel_pos, 2 * size - 1)
    table = get_rel_pos(size, size, rel_pos)  # [query, key]
    for query in range(size):
        for key in range(size):
            torch.testing.assert_close(resized[query - key + size - 1], table[query, key])


@pytest.fixture
def attentions() -> tuple[TokenImageAttention, Attention]:
    reference = Attention(embedding_dim=16, num_heads=2, downsample_rate=2)
    randomise(reference)
    ours = TokenImageAttention(embed_dim=16, num_heads=2, downsample_rate=2)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


def assert_same_with_gradients(ours, expected, modules, inputs):
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(expected)
    grads = [
        torch.autograd.grad((out * weight).sum(), [*inputs, *module.parameters()])
        for out, module in zip((ours, expected), modules, strict=True)
    ]
    # k_proj.bias shifts all scores of a row alike: its gradient is 0 but for rounding
    torch.testing.assert_close(*grads, rtol=1e-4, atol=2e-5)


def test_attention_between_tokens_as_upstream(attentions):
    ours, reference = attentions
    q, k, v = (torch.randn(3, n, 16, requires_grad=True) for n in (5, 4, 4))
    assert_same_with_gradients(ours(q, k, v), reference(q, k, v), attentions, [q, k, v])


COUNTS = [2, 0, 1]
IMAGE_OF_PROMPT = [0, 0, 2]


@pytest.mark.parametrize('shared', [True, False], ids=['image-per-image', 'image-per-prompt'])
def test_token_to_image_as_upstream(attentions, shared):
    ours, reference = attentions
    tokens = torch.randn(3, 5, 16, requires_grad=True)
    images = torch.randn(3, 7, 16, requires_grad=True)
    image_pe = torch.randn(7, 16)
    per_prompt = images[IMAGE_OF_PROMPT] if shared else images
    assert_same_with_gradients(
        ours.token_to_image(tokens, images, image_pe, COUNTS if shared else None),
        reference(q=tokens, k=per_prompt + image_pe, v=per_prompt),
        attentions,
        [tokens, images],
    )


@pytest.mark.parametrize('shared', [True, False], ids=['image-per-image', 'image-per-prompt'])
def test_image_to_token_as_upstream(attentions, shared):
    ours, reference = attentions
    norm = torch.nn.LayerNorm(16)
    randomise(norm)
    keys, values = (torch.randn(3, 5, 16, requires_grad=True) for _ in range(2))
    images = torch.randn(3, 7, 16, requires_grad=True)
    image_pe = torch.randn(7, 16)
    per_prompt = images[IMAGE_OF_PROMPT] if shared else images
    assert_same_with_gradients(
        ours.image_to_token(images, image_pe, keys, values, norm, COUNTS if shared else None),
        norm(per_prompt + reference(q=per_prompt + image_pe, k=keys, v=values)),
        attentions,
        [keys, values, images, *norm.parameters()],
    )


def test_heads_must_divide_the_inner_width():
    with pytest.raises(ValueError, match=r'num_heads 4 .* 6'):
        TokenImageAttention(embed_dim=12, num_heads=4, downsample_rate=2)
