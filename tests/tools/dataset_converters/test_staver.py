"""The converter on archives made by hand, page by page with known rectangles."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / 'tools' / 'dataset_converters'))

import make_stamps
import staver

from mmsam.errors import DataError

SCRIPT = Path(staver.__file__)
HEIGHT, WIDTH = 120, 90
UPPER = (slice(10, 30), slice(20, 60))  # regions, (rows, columns)
LOWER = (slice(70, 100), slice(5, 40))
ONE_LEVEL, TWO_LEVELS = '{0}/{1}', '{0}/{0}/{1}'


def blank(*marked):
    """A ground truth image: 255, and 0 in the given (rows, columns)."""
    image = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for where in marked:
        image[where] = 0
    return image


def ink_of_page_1():
    ink = blank((slice(12, 20), slice(25, 50)), (slice(80, 81), slice(10, 30)))
    ink[90, 39] = 0  # the last column of the lower region
    ink[5, 5] = 0  # not in any region
    return ink


def write_page(root, name, levels, ink, region, info, scan=None):
    """The four files of a page; None leaves a file out."""
    if scan is None:
        scan = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
    for folder, suffix, image in (
        ('scans', '', scan),
        ('ground-truth-pixel', '-px', ink),
        ('ground-truth-maps', '-gt', region),
    ):
        if image is not None:
            path = root / levels.format(folder, f'{name}{suffix}.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    if info is not None:
        path = root / levels.format('info', f'{name}.txt')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(info)


@pytest.fixture
def archive(tmp_path):
    """Makes the archive: two stamps, no stamp, and one stamp where the info file says two."""

    def make(levels=TWO_LEVELS):
        root = tmp_path / 'src'
        gray = blank(UPPER, LOWER)
        gray[9, 20:60] = 200  # the soft edge of a drawn region: too light to count
        gray[29, 20:60] = 100  # dark enough
        write_page(root, 'stampDS-00001', levels, ink_of_page_1(), gray, b'Number of stamps: 2\n')
        write_page(root, 'stampDS-00002', levels, blank(), blank(), b'stamps = 0')
        rgb = np.stack([blank(LOWER)] * 3, axis=2)
        write_page(root, 'stampDS-00003', levels, rgb, rgb, b'signature: no\r\nSTAMPS : 2\r\n')
        return root

    return make


def convert(src, out, target='ink', val=0.0, test=0.0, seed=0):
    report = staver.convert(src, out, target, val, test, seed)
    assert json.loads((out / 'report.json').read_text()) == report
    return report, json.loads((out / 'annotations_train.json').read_text())


def decode(annotation):
    assert isinstance(annotation['segmentation']['counts'], str)
    return mask_utils.decode(annotation['segmentation']).astype(bool)


def rows(report):
    return [(row['page'], row['problem']) for row in report['rows']]


def zipped(root, path):
    with zipfile.ZipFile(path, 'w') as archive:
        for file in root.rglob('*'):
            archive.write(file, Path('staver') / file.relative_to(root))
        archive.writestr('__MACOSX/scans/._stampDS-00001.png', b'no image')
    return path


@pytest.mark.parametrize('levels', [ONE_LEVEL, TWO_LEVELS])
@pytest.mark.parametrize('packed', [False, True])
def test_ink_of_each_region(archive, tmp_path, levels, packed):
    src = archive(levels)
    if packed:
        src = zipped(src, tmp_path / 'archive.zip')
    report, coco = convert(src, tmp_path / 'out')

    assert coco['categories'] == [{'id': 1, 'name': 'stamp'}]
    sizes = [(i['file_name'], i['width'], i['height']) for i in coco['images']]
    assert sizes == [(f'stampDS-0000{n}.png', 90, 120) for n in (1, 2, 3)]
    names = {image['id']: image['file_name'] for image in coco['images']}
    upper, lower, third = coco['annotations']
    pages = [names[a['image_id']] for a in coco['annotations']]
    assert pages == ['stampDS-00001.png', 'stampDS-00001.png', 'stampDS-00003.png']
    assert len({a['id'] for a in coco['annotations']}) == 3

    # By hand: columns 25..49 and rows 12..19; columns 10..39 and rows 80..90, 20 + 1 pixels.
    assert (upper['bbox'], upper['area']) == ([25, 12, 25, 8], 200)
    assert (lower['bbox'], lower['area']) == ([10, 80, 30, 11], 21)
    assert (third['bbox'], third['area']) == ([5, 70, 35, 30], 1050)
    ink = ink_of_page_1() == 0
    for annotation, where in ((upper, UPPER), (lower, LOWER)):
        expected = np.zeros((HEIGHT, WIDTH), bool)
        expected[where] = ink[where]
        np.testing.assert_array_equal(decode(annotation), expected)
        assert annotation['segmentation']['size'] == [120, 90]
        assert (annotation['category_id'], annotation['iscrowd']) == (1, 0)

    assert rows(report) == [('stampDS-00003', 'count differs')]
    detail = report['rows'][0]['detail']
    assert 'stampDS-00003.txt' in detail
    assert '2 stamp(s)' in detail
    assert 'has 1' in detail
    assert report['splits']['train'] == {'images': 3, 'annotations': 3}


def test_region_is_the_filled_outline(archive, tmp_path):
    _, coco = convert(archive(), tmp_path / 'out', target='region')
    for annotation, where in zip(coco['annotations'], (UPPER, LOWER, LOWER), strict=True):
        np.testing.assert_array_equal(decode(annotation), blank(where) == 0)
    assert [a['bbox'] for a in coco['annotations']] == [
        [20, 10, 40, 20],
        [5, 70, 35, 30],
        [5, 70, 35, 30],
    ]
    assert [a['area'] for a in coco['annotations']] == [800, 1050, 1050]


def test_semantic_maps_hold_the_masks_and_lists_name_the_pages(archive, tmp_path):
    convert(archive(), tmp_path / 'out', target='region')
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[10:30, 20:60] = expected[70:100, 5:40] = 1
    maps = tmp_path / 'out' / 'semantic_maps'
    with Image.open(maps / 'stampDS-00001.png') as image:
        np.testing.assert_array_equal(np.asarray(image), expected)
    with Image.open(maps / 'stampDS-00002.png') as image:
        assert not np.asarray(image).any()
    names = (tmp_path / 'out' / 'train.txt').read_text().split()
    assert names == ['stampDS-00001', 'stampDS-00002', 'stampDS-00003']
    assert (tmp_path / 'out' / 'val.txt').read_text() == ''


def test_the_annotations_load_with_pycocotools(archive, tmp_path):
    convert(archive(), tmp_path / 'out')
    coco = COCO(str(tmp_path / 'out' / 'annotations_train.json'))
    areas = [int(coco.annToMask(a).sum()) for a in coco.loadAnns(coco.getAnnIds())]
    assert areas == [200, 21, 1050]


def test_images_are_hard_links_and_a_second_run_spares_the_source(archive, tmp_path):
    src, out = archive(), tmp_path / 'out'
    report, _ = convert(src, out)
    scan = src / 'scans' / 'scans' / 'stampDS-00001.png'
    image = out / 'images' / 'stampDS-00001.png'
    assert os.path.samefile(scan, image)
    assert (report['images_hard_linked'], report['images_copied']) == (3, 0)

    content = scan.read_bytes()
    packed = zipped(src, tmp_path / 'archive.zip')
    report, _ = convert(packed, out)
    assert (report['images_hard_linked'], report['images_copied']) == (0, 3)
    assert not os.path.samefile(scan, image)
    assert scan.read_bytes() == image.read_bytes() == content


def test_where_a_link_is_impossible_the_image_is_copied(archive, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError('other file system')

    monkeypatch.setattr(os, 'link', refuse)
    src = archive()
    report, _ = convert(src, tmp_path / 'out')
    assert (report['images_hard_linked'], report['images_copied']) == (0, 3)
    image = tmp_path / 'out' / 'images' / 'stampDS-00002.png'
    assert image.read_bytes() == (src / 'scans' / 'scans' / 'stampDS-00002.png').read_bytes()


def test_specks_stray_ink_and_regions_without_ink_are_reported(tmp_path):
    root = tmp_path / 'src'
    region = blank(UPPER, LOWER)
    region[110, 80] = 0  # 1 px of 10800 is below 1/10000
    write_page(root, 'a', TWO_LEVELS, blank(LOWER, (slice(0, 1), slice(0, 7))), region, b'stamps:2')
    report, coco = convert(root, tmp_path / 'out')
    assert rows(report) == [('a', 'specks'), ('a', 'ink outside'), ('a', 'region empty')]
    assert ' 7 px' in report['rows'][1]['detail']
    assert 'x=20, y=10' in report['rows'][2]['detail']
    assert [a['bbox'] for a in coco['annotations']] == [[5, 70, 35, 30]]


def test_regions_that_touch_by_a_corner_are_one_stamp(tmp_path):
    corner = blank((slice(10, 20), slice(10, 20)), (slice(20, 30), slice(20, 30)))
    write_page(tmp_path / 'src', 'a', TWO_LEVELS, corner, corner, b'stamps: 1')
    report, coco = convert(tmp_path / 'src', tmp_path / 'out')
    assert rows(report) == []
    assert [a['area'] for a in coco['annotations']] == [200]


def test_unusable_pages_are_left_out_and_named(archive, tmp_path):
    src = archive()
    marks = blank(LOWER)
    write_page(src, 'b-no-map', TWO_LEVELS, marks, None, b'stamps: 1')
    write_page(src, 'c-no-truth', TWO_LEVELS, None, None, None)
    write_page(src, 'd-small-ink', TWO_LEVELS, marks[:-1], marks, b'stamps: 1')
    write_page(src, 'e-inverted', TWO_LEVELS, marks, 255 - marks, b'stamps: 1')
    write_page(src, 'f-cut', TWO_LEVELS, marks, marks, b'stamps: 1')
    cut = src / 'ground-truth-maps' / 'ground-truth-maps' / 'f-cut-gt.png'
    cut.write_bytes(cut.read_bytes()[:-60])
    write_page(src, 'g-no-scan', TWO_LEVELS, marks, marks, b'stamps: 1')
    (src / 'scans' / 'scans' / 'g-no-scan.png').unlink()
    write_page(src, 'h-no-info', TWO_LEVELS, marks, marks, None)
    write_page(src, 'i-no-count', TWO_LEVELS, marks, marks, b'signature: yes')

    report, coco = convert(src, tmp_path / 'out')
    assert rows(report) == [
        ('b-no-map', 'file missing'),
        ('c-no-truth', 'file missing'),
        ('d-small-ink', 'size differs'),
        ('e-inverted', 'map inverted'),
        ('f-cut', 'file damaged'),
        ('g-no-scan', 'file missing'),
        ('h-no-info', 'info missing'),
        ('i-no-count', 'count missing'),
        ('stampDS-00003', 'count differs'),
    ]
    details = [row['detail'] for row in report['rows']]
    assert 'ground-truth-maps' in details[0]
    assert 'ground-truth-pixel' not in details[0]
    assert 'd-small-ink-px.png' in details[2]
    assert '(119, 90)' in details[2]
    assert 'f-cut-gt.png' in details[4]
    assert 'scans' in details[5]
    kept = ['h-no-info', 'i-no-count', 'stampDS-00001', 'stampDS-00002', 'stampDS-00003']
    assert [i['file_name'] for i in coco['images']] == [f'{name}.png' for name in kept]
    assert {p.name for p in (tmp_path / 'out' / 'images').iterdir()} == {f'{n}.png' for n in kept}
    assert report['pages_left_out'] == 6


@pytest.mark.parametrize(
    ('data', 'count'),
    [
        (b'Number of stamps: 2', 2),
        (b'stamps: 2', 2),
        (b'#stamps = 2', 2),
        (b'  NUMBER_OF_STAMPS:2 ', 2),
        (b'signature: yes\r\nNumStamps = 10\r\n', 10),
        (b'name: \xe4\xf6\nstamp count: 0\n', 0),
        ('Größe: 3\nNumber of stamps: 1'.encode('utf-16'), 1),
        ('\ufeffStamps: 4'.encode(), 4),
        (b'signature\ttextOverlap\tnumStamps\tbwStamp\n1\t0\t3\t1\n', 3),
        (b'numStamps\tsignature\tother\n2\t0\t1\n', 2),
        (b'a\tb\tc\td\n0\t1\t2\t0\n', 2),  # no known name: the third column
        (b'Stamped on: 2009\nstamp colour: 3\n', None),
        (b'stamps: some', None),
        (b'', None),
        (bytes(range(256)), None),
    ],
)
def test_number_of_stamps_in_an_info_file(data, count):
    assert staver.read_count(data) == count


@pytest.mark.parametrize('packed', [False, True])
def test_workers_change_nothing(archive, tmp_path, packed):
    src = archive()
    for number in range(4, 12):
        gray = blank(UPPER) if number % 3 else None
        write_page(src, f'stampDS-{number:05d}', TWO_LEVELS, blank(UPPER), gray, b'stamps: 1')
    if packed:
        src = zipped(src, tmp_path / 'archive.zip')
    contents = []
    for workers in (1, 3):
        out = tmp_path / f'out{workers}'
        staver.convert(src, out, 'ink', 0.3, 0.2, 0, workers)
        files = [path for path in sorted(out.rglob('*')) if path.is_file()]
        contents.append({path.relative_to(out): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2 * (3 + 6) + 3 + 3 + 1  # page 6 and 9 have no region map


def test_splits_follow_the_ratios_and_stay_when_pages_are_added(tmp_path):
    def splits(pages, out, seed=0):
        staver.convert(pages, out, 'ink', 0.3, 0.3, seed)
        found = {}
        for split in ('train', 'val', 'test'):
            coco = json.loads((out / f'annotations_{split}.json').read_text())
            assert {a['image_id'] for a in coco['annotations']} <= {i['id'] for i in coco['images']}
            found |= {i['file_name']: split for i in coco['images']}
        return found

    src = tmp_path / 'src'
    for number in range(20, 30):
        write_page(src, f'p{number}', ONE_LEVEL, blank(UPPER), blank(UPPER), b'stamps: 1')
    few = splits(src, tmp_path / 'few')
    for number in range(60):
        write_page(src, f'p{number}', ONE_LEVEL, blank(UPPER), blank(UPPER), b'stamps: 1')
    many = splits(src, tmp_path / 'many')
    assert len(few) == 10
    assert len(many) == 60
    assert few.items() <= many.items()
    counts = [list(many.values()).count(split) for split in ('train', 'val', 'test')]
    assert min(counts) >= 10  # of 24, 18 and 18 expected
    assert splits(src, tmp_path / 'other', seed=1) != many


def test_a_split_without_a_page_is_reported(archive, tmp_path):
    report, _ = convert(archive(), tmp_path / 'out', val=1e-9)
    assert ('-', 'split empty') in rows(report)
    coco = json.loads((tmp_path / 'out' / 'annotations_val.json').read_text())
    assert coco['images'] == []


def test_two_files_for_one_part_are_an_error_naming_both(archive, tmp_path):
    src = archive(TWO_LEVELS)
    archive(ONE_LEVEL)
    with pytest.raises(DataError, match='stampDS-00001.* two files .*ground-truth-maps'):
        convert(src, tmp_path / 'out')


def test_command_line_prints_the_tables(archive, tmp_path):
    archive()
    options = ['--object', 'region', '--val-ratio', '0', '--seed', '7']
    command = [sys.executable, str(SCRIPT), 'src', 'out', *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 'stampDS-00003     count differs' in done.stdout
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert (report['object'], report['val_ratio'], report['seed']) == ('region', 0.0, 7)


@pytest.mark.parametrize(
    ('args', 'code', 'named'),
    [
        (['nowhere', 'out'], 3, 'nowhere'),
        (['empty', 'out'], 3, 'scans'),
        (['bad.zip', 'out'], 3, 'bad.zip'),
        (['bare', 'out'], 3, 'ground-truth-pixel'),
        (['bare', 'out', '--val-ratio', '0.5', '--test-ratio', '0.5'], 2, '--val-ratio'),
        (['bare', 'out', '--workers', '0'], 2, '--workers'),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, args, code, named):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'bad.zip').write_bytes(b'PK no archive')
    write_page(tmp_path / 'bare', 'a', TWO_LEVELS, None, None, None)
    monkeypatch.chdir(tmp_path)
    assert staver.main(args) == code
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert named in error
    assert len(error.splitlines()) == 1


def test_generated_pages_convert_without_a_word(tmp_path):
    make_stamps.make_stamps(tmp_path / 'src', 8, 11, (200, 283), 1)
    stated = sum(
        int(path.read_text().splitlines()[0].removeprefix('Number of stamps: '))
        for path in (tmp_path / 'src' / 'info' / 'info').iterdir()
    )
    report, coco = convert(tmp_path / 'src', tmp_path / 'out')
    assert report['rows'] == []
    assert report['splits']['train'] == {'images': 8, 'annotations': stated}
    assert stated == len(coco['annotations']) > 5
