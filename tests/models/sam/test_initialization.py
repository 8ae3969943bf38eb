import pytest
import torch
from tiny_sam import segmentor_config

from mmsam.models.sam.initialization import translation_of_encoding
from mmsam.models.sam.prompt_encoder import PositionEmbeddingRandom
from mmsam.models.segmentors import SAMSegmentor
from mmsam.registry import MODELS


@pytest.fixture
def model() -> SAMSegmentor:
    torch.manual_seed(0)
    model = MODELS.build(segmentor_config(128, frozen=()))
    model.init_weights()
    return model.eval()


def test_a_translated_encoding_is_that_of_the_translated_place():
    torch.manual_seed(0)
    pe = PositionEmbeddingRandom(8)
    places, offset = torch.rand(5, 2), torch.tensor([0.07, -0.2])
    moved = pe.encode(places) @ translation_of_encoding(pe, offset).t()
    torch.testing.assert_close(moved, pe.encode(places + offset))


def test_the_first_self_attention_returns_its_tokens(model):
    corners = torch.tensor([[[20.0, 30.0, 70.0, 90.0]]]).reshape(1, 4)
    sparse, _ = model.prompt_encoder(boxes=corners)
    decoder = model.mask_decoder
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, sparse[0]])[None]
    returned = decoder.transformer.layers[0].self_attn(tokens, tokens, tokens)
    similarity = torch.cosine_similarity(returned, tokens, dim=-1)
    assert similarity.min() > 0.95
    untrained = MODELS.build(segmentor_config(128)).mask_decoder.transformer.layers[0].self_attn
    assert torch.cosine_similarity(untrained(tokens, tokens, tokens), tokens, dim=-1).max() < 0.5


def test_heads_look_in_all_directions(model):
    """The scores of a head, over all places of the image, are highest on one side of a corner."""
    pe = model.prompt_encoder.pe_layer
    grid = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 64)] * 2, indexing='xy'), dim=-1)
    corner = torch.tensor([0.5, 0.5])
    for layer in model.mask_decoder.transformer.layers:
        attention = layer.cross_attn_image_to_token
        queries = attention.q_proj(pe.encode(grid)).unflatten(-1, (8, -1))
        keys = attention.k_proj(pe.encode(corner)).unflatten(-1, (8, -1))
        scores = (queries * keys).sum(-1).flatten(0, 1)  # (places, heads)
        best = grid.flatten(0, 1)[scores.argmax(0)]  # of each head, (heads, 2)
        expected = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
        towards = torch.tensor(expected, dtype=torch.float32)
        offsets = corner - best  # where the head looks from there
        assert (torch.cosine_similarity(offsets, towards) > 0.99).all()
        torch.testing.assert_close(offsets.norm(dim=1), torch.full((8,), 0.15), atol=0.02, rtol=0)


def test_the_constant_of_all_places_starts_smaller_than_positions(model):
    constant = model.prompt_encoder.no_mask_embed.weight
    positions = model.prompt_encoder.get_dense_pe()
    assert 0.3 * positions.std() < constant.std() < 0.9 * positions.std()


def test_weights_of_an_init_cfg_go_first(tmp_path):
    config = segmentor_config(64)
    weights = MODELS.build(config).mask_decoder.state_dict()
    torch.save(weights, tmp_path / 'decoder.pth')
    config['mask_decoder']['init_cfg'] = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'decoder.pth')
    )
    model = MODELS.build(config)
    model.init_weights()
    loaded = model.mask_decoder.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())


def test_a_second_call_changes_nothing(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(before[key], v) for key, v in model.state_dict().items())
