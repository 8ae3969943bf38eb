"""Writes pictures of the predictions while a run validates or tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from mmsam.errors import ConfigError
from mmsam.geometry import scale_boxes, scale_points
from mmsam.registry import HOOKS
from mmsam.rgb_image import ImageReading
from mmsam.structures import SAMDataSample
from mmsam.visualization.original_image import read_original
from mmsam.visualization.prediction_picture import draw_prediction


@HOOKS.register_module()
class PromptedPictureHook(Hook):
    """Draw the first images of every validation, and those of a test if a folder is given.

    A validation writes ``WORK_DIR/pictures/iter_000400/0003_<image name>.png``; the one before
    training writes ``iter_000000``. A test writes the same file names into ``show_dir``. The
    number is the image's place in the data set: it keeps images of one name from different
    folders apart, and is the same on every rank, so that each rank draws its own images.

    The data loader must keep the order of the data set (``DefaultSampler``, ``shuffle=False``).

    Args:
        max_pictures: Draw the images before this place in the data set; None draws all.
        show_dir: Folder for the pictures of a test; None draws none in a test.

    Raises:
        ConfigError: The model's outputs are not ``SAMDataSample``s with predictions and truth.
        DataError: An image cannot be read, or its size is not that of its annotations.
    """

    priority = 'LOW'

    def __init__(self, max_pictures: int | None = 8, show_dir: str | None = None) -> None:
        if max_pictures is not None and max_pictures < 0:
            raise ConfigError(
                'PromptedPictureHook expects max_pictures to be 0 or more, or None for all '
                f'images, got {max_pictures}.'
            )
        self.max_pictures = max_pictures
        self.show_dir = show_dir
        self._seen = 0

    def before_val_epoch(self, runner: Runner) -> None:
        self._seen = 0

    def before_test_epoch(self, runner: Runner) -> None:
        self._seen = 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[SAMDataSample] | None = None,
    ) -> None:
        folder = Path(runner.work_dir) / 'pictures' / f'iter_{runner.iter:06d}'
        self._draw_batch(outputs or (), folder, len(runner.val_dataloader.dataset))

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[SAMDataSample] | None = None,
    ) -> None:
        if self.show_dir is not None:
            self._draw_batch(
                outputs or (), Path(self.show_dir), len(runner.test_dataloader.dataset)
            )

    def _draw_batch(
        self, data_samples: Sequence[SAMDataSample], folder: Path, dataset_size: int
    ) -> None:
        # Beyond the data set's end a distributed sampler repeats images of its beginning.
        limit = dataset_size if self.max_pictures is None else min(dataset_size, self.max_pictures)
        rank, world_size = get_dist_info()
        for data_sample in data_samples:
            # DefaultSampler deals the data set out to the ranks in turn.
            place = self._seen * world_size + rank
            self._seen += 1
            if place < limit:
                _write_picture(data_sample, folder, place)


def _write_picture(data_sample: SAMDataSample, folder: Path, place: int) -> None:
    if not (
        isinstance(data_sample, SAMDataSample)
        and 'rles' in data_sample.get('gt_instances', ())
        and 'rles' in data_sample.get('pred_instances', ())
    ):
        raise ConfigError(
            'PromptedPictureHook expects a model that returns SAMDataSamples with '
            'gt_instances.rles and pred_instances.rles, as SAMSegmentor does, got '
            f'{type(data_sample).__name__} without them.'
        )
    reading = data_sample.get('image_reading', ImageReading())
    image = read_original(data_sample.img_path, data_sample.ori_shape, reading)
    sizes = data_sample.img_shape, data_sample.ori_shape
    boxes = scale_boxes(data_sample.prompts.boxes, *sizes)
    points = data_sample.pred_instances.get('prompt_points')
    picture = draw_prediction(
        image,
        boxes.cpu().numpy(),
        data_sample.gt_instances.rles,
        data_sample.pred_instances.rles,
        None if points is None else scale_points(points, *sizes).cpu().numpy(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / f'{place:04d}_{Path(data_sample.img_path).stem}.png')
