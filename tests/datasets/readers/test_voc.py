import annotated_scenes as scenes
import numpy as np
import pytest
from PIL import Image

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import DataError

pytestmark = pytest.mark.usefixtures('quick_data_sets')


def painted(root, folder, change):
    options = scenes.options(root, 'voc')
    path = root / folder / 'a.png'
    mask = np.array(Image.open(path))
    scenes.save_palette(change(mask), path)
    return options


def value(old, new):
    return lambda mask: np.where(mask == old, new, mask).astype(np.uint8)


@pytest.mark.parametrize(
    ('folder', 'change', 'message'),
    [
        ('SegmentationClass', value(1, 0), 'Object 1 of .*a.png has the classes 0 in .*: expect'),
        ('SegmentationClass', value(1, 9), 'Object 1 of .* has the classes 9 .*one of 1, 2'),
        ('SegmentationClass', value(1, 255), 'Object 1 of .* has the classes none'),
        ('SegmentationObject', value(2, 1), 'Object 1 of .* has the classes 1, 2 in '),
        ('SegmentationClass', lambda mask: mask[1:], 'is 59x80 .*Object/a.png is 60x80: expected'),
    ],
)
@pytest.mark.bad_input(16, 20)
def test_masks_that_do_not_fit_together(tmp_path, folder, change, message):
    with pytest.raises(DataError, match=message):
        BoxPromptDataset(**painted(tmp_path, folder, change))


@pytest.mark.bad_input(18)
def test_edges_are_no_object(tmp_path):
    def border(mask):
        mask[mask == 1] = np.where(np.arange((mask == 1).sum()) < 20, 255, 1)
        return mask

    # the first row of the L is an edge in the objects, not in the classes
    options = painted(tmp_path, 'SegmentationObject', border)
    assert BoxPromptDataset(**options)[0]['boxes'].tolist() == [[10, 6, 30, 25], [40, 30, 70, 58]]


@pytest.mark.parametrize('folder', ['SegmentationObject', 'SegmentationClass'])
@pytest.mark.bad_input(15)
def test_files_that_are_missing_or_in_colours(tmp_path, folder):
    options = scenes.options(tmp_path, 'voc')
    path = tmp_path / folder / 'a.png'
    Image.open(path).convert('RGB').save(path)
    with pytest.raises(DataError, match=f'{folder}/a.png has mode RGB'):
        BoxPromptDataset(**options)
    path.unlink()
    with pytest.raises(
        DataError, match=f'1 of 3 images in .* have no annotation: .*{folder}/a.png'
    ):
        BoxPromptDataset(**options)


def test_names_and_split(tmp_path):
    options = scenes.options(tmp_path, 'voc')
    (tmp_path / 'ImageSets' / 'Segmentation' / 'train.txt').write_text('c\n')
    dataset = BoxPromptDataset(**options)
    assert len(dataset) == 1 and dataset.metainfo['category_ids'] == (1, 2)
    del options['reader']['names_file'], options['reader']['split']
    (tmp_path / 'SegmentationObject' / 'b.png').unlink()  # most of VOC's images have none
    dataset = BoxPromptDataset(**options, empty_images='keep')
    assert len(dataset) == 2
    assert [dataset.metainfo['classes'][label] for label in dataset[0]['labels']] == [
        'aeroplane', 'bicycle',
    ]  # fmt: skip
    assert len(dataset.metainfo['classes']) == 20
    dataset = BoxPromptDataset(**options, metainfo=dict(classes=('bicycle',)))
    assert dataset.metainfo['category_ids'] == (2,)
    assert dataset[0]['boxes'].tolist() == scenes.BOXES['a'][1:]
    options['reader']['object_dir'] = 'images'
    options['data_root'] = str(tmp_path / 'JPEGImages')
    with pytest.raises(DataError, match='images is no folder; check data_root and object_dir'):
        BoxPromptDataset(**options)
