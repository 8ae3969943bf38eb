import pytest
import torch
from reference_sam import MaskDecoder, TwoWayTransformer, randomise

from mmsam.models.sam import SAMMaskDecoder

DIM, GRID = 16, 4


@pytest.fixture
def decoder() -> SAMMaskDecoder:
    decoder = SAMMaskDecoder(
        transformer_dim=DIM,
        transformer_num_heads=2,
        transformer_mlp_dim=32,
        iou_head_hidden_dim=8,
    )
    randomise(decoder)
    return decoder


def make_inputs(batch: int, num_prompts: int, masks: bool = False) -> dict[str, torch.Tensor]:
    return dict(
        image_embeddings=torch.randn(batch, DIM, GRID, GRID),
        image_pe=torch.randn(1, DIM, GRID, GRID),
        sparse_embeddings=torch.randn(num_prompts, 2, DIM),
        dense_embeddings=torch.randn(num_prompts if masks else 1, DIM, GRID, GRID),
    )


@pytest.mark.parametrize('masks', [False, True], ids=['shared-dense', 'dense-per-prompt'])
def test_exact_in_float64_with_gradients(decoder, masks):
    """In float64, so that no tolerance hides a wrong term: masks and every gradient as upstream."""
    reference = MaskDecoder(
        transformer_dim=DIM,
        transformer=TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=2, mlp_dim=32),
        iou_head_hidden_dim=8,
    )
    reference.load_state_dict(decoder.state_dict())
    for module in (decoder, reference):
        module.double()
    inputs = {name: x.double().requires_grad_() for name, x in make_inputs(3, 3, masks).items()}
    image_pe = inputs['image_pe'].requires_grad_(False)
    index = [0, 0, 2]
    ours = decoder(**inputs, image_index=torch.tensor(index), multimask_output=True)
    dense = inputs['dense_embeddings'].expand(3, -1, -1, -1)
    one_by_one = [
        reference(
            image_embeddings=inputs['image_embeddings'][image : image + 1],
            image_pe=image_pe,
            sparse_prompt_embeddings=inputs['sparse_embeddings'][prompt : prompt + 1],
            dense_prompt_embeddings=dense[prompt : prompt + 1],
            multimask_output=True,
        )
        for prompt, image in enumerate(index)
    ]
    expected = [torch.cat(parts) for parts in zip(*one_by_one, strict=True)]
    torch.testing.assert_close(list(ours), expected, rtol=1e-10, atol=1e-10)

    weights = [torch.randn_like(part) for part in expected]
    wanted = [x for x in inputs.values() if x.requires_grad]
    grads = [
        torch.autograd.grad(
            sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True)),
            [*wanted, *module.parameters()],
        )
        for parts, module in ((ours, decoder), (expected, reference))
    ]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('masks', [False, True], ids=['shared-dense', 'dense-per-prompt'])
@pytest.mark.parametrize('index', [[0, 0, 0, 2, 3, 3], [0, 0], [1], [0, 1], [2, 2, 2]])
def test_ragged_equals_one_by_one(decoder, index, masks):
    """[0, 0] of two images: as many prompts as images says nothing about whose they are."""
    batch = max(index) + 1 + (index == [0, 0])
    inputs = make_inputs(batch, len(index), masks)
    with torch.no_grad():
        logits, iou = decoder(**inputs, image_index=torch.tensor(index), multimask_output=True)
        assert logits.shape == (len(index), 3, 16, 16)
        for prompt, image in enumerate(index):
            dense = inputs['dense_embeddings']
            one = decoder(
                inputs['image_embeddings'][image : image + 1],
                inputs['image_pe'],
                inputs['sparse_embeddings'][prompt : prompt + 1],
                dense[prompt : prompt + 1] if masks else dense,
                torch.tensor([0]),
                True,
            )
            torch.testing.assert_close(logits[prompt], one[0][0], rtol=0, atol=1e-5)
            torch.testing.assert_close(iou[prompt], one[1][0], rtol=0, atol=1e-5)


def test_prompts_out_of_order_raise(decoder):
    inputs = make_inputs(2, 3)
    with pytest.raises(ValueError, match='order'):
        decoder(**inputs, image_index=torch.tensor([0, 1, 0]), multimask_output=False)


@pytest.mark.parametrize('index', [[0, 2], [-1, 0]])
def test_prompts_of_an_unknown_image_raise(decoder, index):
    with pytest.raises(ValueError, match=r'in \[0, 2\), got'):
        decoder(**make_inputs(2, 2), image_index=torch.tensor(index), multimask_output=False)


def test_slots(decoder):
    """False gives slot 0, True slots 1 to 3, of masks and of IoU predictions alike."""
    with torch.no_grad():
        head = decoder.iou_prediction_head.layers[-1]
        head.weight.zero_()
        head.bias.copy_(torch.tensor([10.0, 11.0, 12.0, 13.0]))
        for mlp in decoder.output_hypernetworks_mlps[1:]:
            mlp.layers[-1].weight.zero_()
            mlp.layers[-1].bias.zero_()
        inputs = make_inputs(1, 2)
        index = torch.tensor([0, 0])
        logits, iou = decoder(**inputs, image_index=index, multimask_output=False)
        assert iou.tolist() == [[10.0], [10.0]]
        assert logits.shape == (2, 1, 16, 16) and (logits != 0).any()
        logits, iou = decoder(**inputs, image_index=index, multimask_output=True)
        assert iou.tolist() == [[11.0, 12.0, 13.0]] * 2
        assert logits.shape == (2, 3, 16, 16) and (logits == 0).all()


def test_upscaling_on_tokens_is_the_transposed_convolution(decoder):
    image_tokens, hyper_in = torch.randn(2, 2 * 3, DIM), torch.randn(2, 3, DIM // 8)
    ours = decoder._upscale_and_multiply(image_tokens, hyper_in, torch.Size((2, 3)))
    upscaled = decoder.output_upscaling(image_tokens.transpose(1, 2).unflatten(2, (2, 3)))
    expected = torch.einsum('pmc,pchw->pmhw', hyper_in, upscaled)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('num_prompts', [2, 0])
@pytest.mark.parametrize('multimask_output', [False, True])
def test_no_parameter_is_unused(decoder, num_prompts, multimask_output):
    """A distributed wrapper waits for the gradient of every parameter, used slot or not."""
    index = torch.zeros(num_prompts, dtype=torch.int64)
    logits, iou = decoder(
        **make_inputs(2, num_prompts), image_index=index, multimask_output=multimask_output
    )
    assert logits.shape == (num_prompts, 3 if multimask_output else 1, 16, 16)
    (logits.square().sum() + iou.square().sum()).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []
    has_gradient = bool(decoder.mask_tokens.weight.grad.abs().sum() > 0)
    assert has_gradient == (num_prompts > 0)


def test_an_image_without_prompts_gets_no_gradient(decoder):
    inputs = make_inputs(3, 2)
    embeddings = inputs['image_embeddings'].requires_grad_()
    logits, _ = decoder(**inputs, image_index=torch.tensor([0, 2]), multimask_output=False)
    logits.square().sum().backward()
    per_image = embeddings.grad.abs().amax(dim=(1, 2, 3))
    assert per_image[0] > 0 and per_image[1] == 0 and per_image[2] > 0
