import copy
import math

import pytest
import torch
from reference_sam import randomise
from torch._subclasses import FakeTensorMode

from mmsam.models.sam import SAMPromptEncoder


@pytest.fixture
def encoder() -> SAMPromptEncoder:
    torch.manual_seed(0)
    encoder = SAMPromptEncoder(embed_dim=8, image_size=64)
    randomise(encoder)
    return encoder


def position_by_hand(encoder: SAMPromptEncoder, x: float, y: float) -> torch.Tensor:
    """Sines, then cosines, of random frequencies of the px centre, in -1..1."""
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix.tolist()
    u, v = ((coord + 0.5) / 64 * 2 - 1 for coord in (x, y))
    angles = [2 * math.pi * (u * fx + v * fy) for fx, fy in zip(*matrix, strict=True)]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_box_by_hand(encoder):
    sparse, _ = encoder(boxes=torch.tensor([[3.0, 5.0, 20.0, 41.0]]))
    assert sparse.shape == (1, 2, 8)
    near, far = (encoder.point_embeddings[i].weight[0] for i in (2, 3))
    close(sparse[0, 0], position_by_hand(encoder, 3, 5) + near)
    close(sparse[0, 1], position_by_hand(encoder, 20, 41) + far)


def test_points_by_hand(encoder):
    coords = torch.tensor([[[3.0, 5.0], [20.0, 41.0], [7.0, 7.0]]])
    sparse, _ = encoder(points=(coords, torch.tensor([[1, 0, -1]])))
    background, foreground = (encoder.point_embeddings[i].weight[0] for i in (0, 1))
    nothing = encoder.not_a_point_embed.weight[0]
    assert sparse.shape == (1, 4, 8)
    close(sparse[0, 0], position_by_hand(encoder, 3, 5) + foreground)
    close(sparse[0, 1], position_by_hand(encoder, 20, 41) + background)
    close(sparse[0, 2], nothing)  # without a position
    close(sparse[0, 3], nothing)  # stands for the missing box


def test_points_stand_before_the_box_and_need_no_padding_with_it(encoder):
    boxes = torch.tensor([[3.0, 5.0, 20.0, 41.0]])
    points = (torch.tensor([[[9.0, 9.0]]]), torch.tensor([[1]]))
    both, _ = encoder(boxes=boxes, points=points)
    close(both, torch.cat([encoder(points=points)[0][:, :1], encoder(boxes=boxes)[0]], dim=1))


def test_dense_embedding_without_masks_is_shared(encoder):
    _, dense = encoder(boxes=torch.rand(3, 4) * 64)
    assert dense.shape == (1, 8, 4, 4)
    assert torch.equal(dense[0, :, 2, 3], encoder.no_mask_embed.weight[0])


def test_masks_give_a_dense_embedding_each(encoder):
    masks = torch.randn(3, 1, 16, 16)
    sparse, dense = encoder(masks=masks)
    assert sparse.shape == (3, 0, 8) and dense.shape == (3, 8, 4, 4)
    close(dense[1:2], encoder(masks=masks[1:2])[1])


def test_dense_positions_are_those_of_the_cells_centres(encoder):
    dense_pe = encoder.get_dense_pe()
    assert dense_pe.shape == (1, 8, 4, 4)
    # cell (row 1, column 3) of 16 px: centre (56, 24), which encode's +0.5 makes 55.5, 23.5
    close(dense_pe[0, :, 1, 3], position_by_hand(encoder, 55.5, 23.5))


def test_no_prompts_at_all_of_a_kind(encoder):
    sparse, dense = encoder(boxes=torch.zeros(0, 4))
    assert sparse.shape == (0, 2, 8) and dense.shape == (1, 8, 4, 4)


def test_positions_stay_in_float32_under_autocast(encoder):
    boxes = torch.rand(5, 4) * 64
    expected, _ = encoder(boxes=boxes)
    with torch.autocast('cpu', dtype=torch.float16):
        sparse, _ = encoder(boxes=boxes.half().float())
        exact, _ = encoder(boxes=boxes)
    assert exact.dtype == torch.float32
    assert torch.equal(exact, expected)
    assert not torch.equal(sparse, expected)  # so the comparison can see half precision


def test_without_any_prompt_it_raises(encoder):
    with pytest.raises(ValueError, match='common length'):
        encoder()


def test_different_numbers_of_prompts_raise(encoder):
    points = (torch.zeros(3, 1, 2), torch.ones(3, 1))
    with pytest.raises(ValueError, match='common length'):
        encoder(boxes=torch.zeros(2, 4), points=points)
    with pytest.raises(ValueError, match='common length'):
        encoder(boxes=torch.zeros(2, 4), masks=torch.zeros(1, 1, 16, 16))


@pytest.mark.parametrize('label', [2, 3, -2])
def test_box_corners_are_no_point_labels(encoder, label):
    with pytest.raises(ValueError, match=rf'-1, 0 or 1.*{label}'):
        encoder(points=(torch.zeros(1, 2, 2), torch.tensor([[1, label]])))


def test_the_grids_encoding_follows_its_frequencies(encoder):
    """Computed once, but never the one of other frequencies, wherever they came from."""
    first = encoder.get_dense_pe()
    assert encoder.get_dense_pe().data_ptr() == first.data_ptr()
    state = encoder.state_dict()
    matrix = state['pe_layer.positional_encoding_gaussian_matrix']
    encoder.load_state_dict(state | {'pe_layer.positional_encoding_gaussian_matrix': 2 * matrix})
    doubled = encoder.get_dense_pe()
    assert torch.equal(doubled, encoder.pe_layer(4)[None])
    assert not torch.equal(doubled, first)
    encoder.double()
    assert encoder.pe_layer.positional_encoding_gaussian_matrix.dtype == torch.float64
    copied = copy.deepcopy(encoder)
    copied.pe_layer.positional_encoding_gaussian_matrix.zero_()
    assert torch.equal(copied.get_dense_pe()[:, :4], torch.zeros(1, 4, 4, 4))
    assert torch.equal(encoder.get_dense_pe(), doubled)


def test_the_grids_encoding_of_an_inference_serves_a_training(encoder):
    with torch.inference_mode():
        encoder.get_dense_pe()
    weight = torch.ones((), requires_grad=True)
    (encoder.get_dense_pe() * weight).sum().backward()
    assert weight.grad.isfinite()
    other = SAMPromptEncoder(embed_dim=8, image_size=64)
    with FakeTensorMode(allow_non_fake_inputs=True):  # shapes without memory
        assert other.get_dense_pe().shape == (1, 8, 4, 4)
    assert type(other.get_dense_pe()) is torch.Tensor
