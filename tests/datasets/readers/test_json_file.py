"""Damaged files of the readers that read JSON."""

import annotated_scenes as scenes
import pytest

from mmsam.datasets import BoxPromptDataset
from mmsam.errors import DataError

pytestmark = pytest.mark.usefixtures('quick_data_sets')

FILES = dict(
    coco='annotations.json', sa1b='images/a.json', labelme='json/a.json', label_studio='export.json'
)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda text: text[: len(text) // 2].encode(), 'is not valid JSON: .*char'),
        (lambda text: b'', 'is not valid JSON: .*char 0'),
        (lambda text: b'[' * 100_000, 'is not valid JSON'),
        (lambda text: text.encode('utf-16'), 'is not valid JSON: .*utf-8'),
        (lambda text: b'{}', 'is not '),
        (lambda text: b'3', 'is not '),
        (lambda text: text.replace('80', 'NaN', 1).encode(), r'is not valid JSON: .* has NaN, exp'),
        (lambda text: text.replace('80', '1' + '0' * 400).encode(), 'more than 178956970 pixels'),
        (lambda text: text.replace('80', '-Infinity').encode(), 'not valid JSON: .*has -Infinity'),
    ],
)
@pytest.mark.parametrize('form', FILES)
@pytest.mark.bad_input(38, 39, 40)
def test_damaged_files_are_named(tmp_path, form, change, message):
    options = scenes.options(tmp_path, form)
    path = tmp_path / FILES[form]
    path.write_bytes(change(path.read_text()))
    with pytest.raises(DataError, match=message) as error:
        BoxPromptDataset(**options)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('form', FILES)
@pytest.mark.bad_input(39)
def test_a_byte_order_mark_is_passed_over(tmp_path, form):
    options = scenes.options(tmp_path, form)
    path = tmp_path / FILES[form]
    path.write_text(path.read_text(), 'utf-8-sig')
    assert BoxPromptDataset(**options)[0]['boxes'].tolist() == scenes.BOXES['a']


@pytest.mark.parametrize('form', ['coco', 'label_studio'])
def test_a_missing_file(tmp_path, form):
    options = scenes.options(tmp_path, form)
    (tmp_path / FILES[form]).unlink()
    with pytest.raises(DataError, match=f'Cannot read .*{FILES[form]}'):
        BoxPromptDataset(**options)
