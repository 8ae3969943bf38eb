import pytest
import torch
import torch.nn.functional as F

from mmsam.models.sam import image_token_functions
from mmsam.models.sam.image_token_functions import (
    attend_to_image,
    update_image_tokens,
    upscale_and_multiply,
)

NUM_PROMPTS, ROWS, HEADS, LENGTH, DIM = 4, 6, 2, 5, 3
COUNTS = {'image-per-image': [3, 0, 1], 'image-per-prompt': None}
IMAGE_OF_PROMPT = [0, 0, 0, 2]
# values of image tokens in a block, of which a prompt has 15
BLOCKS = {'part-of-a-prompt': 15, 'two-prompts': 30, 'all-prompts': 60}


@pytest.fixture(params=BLOCKS.values(), ids=BLOCKS)
def block_size(request, monkeypatch):
    monkeypatch.setattr(image_token_functions, 'CPU_BLOCK', request.param)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def attention_inputs(counts):
    images = NUM_PROMPTS if counts is None else len(counts)
    rows, constants = random(NUM_PROMPTS, ROWS, DIM), random(NUM_PROMPTS, ROWS)
    return rows, constants, random(images, LENGTH, DIM), random(LENGTH, DIM).detach()


def of_prompts(image_tokens, counts):
    return image_tokens if counts is None else image_tokens[IMAGE_OF_PROMPT]


@pytest.mark.usefixtures('block_size')
@pytest.mark.parametrize('counts', COUNTS.values(), ids=COUNTS)
def test_attend_to_image(counts):
    rows, constants, image_tokens, image_pe = attention_inputs(counts)
    tokens = of_prompts(image_tokens, counts)
    scores = torch.einsum('prc,pnc->prn', rows, tokens + image_pe) + constants[..., None]
    expected = torch.einsum('prn,pnc->prc', scores.softmax(-1), tokens)

    def function(*inputs):
        return attend_to_image(*inputs, image_pe, counts)

    torch.testing.assert_close(function(rows, constants, image_tokens), expected)
    assert torch.autograd.gradcheck(function, (rows, constants, image_tokens), fast_mode=True)


@pytest.mark.usefixtures('block_size')
@pytest.mark.parametrize('counts', COUNTS.values(), ids=COUNTS)
def test_update_image_tokens(counts):
    rows, constants, image_tokens, image_pe = attention_inputs(counts)
    values = random(NUM_PROMPTS, ROWS, DIM)
    norm = torch.nn.LayerNorm(DIM, eps=0.1, dtype=torch.float64)
    weight, bias = random(DIM), random(DIM)

    def function(rows, constants, values, image_tokens, weight, bias):
        norm.weight, norm.bias = None, None  # the checked tensors instead of parameters
        vars(norm).update(weight=weight, bias=bias)
        return update_image_tokens(
            rows, constants, values, HEADS, image_tokens, image_pe, norm, counts
        )

    tokens = of_prompts(image_tokens, counts)
    scores = torch.einsum('prc,pnc->prn', rows, tokens + image_pe) + constants[..., None]
    weights = torch.cat([part.softmax(1) for part in scores.chunk(HEADS, dim=1)], dim=1)
    total = tokens + torch.einsum('prn,prc->pnc', weights, values)
    expected = F.layer_norm(total, (DIM,), weight, bias, eps=0.1)
    inputs = rows, constants, values, image_tokens, weight, bias
    torch.testing.assert_close(function(*inputs), expected)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.usefixtures('block_size')
@pytest.mark.parametrize('num_masks', [1, 2])
def test_upscale_and_multiply(num_masks):
    first_cells, depth, second_cells, last_depth = 2, 3, 2, 2
    inputs = (
        random(NUM_PROMPTS, LENGTH, DIM),
        random(NUM_PROMPTS, num_masks, last_depth),
        random(DIM, first_cells * depth),
        random(first_cells * depth),
        random(depth),
        random(depth),
        random(depth, second_cells * last_depth),
        random(second_cells * last_depth),
    )

    def function(tokens, hyper_in, matrix, bias, norm_weight, norm_bias, matrix2, bias2):
        return upscale_and_multiply(
            tokens, hyper_in, (matrix, bias), (norm_weight, norm_bias), 0.1, (matrix2, bias2)
        )

    tokens, hyper_in, matrix, bias, norm_weight, norm_bias, matrix2, bias2 = inputs
    x = (tokens @ matrix + bias).reshape(NUM_PROMPTS, LENGTH, first_cells, depth)
    x = F.gelu(F.layer_norm(x, (depth,), norm_weight, norm_bias, eps=0.1))
    x = F.gelu(x @ matrix2 + bias2).reshape(NUM_PROMPTS, LENGTH, -1, last_depth)
    expected = torch.einsum('pme,pnke->pmnk', hyper_in, x)
    torch.testing.assert_close(function(*inputs), expected)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize('counts', COUNTS.values(), ids=COUNTS)
def test_in_autocast(counts):
    """bfloat16 inside, float32 gradients of float32 inputs, and what float32 gives but rounded."""
    rows, constants, image_tokens, image_pe = (x.detach().float() for x in attention_inputs(counts))
    norm, first, second = torch.nn.LayerNorm(DIM), torch.randn(DIM, 8), torch.randn(4, 6)
    results = []
    for is_on in (False, True):
        inputs = [x.clone().requires_grad_() for x in (rows, constants, image_tokens)]
        with torch.autocast('cpu', torch.bfloat16, enabled=is_on):
            context = attend_to_image(*inputs, image_pe, counts)
            updated = update_image_tokens(
                inputs[0], inputs[1], context, HEADS, inputs[2], image_pe, norm, counts
            )
            masks = upscale_and_multiply(
                updated,
                context,
                (first, torch.zeros(8)),
                (torch.ones(4), torch.zeros(4)),
                1e-6,
                (second, torch.zeros(6)),
            )
        assert masks.dtype == (torch.bfloat16 if is_on else torch.float32)
        masks.float().square().mean().backward()
        results.append([masks.float(), *(x.grad for x in inputs)])
    for exact, rounded in zip(*results, strict=True):
        assert rounded.dtype == torch.float32 and exact.abs().max() > 0
        assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_a_frozen_image_gets_no_gradient():
    rows, constants, image_tokens, image_pe = attention_inputs(None)
    image_tokens = image_tokens.detach()
    context = attend_to_image(rows, constants, image_tokens, image_pe, None)
    norm = torch.nn.LayerNorm(DIM, dtype=torch.float64)
    updated = update_image_tokens(
        rows, constants, context, HEADS, image_tokens, image_pe, norm, None
    )
    updated.square().sum().backward()
    assert image_tokens.grad is None and rows.grad.abs().max() > 0


def test_without_prompts():
    image_tokens, image_pe = torch.randn(2, LENGTH, DIM), torch.randn(LENGTH, DIM)
    rows = torch.zeros(0, ROWS, DIM, requires_grad=True)
    context = attend_to_image(rows, torch.zeros(0, ROWS), image_tokens, image_pe, [0, 0])
    updated = update_image_tokens(
        rows, rows[..., 0], context, HEADS, image_tokens, image_pe, torch.nn.LayerNorm(DIM), [0, 0]
    )
    assert context.shape == (0, ROWS, DIM) and updated.shape == (0, LENGTH, DIM)
    updated.sum().backward()
    assert rows.grad.shape == rows.shape
