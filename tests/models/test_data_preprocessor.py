import pytest
import torch
from tiny_sam import make_sample

from mmsam.errors import DataError
from mmsam.models import SAMDataPreprocessor


def test_values_by_hand():
    preprocessor = SAMDataPreprocessor(image_size=4, mean=(10, 20, 30), std=(2, 4, 5))
    image = torch.tensor([14, 16, 255], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 3)
    out = preprocessor(dict(inputs=[image]))['inputs']
    assert out.shape == (1, 3, 4, 4) and out.dtype == torch.float32
    for channel, value in enumerate((2.0, -1.0, 45.0)):  # uint8 does not wrap below the mean
        assert (out[0, channel, :2, :3] == value).all()


@pytest.mark.trap(7)
def test_default_mean_and_deviation_are_those_of_rgb_imagenet():
    preprocessor = SAMDataPreprocessor(image_size=16)
    image = torch.stack([torch.full((16, 16), value) for value in (182, 116, 104)])
    out = preprocessor(dict(inputs=[image.to(torch.uint8)]))['inputs']
    expected = [(182 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375]
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor(expected))


@pytest.mark.trap(7)
def test_padding_is_zero_after_normalisation_right_and_bottom():
    preprocessor = SAMDataPreprocessor(image_size=32)
    images = [torch.full((3, 32, 20), 9, dtype=torch.uint8), torch.full((3, 8, 32), 9).byte()]
    out = preprocessor(dict(inputs=images))['inputs']
    assert (out[0, :, :, :20] != 0).all() and (out[0, :, :, 20:] == 0).all()
    assert (out[1, :, :8] != 0).all() and (out[1, :, 8:] == 0).all()


def test_samples_pass_unchanged():
    sample = make_sample((8, 16), [[1, 2, 3, 4]])
    data = SAMDataPreprocessor(image_size=16)(
        dict(inputs=[torch.zeros(3, 8, 16, dtype=torch.uint8)], data_samples=[sample])
    )
    (after,) = data['data_samples']
    assert after.img_shape == (8, 16)
    assert after.prompts.boxes.tolist() == [[1, 2, 3, 4]]  # coordinates do not move


@pytest.mark.parametrize('amp', [False, True])
def test_embeddings_take_the_place_of_images(amp):
    """In mixed precision too, whose autocast is on when a training prepares its data."""
    embeddings = [torch.full((2, 4, 4), value, dtype=torch.float16) for value in (1.5, -3)]
    samples = [make_sample((16, 16), []), make_sample((16, 12), [])]
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        data = SAMDataPreprocessor(image_size=64)(
            dict(image_embeddings=embeddings, data_samples=samples)
        )
    assert data.keys() == {'image_embeddings', 'data_samples'}
    found = data['image_embeddings']
    assert found.shape == (2, 2, 4, 4) and found.dtype == torch.float32
    assert (found[0] == 1.5).all() and (found[1] == -3).all()


def test_a_too_large_image_names_its_file():
    images = [torch.zeros(3, 16, 16).byte(), torch.zeros(3, 16, 17).byte()]
    samples = [make_sample((16, 16), []), make_sample((16, 17), [])]
    samples[1].set_metainfo(dict(img_path='scans/wide.png'))
    with pytest.raises(DataError, match=r'scans/wide\.png.*16 px.*16x17'):
        SAMDataPreprocessor(image_size=16)(dict(inputs=images, data_samples=samples))
    with pytest.raises(DataError, match='image 1 of the batch'):
        SAMDataPreprocessor(image_size=16)(dict(inputs=images))


def test_mean_and_deviation_are_no_part_of_the_state():
    preprocessor = SAMDataPreprocessor()
    assert preprocessor.state_dict() == {}
    assert {name for name, _ in preprocessor.named_buffers()} == {'mean', 'std'}


def test_an_unknown_option_fails_when_built():
    with pytest.raises(TypeError):
        SAMDataPreprocessor(image_sze=1024)
