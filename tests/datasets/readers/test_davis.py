import annotated_scenes as scenes
import numpy as np
import pytest
from PIL import Image

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures('quick_data_sets')

MASK = 'Annotations/480p/a/00000.png'
SPLIT = 'ImageSets/2017/train.txt'


def test_sequences_and_frames(tmp_path):
    options = scenes.options(tmp_path, 'davis')
    frame = tmp_path / 'JPEGImages' / '480p' / 'a' / '00000.jpg'
    Image.open(frame).save(frame.with_name('00001.jpg'))  # without a mask
    assert len(BoxPromptDataset(**options)) == 2
    (tmp_path / SPLIT).write_text('c\n')
    dataset = BoxPromptDataset(**options)
    assert [dataset[index]['img_id'] for index in range(len(dataset))] == ['c/00000']
    (tmp_path / SPLIT).write_text('c\nd\n')
    with pytest.raises(DataError, match=r'1 of 2 names in split .* are no sequence in .*480p: d'):
        BoxPromptDataset(**options)
    (tmp_path / SPLIT).unlink()
    with pytest.raises(DataError, match='Cannot read split'):
        BoxPromptDataset(**options)


@pytest.mark.bad_input(13)
def test_masks_without_an_image(tmp_path):
    options = scenes.options(tmp_path, 'davis')
    (tmp_path / 'JPEGImages' / '480p' / 'a' / '00000.jpg').unlink()
    with pytest.raises(
        DataError, match=r'1 masks in .* have no image in .*: .*a/00000\.png; check'
    ):
        BoxPromptDataset(**options)


@pytest.mark.bad_input(18)
def test_255_is_an_object_unless_it_is_said_not_to_be(tmp_path):
    options = scenes.options(tmp_path, 'davis')
    mask = scenes.ids('a')
    mask[0, 0] = 255
    scenes.save_palette(mask, tmp_path / MASK)
    assert BoxPromptDataset(**options)[0]['boxes'].tolist() == [*scenes.BOXES['a'], [0, 0, 1, 1]]
    options['reader']['ignore_index'] = 255
    assert BoxPromptDataset(**options)[0]['boxes'].tolist() == scenes.BOXES['a']


@pytest.mark.bad_input(16)
def test_a_mask_of_another_size_than_its_image(tmp_path):
    options = scenes.options(tmp_path, 'davis')
    scenes.save_palette(np.ones((30, 40), np.uint8), tmp_path / MASK)
    dataset = BoxPromptDataset(**options, pipeline=[dict(type='LoadSAMImage')])
    with pytest.raises(DataError, match=r'00000\.jpg is 60x80 .*00000\.png is for 30x40'):
        dataset[0]


@pytest.mark.bad_input(15)
def test_damaged_masks_are_named(tmp_path):
    options = scenes.options(tmp_path, 'davis')
    path = tmp_path / MASK
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r'a/00000\.png'):
        BoxPromptDataset(**options)
    Image.new('RGB', (80, 60)).save(path)
    with pytest.raises(DataError, match=r'a/00000\.png has mode RGB'):
        BoxPromptDataset(**options)


def test_one_class(tmp_path):
    options = scenes.options(tmp_path, 'davis')
    with pytest.raises(ConfigError, match='DAVIS knows one class'):
        BoxPromptDataset(**options, metainfo=dict(classes=('a', 'b')))
