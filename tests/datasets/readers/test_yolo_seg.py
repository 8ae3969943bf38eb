import annotated_scenes as scenes
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures('quick_data_sets')

LABELS = 'labels/train'
SQUARE = '0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5'


def read(root, line=None, **changes):
    options = scenes.options(root, 'yolo_seg')
    if line is not None:
        path = root / LABELS / 'a.txt'
        path.write_bytes(line if isinstance(line, bytes) else f'{SQUARE}\n{line}\n'.encode())
    options['reader'].update(changes)
    return BoxPromptDataset(**options)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('2' + SQUARE[1:], "Line 2 of .*a.txt has the class '2': .* the 2 numbers 0, 1"),
        ('-1' + SQUARE[1:], "class '-1'"),
        ('cat' + SQUARE[1:], "class 'cat'"),
        ('0.0' + SQUARE[1:], "class '0.0'"),
        ('1 0.5 0.5 0.2 0.2', 'Line 2 of .*a box of YOLO: expected a polygon'),
        ('1 0.5 0.5 0.2 0.2 0.3', 'polygon of 5 numbers: expected x, y pairs'),
        ('1 nan 0.5 0.2 0.2 0.3 0.3', 'not finite'),
        ('1 inf 0.5 0.2 0.2 0.3 0.3', 'not finite'),
        ('1 1e9 0.5 0.2 0.2 0.3 0.3', r'point \(80000000000.0, 30.0\) far outside its image'),
        ('1 20 30 40 30 40 50', 'far outside its image, which is 80 wide and 60 high'),
        ('1 0.1 x 0.2 0.2 0.3 0.3', 'no list of numbers'),
        (b'\xff\xfe\x00', 'Cannot read label file .*a.txt'),
    ],
)
@pytest.mark.bad_input(20, 27, 28, 30, 39, 47)
def test_wrong_lines_are_named(tmp_path, line, message):
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, line)
    assert 'a.txt' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.bad_input(29, 32)
def test_what_has_no_pixels_is_left_out_and_the_rest_cut_off(tmp_path):
    lines = '\n1 0.1 0.1\n1 1.2 1.2 1.5 1.2 1.5 1.5\n1 0.5 0.5 1.5 0.5 1.5 1.5 0.5 1.5'
    assert read(tmp_path, lines)[0]['boxes'].tolist() == [[20, 15, 40, 30], [40, 30, 80, 60]]


def test_what_is_left_out_is_told_once_for_all_files(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmsam.datasets.readers.problems.print_log', lambda text, **options: lines.append(text)
    )
    options = scenes.options(tmp_path, 'yolo_seg')
    for name, line in (('a', '1 0.1 0.1\n1 0.2 0.2'), ('c', '1 0.3 0.3')):
        (tmp_path / LABELS / f'{name}.txt').write_text(f'{SQUARE}\n{line}\n')
    what = 'polygons with fewer than 3 points left out'
    BoxPromptDataset(**options)
    told = [line for line in lines if what in line]
    names = 'line 2 of a.txt, line 3 of a.txt, line 2 of c.txt'
    assert len(told) == 1 and told[0].startswith(f'{tmp_path / LABELS}: 3 {what} ({names})')
    lines.clear()
    dataset = BoxPromptDataset(**options, empty_images='keep')  # reads a file for each sample
    for index in (0, 2, 0, 2):
        dataset[index]
    told = [line for line in lines if what in line]
    assert len(told) == 1 and f'2 {what} (line 2 of a.txt, line 3 of a.txt)' in told[0]


def test_names_of_the_classes(tmp_path):
    options = scenes.options(tmp_path, 'yolo_seg')
    names = tmp_path / 'data.yaml'
    for text in (
        'names: [cat, dog]',
        'names: {1: dog, 0: cat}',
        '# x\nnc: 2\nnames:\n- cat\n- dog',
    ):
        names.write_text(text)
        dataset = BoxPromptDataset(**options)
        assert dataset.metainfo['classes'] == scenes.CLASSES
        assert dataset.metainfo['category_ids'] == (0, 1)
    for text in ('nc: 2', 'names: 3', 'names: {a: b}', '- x', 'names: [', '\x00'):
        names.write_text(text)
        with pytest.raises(DataError, match=r'data\.yaml'):
            BoxPromptDataset(**options)
    (tmp_path / LABELS / 'classes.txt').write_text('cat\ndog\n')
    options['reader']['names_file'] = f'{LABELS}/classes.txt'
    assert BoxPromptDataset(**options).metainfo['classes'] == scenes.CLASSES
    options['metainfo'] = dict(classes=('cat', 'cat'))
    with pytest.raises(ConfigError, match='must differ, got cat, cat'):
        BoxPromptDataset(**options)
    del options['metainfo']
    del options['reader']['names_file']
    with pytest.raises(ConfigError, match=r'needs names_file, such as data\.yaml, or metainfo'):
        BoxPromptDataset(**options)
    options['metainfo'] = dict(classes=('cat', 'dog'))
    assert BoxPromptDataset(**options)[0]['labels'].tolist() == [0, 1]
    options['metainfo'] = dict(classes=('cat',))
    with pytest.raises(DataError, match="class '1': expected one of the 1 numbers 0"):
        BoxPromptDataset(**options)


@pytest.mark.bad_input(37)
def test_label_files_without_an_image(tmp_path):
    options = scenes.options(tmp_path, 'yolo_seg')
    (tmp_path / 'images' / 'train' / 'c.jpg').unlink()
    with pytest.raises(DataError, match=r'1 label files in .* have no image in .*: .*c\.txt'):
        BoxPromptDataset(**options)


@pytest.mark.bad_input(1, 2)
def test_images_whose_size_cannot_be_read(tmp_path):
    options = scenes.options(tmp_path, 'yolo_seg')
    (tmp_path / 'images' / 'train' / 'a.jpg').write_bytes(b'<html>')
    with pytest.raises(DataError, match=r'Cannot read the size of image file .*a\.jpg'):
        BoxPromptDataset(**options)


def test_the_size_is_that_of_the_image(tmp_path):
    options = scenes.options(tmp_path, 'yolo_seg')
    Image.new('RGB', (160, 120)).save(tmp_path / 'images' / 'train' / 'a.jpg')
    sample = BoxPromptDataset(**options)[0]
    assert sample['boxes'].tolist() == [[2 * value for value in box] for box in scenes.BOXES['a']]
    assert mask_api.area(sample['rles'][0]) == 4 * scenes.masks('a')[0].sum()
