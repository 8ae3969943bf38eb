"""A config that names the wrong format is told the right one."""

import annotated_scenes as scenes
import pytest

from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.readers import READERS
from mmsam.errors import DataError

pytestmark = pytest.mark.usefixtures('quick_data_sets')

WHERE = dict(
    coco='annotations.json', label_studio='export.json', labelme='json', sa1b='images',
    yolo_seg='labels/train', voc='SegmentationObject', davis='Annotations/480p',
    mask_folder='masks',
)  # fmt: skip
"""What a user of each format would give as the annotation."""


def guess(reader, path):
    if reader in ('coco', 'label_studio'):
        return dict(type=reader, ann_file=path)
    if reader == 'mask_folder':
        return dict(type=reader, mask_dir=path, kind='instance')
    return dict(type=reader) if reader == 'voc' else dict(type=reader, ann_dir=path)


@pytest.mark.parametrize('form', WHERE)
@pytest.mark.bad_input(38)
def test_wrong_guesses(tmp_path, form):
    options = scenes.options(tmp_path, form)
    for reader in READERS:
        if reader != form:
            with pytest.raises(DataError) as error:
                BoxPromptDataset(**options | dict(reader=guess(reader, WHERE[form])))
            text = str(error.value)
            assert f"use reader=dict(type='{form}') instead of '{reader}'." in text
            assert str(tmp_path) in text and '\n' not in text


def test_every_reader_is_guessed():
    assert set(WHERE) == set(READERS)


@pytest.mark.parametrize('name', ['file', 'folder'])
def test_what_is_unknown_gets_the_reader_s_own_sentence(tmp_path, name):
    options = scenes.options(tmp_path, 'coco')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').write_text('<html>')
    for reader, message in [
        ('coco', 'not valid JSON|Cannot read'),
        ('label_studio', 'not valid JSON|Cannot read'),
        ('labelme', 'has no json files; check data_root and ann_dir'),
        ('sa1b', '3 of 3 images in .* have no annotation'),
        ('yolo_seg', 'None of the 3 images in .* has a label file'),
        ('mask_folder', '3 of 3 images in .* have no annotation'),
    ]:
        with pytest.raises(DataError, match=message):
            BoxPromptDataset(**options | dict(reader=guess(reader, name)))
