import pytest
import torch
from reference_sam import randomise
from segment_anything.modeling.image_encoder import get_rel_pos
from segment_anything.modeling.transformer import Attention

from mmsam.models.sam.attention import (
    RelativePositionAttention,
    TokenImageAttention,
    resize_rel_pos,
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
