"""Predictions for one set of images, before and after, kept as COCO files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.dist import collect_results

from mmsam.atomic_file import write_text_atomically
from mmsam.geometry import Size
from mmsam.rgb_image import ImageReading
from mmsam.structures import SAMDataSample
from mmsam.structures.coco_results import predictions_as_coco, truth_as_coco
from mmsam.structures.rle import RLE

TRUTH_FILE, BEFORE_FILE, AFTER_FILE = 'truth.json', 'before.json', 'latest.json'


class ImageRecord(NamedTuple):
    """One image's objects as entries of COCO files, whose ``image_id`` is the image's path."""

    path: str
    size: Size
    """(H, W) in original px."""
    reading: ImageReading
    truth: list[dict[str, Any]]
    predictions: list[dict[str, Any]]


@dataclass
class ImagePredictions:
    """Masks of one image's K objects: true ones, and those that were predicted, if any."""

    path: str
    size: Size
    """(H, W) in original px, as of all masks."""
    reading: ImageReading
    truth: list[RLE] = field(default_factory=list)
    before: list[RLE] = field(default_factory=list)
    after: list[RLE] = field(default_factory=list)


class PredictionRecorder:
    """Collects what a model predicts in one pass through a data set, on all ranks.

    The data loader must keep the order of the data set (``DefaultSampler``, ``shuffle=False``).

    Args:
        metainfo: of the data set.
    """

    def __init__(self, metainfo: Mapping[str, Any]) -> None:
        self._category_ids = metainfo.get('category_ids')
        self._records: list[ImageRecord | None] = []

    def add(self, outputs: Sequence[Any] | None) -> None:
        """Keep a batch of ``SAMDataSample``s; what has no mask per true object is left out."""
        self._records += [self._record_of(output) for output in outputs or ()]

    def gather(self, size: int) -> list[ImageRecord]:
        """The records of all ranks, in the order of the data set; empty but on the main rank.

        To be called on all ranks.

        Args:
            size: number of images of the data set.
        """
        # 'gpu' gathers by messages, on CPUs too
        records = collect_results(self._records, size, device='gpu') or []
        return [record for record in records if record is not None]

    def _record_of(self, output: Any) -> ImageRecord | None:
        if not isinstance(output, SAMDataSample):
            return None
        sample = output.to_dict()
        truth, predicted = sample.get('gt_instances', {}), sample.get('pred_instances', {})
        if 'rles' not in truth or len(predicted.get('rles', ())) != len(truth['rles']):
            return None
        path = sample['img_path']
        return ImageRecord(
            path,
            sample['ori_shape'],
            sample.get('image_reading', ImageReading()),
            truth_as_coco(sample, path, self._category_ids),
            predictions_as_coco(sample, path, self._category_ids),
        )


def paired_predictions(
    before: Sequence[ImageRecord], after: Sequence[ImageRecord]
) -> dict[str, ImagePredictions]:
    """Two passes through the same data, by image path."""
    images: dict[str, ImagePredictions] = {}
    for first, second in zip(before, after, strict=True):
        image = images.setdefault(
            first.path, ImagePredictions(first.path, first.size, first.reading)
        )
        image.truth += map(_mask_of, first.truth)
        image.before += map(_mask_of, first.predictions)
        image.after += map(_mask_of, second.predictions)
    return images


def write_truth(folder: Path, records: Sequence[ImageRecord], metainfo: Mapping[str, Any]) -> None:
    """Write the true objects as a COCO data set.

    Args:
        folder: gets ``TRUTH_FILE``.
        records: of a pass through the data set.
        metainfo: of the data set.

    Raises:
        StorageError: the file cannot be written.
    """
    names = metainfo.get('classes') or ()
    category_ids = metainfo.get('category_ids') or range(1, len(names) + 1)
    objects = [entry for record in records for entry in record.truth]
    content = {
        'images': [
            {
                'id': path,
                'file_name': path,
                'height': record.size[0],
                'width': record.size[1],
                'reading': asdict(record.reading),
            }
            for path, record in {record.path: record for record in records}.items()
        ],
        'annotations': [{'id': number, **entry} for number, entry in enumerate(objects, start=1)],
        'categories': [
            {'id': number, 'name': name} for number, name in zip(category_ids, names, strict=True)
        ],
    }
    _write(folder / TRUTH_FILE, content)


def write_predictions(path: Path, records: Sequence[ImageRecord]) -> None:
    """Write the predictions as COCO results, for the data set of ``write_truth``.

    Raises:
        StorageError: the file cannot be written.
    """
    _write(path, [entry for record in records for entry in record.predictions])


def read_predictions(folder: Path) -> dict[str, ImagePredictions]:
    """What a folder holds, by image path; empty without the truth.

    Predictions that are missing, damaged or not one per true object count as none.
    """
    try:
        truth = json.loads((folder / TRUTH_FILE).read_text(encoding='utf-8'))
        images = {
            entry['id']: ImagePredictions(
                entry['file_name'],
                (entry['height'], entry['width']),
                ImageReading(**entry['reading']),
            )
            for entry in truth['images']
        }
        for entry in truth['annotations']:
            images[entry['image_id']].truth.append(_mask_of(entry))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    before = _masks_by_image(folder / BEFORE_FILE)
    after = _masks_by_image(folder / AFTER_FILE)
    for path, image in images.items():
        if len(before.get(path, ())) == len(image.truth):
            image.before = before.get(path, [])
        if len(after.get(path, ())) == len(image.truth):
            image.after = after.get(path, [])
    return images


def _mask_of(entry: dict[str, Any]) -> RLE:
    """The mask of an entry of a COCO file, its counts as bytes again."""
    segmentation = entry['segmentation']
    return {'size': segmentation['size'], 'counts': segmentation['counts'].encode('ascii')}


def _masks_by_image(path: Path) -> dict[str, list[RLE]]:
    masks: dict[str, list[RLE]] = {}
    try:
        for entry in json.loads(path.read_text(encoding='utf-8')):
            masks.setdefault(entry['image_id'], []).append(_mask_of(entry))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return masks


def _write(path: Path, content: Any) -> None:
    write_text_atomically(path, json.dumps(content, separators=(',', ':')))
