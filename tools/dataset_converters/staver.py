"""Convert the StaVer archive to COCO annotations with train, val and test splits.

    python tools/dataset_converters/staver.py SRC OUT [--object ink|region]
        [--val-ratio R] [--test-ratio R] [--seed S] [--workers N]

``SRC`` is the unpacked archive or its .zip, in the layout of ``staver_layout``: a page's files
lie in folders named ``scans``, ``ground-truth-pixel``, ``ground-truth-maps`` and ``info``,
however deep those are. ``make_stamps.py`` writes the same layout. Written are::

    OUT/images/<page>.png        hard links to the scans, copies where a link is impossible
                                 (another file system, a .zip)
    OUT/annotations_train.json   likewise _val and _test
    OUT/semantic_maps/<page>.png the same for mmseg's data sets: 0 background, 1 stamp
    OUT/train.txt                the pages of a split, one a line; likewise val and test
    OUT/report.json              what was converted and every page that is not as it should be

**Objects.** A pixel of a ground truth image counts as marked where its gray value is below 128
(ink and regions are dark, and some files have soft edges). Each 8-connected component of the
region map is one stamp. Components below 1/10000 of the page are specks: left out and reported.
The mask of a stamp is the ink inside its region, or with ``--object region`` the region itself.
``segmentation`` is compressed RLE, ``bbox`` is [x, y, w, h] of that mask in whole pixels with
the far edge exclusive, ``area`` its number of pixels.

**Pages.** A page without a stamp is listed without annotations. A page that lacks its scan or
a ground truth image (the archive holds some scans that were never annotated), or has one that
is damaged, of another size or marked nearly all over, is left out and reported. A page whose
info file is missing or counts other stamps than the region map is kept and reported.

**Splits.** A page's split follows from a hash of the seed and the page's name alone: with
u = SHA-256("<seed>/<page>") as a number in [0, 1), a page is test where u < test ratio, val
where u < test + val ratio, else train. Pages added later do not move the others. The shares
of the splits are therefore close to the ratios, not equal to them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils
from staver_layout import INFO, INK, PARTS, REGION, SCAN, Part

# The tool belongs to its checkout, whether or not the package is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmsam.errors import ConfigError, DataError, MMSAMError

SPLITS = ('train', 'val', 'test')
CATEGORY = {'id': 1, 'name': 'stamp'}
THRESHOLD = 128  # a ground truth pixel is marked where it is darker than this
SPECK_SHARE = 1e-4  # of the page; on A4 at 200 dpi a square of 2.5 mm
MOST_OF_PAGE = 0.6  # a map marked more than this is no map of stamps, or is inverted

File = Path | zipfile.Path
# What Pillow and zipfile raise on files that are not what they claim to be.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
# A key that means the number of stamps, once in lower case with letters and digits only:
# "stamps", "#stamps", "Number of stamps", "num_stamps", "stamp count", ...
COUNT_KEY = re.compile(r'(numberof|nrof|noof|number|num|nr|no|n)?stamps?(count|number)?')


@dataclass(frozen=True)
class Row:
    """One line of the report: a page, the kind of problem, and a sentence naming the file."""

    page: str
    problem: str
    detail: str


@dataclass
class Page:
    """The files of one page, as far as the archive has them."""

    name: str
    files: dict[Part, File] = field(default_factory=dict)


@dataclass(frozen=True)
class Converted:
    """What was written for a page.

    Attributes:
        size: (h, w) px.
        annotations: COCO annotations of its stamps, still without ids.
        placed: "hard link" or "copy", as ``place_image`` returns it.
    """

    size: tuple[int, int]
    annotations: list[dict]
    placed: str


@contextmanager
def open_archive(src: Path) -> Iterator[list[tuple[PurePosixPath, File]]]:
    """All files of a folder or a .zip, each with its path inside, in the order of the paths.

    Raises:
        DataError: ``src`` does not exist or is neither.
    """
    if src.is_dir():
        found = [(PurePosixPath(p.relative_to(src)), p) for p in src.rglob('*') if p.is_file()]
        yield sorted(found)
    elif src.is_file() and zipfile.is_zipfile(src):
        try:
            archive = zipfile.ZipFile(src)
        except zipfile.BadZipFile as error:
            raise DataError(f'{src} is a damaged .zip file ({error}).') from error
        with archive:
            names = sorted(i.filename for i in archive.infolist() if not i.is_dir())
            yield [(PurePosixPath(n), zipfile.Path(archive, n)) for n in names]
    else:
        found = 'something else' if src.exists() else 'nothing'
        raise DataError(f'expected a folder or a .zip file at {src}, found {found}.')


def find_pages(files: list[tuple[PurePosixPath, File]], src: Path) -> list[Page]:
    """The pages among ``files`` of ``src``, by name; the folder next to a file tells its kind.

    Raises:
        DataError: there is no scan at all, or two files claim to be the same part of a page.
    """
    pages: dict[str, Page] = {}
    for path, file in files:
        # Archives made on a Mac carry a hidden "._" companion of each file.
        if path.name.startswith('.'):
            continue
        for part in PARTS:
            if path.parent.name.lower() != part.folder:
                continue
            if not path.name.lower().endswith(part.suffix):
                continue
            name = path.name[: -len(part.suffix)]
            page = pages.setdefault(name.lower(), Page(name))
            if part in page.files:
                raise DataError(
                    f'page {name} has two files for {part.folder}, {page.files[part]} and {file}; '
                    'remove one of them.'
                )
            page.files[part] = file
            if part is SCAN:
                page.name = name
    if not any(SCAN in page.files for page in pages.values()):
        folders = ', '.join(part.folder for part in PARTS)
        raise DataError(
            f'expected the folders {folders} with a *{SCAN.suffix} in {SCAN.folder}, '
            f'found no scan in {src}.'
        )
    return [pages[key] for key in sorted(pages)]


def read_bytes(file: File) -> bytes:
    """The content of a file of the archive.

    Raises:
        DataError: it cannot be read, or a .zip holds it damaged.
    """
    try:
        return file.read_bytes()
    except DAMAGE as error:
        raise DataError(f'{file} cannot be read ({error}).') from error


def read_gray(file: File) -> np.ndarray:
    """An image as (h, w) uint8 gray, decoded to its end.

    Raises:
        DataError: the file is not a whole image.
    """
    data = read_bytes(file)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert('L'))
    except DAMAGE as error:
        raise DataError(f'{file} is not a whole image ({error}).') from error


def read_count(data: bytes) -> int | None:
    """The number of stamps an info file states, or None where it states none.

    Understood are lines ``key: value`` or ``key = value`` with a key such as ``Number of
    stamps``, ``stamps`` or ``#stamps``, and the archive's own form: a line of tab separated
    column names over a line of values, the count in a column of such a name, else the third.
    """
    # Keys and digits are ASCII, which every encoding in question keeps once NULs are dropped.
    text = data.decode('latin-1').replace('\0', '')
    lines = [line.strip() for line in re.split(r'[\r\n]+', text) if line.strip()]
    for line in lines:
        key, _, value = line.replace('=', ':', 1).partition(':')
        number = re.match(r'\s*(\d+)\b', value)
        if number and names_count(key):
            return int(number[1])
    if len(lines) >= 2:
        header, values = lines[0].split('\t'), lines[1].split('\t')
        column = next((k for k, name in enumerate(header) if names_count(name)), 2)
        if column < len(values) and re.fullmatch(r'\s*\d+\s*', values[column]):
            return int(values[column])
    return None


def names_count(key: str) -> bool:
    """Whether the key of an info file means the number of stamps."""
    return COUNT_KEY.fullmatch(re.sub(r'[^a-z0-9]', '', key.lower())) is not None


def check_count(page: Page, found: int, rows: list[Row]) -> None:
    """Report where the info file does not confirm that a page has ``found`` stamps."""
    if INFO not in page.files:
        rows.append(Row(page.name, 'info missing', 'no info file states the number of stamps.'))
        return
    try:
        count = read_count(read_bytes(page.files[INFO]))
    except DataError as error:
        rows.append(Row(page.name, 'info damaged', str(error)))
        return
    if count is None:
        detail = f'{page.files[INFO]} states no number of stamps.'
        rows.append(Row(page.name, 'count missing', detail))
    elif count != found:
        detail = f'{page.files[INFO]} states {count} stamp(s), the region map has {found}.'
        rows.append(Row(page.name, 'count differs', detail))


def find_stamps(page: Page, target: str, rows: list[Row]) -> np.ndarray | None:
    """The masks (K, h, w) bool of a page's K stamps, or None where it must be left out.

    Args:
        page: The files of the page.
        target: "ink" or "region".
        rows: The report; what is wrong with the page is appended.
    """

    def report(problem: str, detail: str) -> None:
        rows.append(Row(page.name, problem, detail))

    missing = [part.folder for part in (SCAN, INK, REGION) if part not in page.files]
    if missing:
        report('file missing', f'no file in {" and ".join(missing)}; page left out.')
        return None
    try:
        scan, ink_map, region_map = (read_gray(page.files[p]) for p in (SCAN, INK, REGION))
    except DataError as error:
        report('file damaged', f'{error} Page left out.')
        return None
    size = scan.shape
    ink, region = ink_map < THRESHOLD, region_map < THRESHOLD
    for part, marked in ((INK, ink), (REGION, region)):
        if marked.shape != size:
            report(
                'size differs',
                f'{page.files[part]} is {marked.shape} (h, w), its scan {size}; page left out.',
            )
            return None
        if marked.mean() > MOST_OF_PAGE:
            report(
                'map inverted',
                f'{page.files[part]} marks {marked.mean():.0%} of the page; page left out.',
            )
            return None

    number, labels, stats, _ = cv2.connectedComponentsWithStats(
        region.astype(np.uint8), connectivity=8
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    least = SPECK_SHARE * region.size
    stamps = [k for k in range(1, number) if areas[k] >= least]
    specks = number - 1 - len(stamps)
    if specks:
        report(
            'specks',
            f'{page.files[REGION]} has {specks} component(s) below {least:.0f} px; left out.',
        )
    stray = int((ink & (labels == 0)).sum())
    if stray >= least:
        report('ink outside', f'{page.files[INK]} has {stray} px of ink outside of all regions.')

    check_count(page, len(stamps), rows)

    masks = []
    for k in stamps:
        mask = labels == k
        if target == 'ink':
            mask &= ink
            if not mask.any():
                x, y = stats[k, cv2.CC_STAT_LEFT], stats[k, cv2.CC_STAT_TOP]
                report(
                    'region empty',
                    f'the region at x={x}, y={y} of {page.files[REGION]} holds no ink; left out.',
                )
                continue
        masks.append(mask)
    return np.array(masks, dtype=bool).reshape(-1, *size)


def split_of(page: str, seed: int, val_ratio: float, test_ratio: float) -> str:
    """The split of a page, from nothing but its name, the seed and the ratios."""
    digest = hashlib.sha256(f'{seed}/{page}'.encode()).digest()
    u = int.from_bytes(digest[:8], 'big') / 2**64
    if u < test_ratio:
        return 'test'
    return 'val' if u < test_ratio + val_ratio else 'train'


def annotate(mask: np.ndarray) -> dict:
    """The COCO annotation of a non-empty (h, w) bool mask, without ids."""
    ys, xs = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    x, y = int(xs[0]), int(ys[0])
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        'category_id': CATEGORY['id'],
        'bbox': [x, y, int(xs[-1]) + 1 - x, int(ys[-1]) + 1 - y],
        'area': int(mask.sum()),
        'segmentation': {'size': list(mask.shape), 'counts': rle['counts'].decode('ascii')},
        'iscrowd': 0,
    }


def place_image(file: File, path: Path) -> str:
    """Put a scan at ``path``; returns "hard link" or "copy", whichever it took."""
    path.unlink(missing_ok=True)  # else a copy would write through an old link into its source
    if isinstance(file, Path):
        try:
            os.link(file, path)
            return 'hard link'
        except OSError:
            shutil.copyfile(file, path)
    else:
        path.write_bytes(file.read_bytes())
    return 'copy'


def convert_page(page: Page, out: Path, target: str, rows: list[Row]) -> Converted | None:
    """Write image and semantic map of a page into ``out``; None where it must be left out.

    ``target`` and ``rows`` as in ``find_stamps``.
    """
    masks = find_stamps(page, target, rows)
    if masks is None:
        return None
    placed = place_image(page.files[SCAN], out / 'images' / f'{page.name}{SCAN.suffix}')
    semantic_map = masks.any(axis=0).astype(np.uint8) * CATEGORY['id']
    Image.fromarray(semantic_map).save(out / 'semantic_maps' / f'{page.name}.png')
    return Converted(masks.shape[1:], [annotate(mask) for mask in masks], placed)


def convert_pages(
    src: Path, out: Path, target: str, indexes: Sequence[int]
) -> list[tuple[list[Row], Converted | None]]:
    """Convert some pages of an archive, by their places among all its pages.

    Opens the archive for itself, so that processes can share the work.

    Returns:
        For each page its rows of the report and what ``convert_page`` returned.
    """
    results = []
    with open_archive(src) as files:
        pages = find_pages(files, src)
        for index in indexes:
            rows: list[Row] = []
            results.append((rows, convert_page(pages[index], out, target, rows)))
    return results


def convert(
    src: Path,
    out: Path,
    target: str,
    val_ratio: float,
    test_ratio: float,
    seed: int,
    workers: int = 1,
) -> dict:
    """Convert the archive ``src`` into ``out``; returns what is written to report.json.

    Args:
        src: the archive.
        out: folder to write.
        target: "ink" or "region".
        val_ratio, test_ratio: shares of the pages.
        seed: of the splits.
        workers: processes that share the pages; changes nothing in the result.

    Raises:
        ConfigError: the ratios are not shares that leave something to train on, or there is no
            worker.
        DataError: ``src`` is no such archive, no page of it can be used, or ``out`` cannot be
            written.
    """
    if min(val_ratio, test_ratio) < 0 or val_ratio + test_ratio >= 1:
        raise ConfigError(
            '--val-ratio and --test-ratio must be >= 0 and sum to less than 1, '
            f'got {val_ratio} and {test_ratio}.'
        )
    if workers < 1:
        raise ConfigError(f'--workers must be at least 1, got {workers}.')
    coco: dict[str, dict] = {
        split: {
            'info': {'description': f'StaVer, {split} split, the {target} of each stamp'},
            'images': [],
            'annotations': [],
            'categories': [CATEGORY],
        }
        for split in SPLITS
    }
    rows: list[Row] = []
    placed = {'hard link': 0, 'copy': 0}
    objects = 0
    with open_archive(src) as files:
        pages = find_pages(files, src)
    try:
        for folder in ('images', 'semantic_maps'):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'cannot make folders in {out}: {error.strerror}.') from error
    work = partial(convert_pages, src, out, target)
    if workers == 1:
        results = work(range(len(pages)))
    else:
        # smaller shares: all workers are done at the same time; larger ones: less is opened twice
        shares = np.array_split(np.arange(len(pages)), min(4 * workers, len(pages)))
        with multiprocessing.Pool(min(workers, len(shares))) as pool:
            results = sum(pool.imap(work, shares), [])
    for image_id, (page, (page_rows, converted)) in enumerate(zip(pages, results, strict=True), 1):
        rows += page_rows
        if converted is None:
            continue
        placed[converted.placed] += 1
        h, w = converted.size
        file_name = f'{page.name}{SCAN.suffix}'
        part = coco[split_of(page.name, seed, val_ratio, test_ratio)]
        part['images'].append({'id': image_id, 'file_name': file_name, 'width': w, 'height': h})
        for annotation in converted.annotations:
            objects += 1
            part['annotations'].append({'id': objects, 'image_id': image_id, **annotation})
    if not sum(placed.values()):
        raise DataError(f'no page of {src} can be used; {rows[0].page}: {rows[0].detail}')
    for split, ratio in (('val', val_ratio), ('test', test_ratio)):
        if ratio and not coco[split]['images']:
            rows.append(Row('-', 'split empty', f'no page fell to {split}; try another seed.'))
    for split in SPLITS:
        path = out / f'annotations_{split}.json'
        path.write_text(json.dumps(coco[split]) + '\n', encoding='utf-8')
        names = [f'{Path(image["file_name"]).stem}\n' for image in coco[split]['images']]
        (out / f'{split}.txt').write_text(''.join(names), encoding='utf-8')
    report = {
        'source': str(src),
        'object': target,
        'seed': seed,
        'val_ratio': val_ratio,
        'test_ratio': test_ratio,
        'pages_found': len(pages),
        'pages_left_out': len(pages) - sum(placed.values()),
        'images_hard_linked': placed['hard link'],
        'images_copied': placed['copy'],
        'splits': {
            split: {
                'images': len(coco[split]['images']),
                'annotations': len(coco[split]['annotations']),
            }
            for split in SPLITS
        },
        'rows': [asdict(row) for row in rows],
    }
    (out / 'report.json').write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    return report


def print_report(report: dict) -> None:
    """The report as two tables: the splits, and the pages that are not as they should be."""
    print(f'{"split":<8}{"images":>8}{"stamps":>8}')
    for split, counts in report['splits'].items():
        print(f'{split:<8}{counts["images"]:>8}{counts["annotations"]:>8}')
    print(
        f'images: {report["images_hard_linked"]} hard links, {report["images_copied"]} copies; '
        f'{report["pages_left_out"]} of {report["pages_found"]} pages left out'
    )
    if report['rows']:
        print(f'\n{"page":<18}{"problem":<16}detail')
    for row in report['rows']:
        print(f'{row["page"]:<18}{row["problem"]:<16}{row["detail"]}')


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', type=Path, metavar='SRC', help='the archive: folder or .zip')
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write')
    parser.add_argument(
        '--object', choices=('ink', 'region'), default='ink', help='what a mask covers (ink)'
    )
    parser.add_argument('--val-ratio', type=float, default=0.15, help='share of val pages (0.15)')
    parser.add_argument('--test-ratio', type=float, default=0.15, help='share of test pages (0.15)')
    parser.add_argument('--seed', type=int, default=0, help='of the splits (0)')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count() or 1, help='processes (one a CPU core)'
    )
    args = parser.parse_args(argv)
    try:
        report = convert(
            args.src,
            args.out,
            args.object,
            args.val_ratio,
            args.test_ratio,
            args.seed,
            args.workers,
        )
    except MMSAMError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    print_report(report)
    return 0


if __name__ == '__main__':
    sys.exit(main())
