"""Writes the predictions of a validation or test as COCO results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric

from mmsam.atomic_file import write_text_atomically
from mmsam.errors import ConfigError
from mmsam.registry import METRICS
from mmsam.structures.coco_results import predictions_as_coco


@METRICS.register_module()
class PredictionExport(BaseMetric):
    """Write one COCO result per prompt into a JSON file; give no score.

    The file is a list in the order of the data set and of each image's prompts, for
    ``pycocotools.coco.COCO.loadRes``; ``predictions_as_coco`` says what an entry holds. Its
    ``image_id`` is the sample's ``img_id``, its ``category_id`` the data set's
    ``category_ids[label]`` if its metainfo has them, else ``label + 1``.

    Args:
        out_file: The file to write, ending with ``.json``; its folder is made.

    Raises:
        ConfigError: ``out_file`` does not end with ``.json``.
        StorageError: the file cannot be written.
    """

    default_prefix = 'export'

    def __init__(self, out_file: str) -> None:
        super().__init__(collect_device='gpu')  # by messages; see PromptedMaskMetric
        if Path(out_file).suffix != '.json':
            raise ConfigError(
                f'PredictionExport expects a file that ends with .json, got {out_file}.'
            )
        self.out_file = Path(out_file)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Turn each image's predictions into a list of COCO results.

        One entry of ``self.results`` is one image, an image without prompts included: the
        gathering over ranks counts entries to drop repeated images.
        """
        self.results.extend(self._results_of(data_sample) for data_sample in data_samples)

    def compute_metrics(self, results: list[list[dict[str, Any]]]) -> dict[str, float]:
        """Write the file (on the main rank, which alone is called) and return no scores."""
        entries = [entry for image_entries in results for entry in image_entries]
        write_text_atomically(self.out_file, json.dumps(entries))
        return {}

    def _results_of(self, data_sample: dict[str, Any]) -> list[dict[str, Any]]:
        category_ids = (self.dataset_meta or {}).get('category_ids')
        return predictions_as_coco(data_sample, data_sample['img_id'], category_ids)
