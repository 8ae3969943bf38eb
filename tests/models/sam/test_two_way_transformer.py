import pytest
import torch
from reference_sam import randomise
from segment_anything.modeling.transformer import TwoWayTransformer as UpstreamTransformer

from mmsam.models.sam.two_way_transformer import TwoWayTransformer


@pytest.fixture
def transformers() -> tuple[TwoWayTransformer, UpstreamTransformer]:
    reference = UpstreamTransformer(depth=2, embedding_dim=16, num_heads=2, mlp_dim=32)
    randomise(reference)
    ours = TwoWayTransformer(depth=2, embedding_dim=16, num_heads=2, mlp_dim=32)
    ours.load_state_dict(reference.state_dict())
    return ours, reference


def upstream_forward(reference, image_tokens, image_pe, tokens):
    """Upstream takes maps (P, C, h, w), one for each prompt."""
    maps = image_tokens.transpose(1, 2).unflatten(2, (2, 3))
    pe = image_pe.t().unflatten(1, (2, 3)).expand_as(maps)
    return reference(maps, pe, tokens)


@pytest.mark.parametrize('counts', [[2, 0, 1], [0, 3, 0], [1, 1, 1], None])
def test_as_upstream_with_a_copy_per_prompt(transformers, counts):
    ours, reference = transformers
    images = torch.randn(3, 6, 16, requires_grad=True)
    image_pe, tokens = torch.randn(6, 16), torch.randn(3, 5, 16, requires_grad=True)
    index = [0, 1, 2] if counts is None else [i for i, n in enumerate(counts) for _ in range(n)]
    expected = upstream_forward(reference, images[index], image_pe, tokens)
    outputs = ours(images, image_pe, tokens, counts)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=2e-5)

    weights = [torch.randn_like(out) for out in expected]
    grads = [
        torch.autograd.grad(
            sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True)),
            [images, tokens, *module.parameters()],
        )
        for outs, module in ((outputs, ours), (expected, reference))
    ]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)


def test_without_prompts(transformers):
    ours, _ = transformers
    tokens, keys = ours(torch.randn(2, 6, 16), torch.randn(6, 16), torch.zeros(0, 5, 16), [0, 0])
    assert tokens.shape == (0, 5, 16) and keys.shape == (0, 6, 16)


def test_many_prompts_in_half_precision(transformers):
    """Numbers of prompts above 2048 are not exact in float16, above 256 not in bfloat16."""
    ours, _ = transformers
    ours = ours.half()
    half = torch.float16
    tokens, keys = ours(
        torch.randn(1, 6, 16, dtype=half),
        torch.randn(6, 16, dtype=half),
        torch.randn(2049, 2, 16, dtype=half),
        [2049],
    )
    assert tokens.shape == (2049, 2, 16) and keys.shape == (2049, 6, 16)
