"""The generated pages: layout, exact ground truth, and that the seed alone decides them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / 'tools' / 'dataset_converters'))

import make_stamps

SCRIPT = Path(make_stamps.__file__)
FILES = (
    'scans/scans/{}.png',
    'ground-truth-pixel/ground-truth-pixel/{}-px.png',
    'ground-truth-maps/ground-truth-maps/{}-gt.png',
    'info/info/{}.txt',
)
PAGES, WIDTH, HEIGHT = 40, 220, 311


def make(out, pages, *args, size=(WIDTH, HEIGHT)):
    options = ['--pages', pages, '--page-size', *size, *args]
    command = [sys.executable, str(SCRIPT), out.name, *map(str, options)]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return out


def paths(root, number):
    return [root / name.format(f'stampDS-{number:05d}') for name in FILES]


def read(root, number):
    """Scan (h, w, 3), ink and region as (h, w) bool, and the info text of a page."""
    scan, ink, region, info = paths(root, number)
    return (
        np.asarray(Image.open(scan)),
        np.asarray(Image.open(ink)) == 0,
        np.asarray(Image.open(region)) == 0,
        info.read_text(encoding='utf-8'),
    )


def components(region):
    """The (h, w) bool mask of each 8-connected component."""
    labels, number = ndimage.label(region, structure=np.ones((3, 3)))
    return [labels == k for k in range(1, number + 1)]


def box_shape(mask):
    ys, xs = np.nonzero(mask)
    return int(np.ptp(ys)) + 1, int(np.ptp(xs)) + 1


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    return make(tmp_path_factory.mktemp('stamps') / 'out', PAGES, '--seed', 3, '--workers', 2)


def test_files_and_their_formats(pages):
    expected = {path for n in range(1, PAGES + 1) for path in paths(pages, n)}
    assert {path for path in pages.rglob('*') if path.is_file()} == expected
    for number in range(1, PAGES + 1):
        scan, ink, region, _ = paths(pages, number)
        with Image.open(scan) as image:
            assert (image.mode, image.size) == ('RGB', (WIDTH, HEIGHT))
        for path in (ink, region):
            with Image.open(path) as image:
                assert (image.mode, image.size) == ('L', (WIDTH, HEIGHT))
                assert set(np.unique(np.asarray(image)).tolist()) <= {0, 255}


def test_every_ink_pixel_lies_in_a_region_and_every_region_has_ink(pages):
    for number in range(1, PAGES + 1):
        _, ink, region, _ = read(pages, number)
        assert not (ink & ~region).any(), number
        for stamp in components(region):
            assert (ink & stamp).sum() >= 0.05 * stamp.sum(), number


def test_the_info_file_counts_the_regions(pages):
    counts = []
    for number in range(1, PAGES + 1):
        _, _, region, info = read(pages, number)
        counts.append(int(re.search(r'^Number of stamps: (\d)$', info, re.MULTILINE)[1]))
        assert counts[-1] == len(components(region)), number
    assert min(counts) == 0
    assert max(counts) in (3, 4)
    assert len(set(counts)) >= 4


def test_all_kinds_of_stamps_occur(pages):
    text = ''.join(read(pages, n)[3] for n in range(1, PAGES + 1))
    shapes = set(', '.join(re.findall('Shapes: (.*)', text)).split(', ')) - {'none'}
    inks = set(', '.join(re.findall('Inks: (.*)', text)).split(', ')) - {'none'}
    assert shapes == {'round', 'oval', 'rectangular', 'textual'}
    assert inks == {'blue', 'red', 'violet', 'green', 'black', 'gray'}
    assert 'Overlap with printed text: yes' in text


def test_filling_the_box_is_no_solution(pages):
    stamps = [s for n in range(1, PAGES + 1) for s in components(read(pages, n)[2])]
    ious = [s.sum() / np.prod(box_shape(s)) for s in stamps]
    assert len(ious) > 30
    assert 0.65 <= np.mean(ious) <= 0.75


def test_ink_darkens_the_scan_where_the_ground_truth_says(pages):
    inside, beside, moved = [], [], []
    for number in range(1, PAGES + 1):
        scan, ink, region, _ = read(pages, number)
        gray = scan.mean(axis=2)
        inside += gray[ink].tolist()
        beside += gray[region & ~ndimage.binary_dilation(ink, iterations=2)].tolist()
        moved += gray[np.roll(ink, (4, 4), (0, 1)) & ~ink].tolist()
    assert np.mean(beside) - np.mean(inside) > 50
    assert np.mean(moved) - np.mean(inside) > 35  # a shift of 4 px breaks the alignment


@pytest.mark.parametrize('size', [(160, 226), (480, 679)])
def test_stamps_and_print_are_in_proportion_to_the_page(tmp_path, size):
    out = make(tmp_path / 'out', 6, '--seed', 5, size=size)
    sides, dark = [], []  # in page widths; the share of the light that print and stamps take
    for number in range(1, 7):
        scan, _, region, _ = read(out, number)
        gray = scan.mean(axis=2)
        dark.append(1 - gray.mean() / np.median(gray))
        for stamp in components(region):
            on_edge = stamp[0].any() or stamp[-1].any() or stamp[:, 0].any() or stamp[:, -1].any()
            if not on_edge:
                sides.append(max(box_shape(stamp)) / size[0])
    assert len(sides) >= 5
    assert min(sides) >= 0.12
    assert max(sides) <= 0.36
    assert 0.02 < np.mean(dark) < 0.08


def test_a_page_depends_on_seed_and_number_alone(pages, tmp_path):
    alone = make(tmp_path / 'alone', 3, '--seed', 3, '--workers', 1)
    other = make(tmp_path / 'other', 3, '--seed', 4, '--workers', 1)
    for number in (1, 2, 3):
        for ours, theirs in zip(paths(pages, number), paths(alone, number), strict=True):
            assert ours.read_bytes() == theirs.read_bytes(), theirs
        assert paths(pages, number)[0].read_bytes() != paths(other, number)[0].read_bytes()
    assert paths(alone, 1)[0].read_bytes() != paths(alone, 2)[0].read_bytes()


def test_uncompressed_scans_are_the_same_pixels(tmp_path):
    small = make(tmp_path / 'small', 3, '--seed', 3, '--workers', 1)
    large = make(tmp_path / 'large', 3, '--seed', 3, '--workers', 1, '--uncompressed')
    for path in sorted(small.rglob('*.*')):
        other = large / path.relative_to(small)
        if path.suffix == '.png':
            pixels = np.asarray(Image.open(path))
            assert np.array_equal(pixels, np.asarray(Image.open(other)))
            if path.parts[-2] == 'scans':
                assert other.stat().st_size > pixels.nbytes > path.stat().st_size
        else:
            assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ('args', 'code', 'named'),
    [
        (['full'], 3, 'full'),
        (['new', '--pages', '0'], 2, '--pages'),
        (['new', '--page-size', '100', '300'], 2, '--page-size'),
        (['new', '--workers', '0'], 2, '--workers'),
        (['new', '--seed', '-1'], 2, '--seed'),
        (['full/mine.txt/new'], 3, 'mine.txt'),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, args, code, named):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine.txt').write_text('keep')
    monkeypatch.chdir(tmp_path)
    assert make_stamps.main(args) == code
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert named in error
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['full', 'mine.txt']
