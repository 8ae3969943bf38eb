"""What an embedding cache takes on the disk."""

from dataclasses import dataclass

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmsam.errors import MMSAMError
from mmsam.models import SAMSegmentor
from mmsam.registry import DATASETS

from .training_step import training_transform

_BYTES_OF_NUMBER = 2  # float16


@dataclass(frozen=True)
class StoredEmbeddings:
    """Embeddings of the images of training and validation.

    Attributes:
        image_bytes: of one image as it lies.
        ways: in which training images are turned and flipped, each with an embedding of its own.
        training_images, validation_images: their numbers; None where the data are not there.
    """

    image_bytes: int
    ways: int
    training_images: int | None
    validation_images: int | None

    @classmethod
    def of(cls, config: Config, model: SAMSegmentor) -> 'StoredEmbeddings':
        grid = model.image_size // 16
        return cls(
            model.image_encoder.out_chans * grid**2 * _BYTES_OF_NUMBER,
            _ways(config),
            _number_of_images(config, 'train_dataloader'),
            _number_of_images(config, 'val_dataloader'),
        )

    def total_bytes(self) -> int | None:
        """Of all images; None where their number is unknown."""
        if self.training_images is None or self.validation_images is None:
            return None
        return self.image_bytes * (self.ways * self.training_images + self.validation_images)


def _ways(config: Config) -> int:
    """In how many ways the training's pipeline turns and flips an image."""
    flip = training_transform(config, 'RandomPromptedFlip')
    turn = training_transform(config, 'RandomPromptedRotate90')
    return (2 if flip else 1) * (4 if turn else 1)


def _number_of_images(config: Config, loader: str) -> int | None:
    """Images, or tiles, of a loader's data set; None where it cannot be read."""
    dataset = (config.get(loader) or {}).get('dataset')
    if dataset is None:
        return 0
    try:
        with DefaultScope.overwrite_default_scope('mmsam'):
            return len(DATASETS.build(dataset))
    except MMSAMError:
        return None
