"""From a collated batch of images to what the image encoder takes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor

from mmsam.errors import DataError
from mmsam.registry import MODELS


@MODELS.register_module()
class SAMDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the device, normalise it and pad it to SAM's square.

    Takes ``dict(inputs=[(3, h, w) uint8 RGB, input px], data_samples=[SAMDataSample])`` and gives
    the same with ``inputs`` (B, 3, S, S) float32, padded px. The padding is 0 *after*
    normalisation. Images with ``tiles`` stay as they are: the model cuts them into tiles and calls
    this for each. In place of ``inputs`` there may be ``image_embeddings``, B of (C, S/16, S/16)
    float16, which become one (B, C, S/16, S/16) float32. Mean and deviation are no part of the
    state dict, as in upstream.

    Source: segment_anything/modeling/sam.py @ 6fdee8f, ``preprocess``.

    Args:
        image_size: side S of the square, in px.
        mean, std: of R, G, B, in 0..255.
    """

    def __init__(
        self,
        image_size: int = 1024,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """See the class.

        Raises:
            DataError: an image is larger than the square.
        """
        if any('tiles' in sample for sample in data.get('data_samples') or ()):
            return {**data, 'data_samples': self.cast_data(data['data_samples'])}
        data = self.cast_data(data)
        if 'image_embeddings' in data:
            # one by one, as autocast on CPUs stacks no float16
            embeddings = [embedding.float() for embedding in data['image_embeddings']]
            return {**data, 'image_embeddings': torch.stack(embeddings)}
        size = self.image_size
        padded = []
        for index, image in enumerate(data['inputs']):
            height, width = image.shape[-2:]
            if max(height, width) > size:
                samples = data.get('data_samples')
                where = samples[index].img_path if samples else f'image {index} of the batch'
                raise DataError(
                    f'{where}: expected at most {size} px a side after ResizeLongestSide, '
                    f'got {height}x{width}; image_size of pipeline and model must agree.'
                )
            image = (image - self.mean) / self.std
            padded.append(F.pad(image, (0, size - width, 0, size - height)))
        return {**data, 'inputs': torch.stack(padded)}
