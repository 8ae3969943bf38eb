"""SAM as an MMEngine model: the three parts wired for training and prediction."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsam.checkpoint import load_weights
from mmsam.errors import ConfigError, DataError
from mmsam.geometry import MASK_THRESHOLD, logits_to_original
from mmsam.models.sam.initialization import init_from_scratch
from mmsam.registry import MODELS
from mmsam.structures import SAMDataSample
from mmsam.structures.rle import encode_masks

PARTS = ('image_encoder', 'prompt_encoder', 'mask_decoder')

PREDICTION_CHUNK = 16
"""Prompts whose logits stand in memory at the original image's size at the same time."""


@MODELS.register_module()
class SAMSegmentor(BaseModel):
    """Box-prompted SAM.

    A batch may hold images of different sizes with different numbers of prompts, also none: all
    prompts of the batch are decoded in one call. The state dict has exactly upstream's keys
    (``image_encoder.*``, ``prompt_encoder.*``, ``mask_decoder.*``).

    The loss is no argument: ``MaskLossHook`` puts it into the slot ``mask_loss`` before training.

    Args:
        image_encoder, prompt_encoder, mask_decoder: configs of SAM's parts.
        data_preprocessor: config, usually ``SAMDataPreprocessor``.
        frozen: names of the parts that do not train. They stay in eval mode, run without
            gradient and are left out of the optimizer by ``TrainableParamsConstructor``.

    Raises:
        ConfigError: an unknown or complete list of frozen parts, or sizes that disagree.
    """

    mask_loss: nn.Module | None

    def __init__(
        self,
        image_encoder: dict,
        prompt_encoder: dict,
        mask_decoder: dict,
        data_preprocessor: dict | None = None,
        frozen: Sequence[str] = ('image_encoder', 'prompt_encoder'),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        # built here: mmengine would look its name up in the root registry
        super().__init__(data_preprocessor and MODELS.build(data_preprocessor), init_cfg)
        unknown = set(frozen) - set(PARTS)
        if unknown or set(frozen) == set(PARTS):
            raise ConfigError(
                f'frozen: expected some, not all, of {list(PARTS)}, got {list(frozen)}.'
            )
        self.image_encoder = MODELS.build(image_encoder)
        self.prompt_encoder = MODELS.build(prompt_encoder)
        self.mask_decoder = MODELS.build(mask_decoder)
        self.mask_loss = None
        self.frozen = tuple(frozen)
        self.image_size: int = self.image_encoder.img_size
        for name, size in (
            ('prompt_encoder.image_size', self.prompt_encoder.image_size),
            ('data_preprocessor.image_size', getattr(self.data_preprocessor, 'image_size', None)),
        ):
            if size not in (None, self.image_size):
                raise ConfigError(
                    f'{name} is {size}, image_encoder.img_size is {self.image_size}: '
                    'they must be equal.'
                )
        for name in self.frozen:
            getattr(self, name).requires_grad_(False)

    def init_weights(self) -> None:
        """Initialise for training from nothing; weights that a run loads replace all of it."""
        if not self.is_init:
            init_from_scratch(self.prompt_encoder, self.mask_decoder)
        super().init_weights()  # what an init_cfg asks for goes first

    def load_weights(self, source: str) -> None:
        """Load stock or tuned SAM weights strictly; see ``mmsam.checkpoint.load_weights``."""
        load_weights(self, source)

    def train(self, mode: bool = True) -> 'SAMSegmentor':
        """Switch between training and evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[SAMDataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Run the model on images (B, 3, S, S), normalised and padded.

        Args:
            inputs: from the data preprocessor.
            data_samples: B samples with ``prompts.boxes``; may be missing in mode ``'tensor'``.
            mode: ``'loss'`` gives a dict of losses; ``'predict'`` the samples with
                ``pred_instances``; ``'tensor'`` low-res logits (P, 1, S/4, S/4) and IoU
                predictions (P, 1) of all prompts, or without samples the image embeddings.

        Raises:
            ConfigError: mode ``'loss'`` without a loss in the slot.
        """
        if mode == 'tensor' and data_samples is None:
            return self.encode_images(inputs)
        if data_samples is None:
            raise DataError(f'mode {mode!r} needs data_samples with prompts, got None.')
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.decode_boxes(
                self.encode_images(inputs), *_gather_boxes(data_samples, inputs.device)
            )
        raise ConfigError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}.")

    def encode_images(self, inputs: Tensor) -> Tensor:
        """Images (B, 3, S, S) to embeddings (B, C, S/16, S/16), C = 256 in the official sizes."""
        with self._gradient_of('image_encoder'):
            return self.image_encoder(inputs)

    def decode_boxes(
        self, image_embeddings: Tensor, boxes: Tensor, image_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Single masks for the boxes of a ragged batch.

        Args:
            image_embeddings: (B, C, S/16, S/16).
            boxes: (P, 4) xyxy, input px.
            image_index: (P,) int64, ascending.

        Returns:
            Low-res logits (P, 1, S/4, S/4) and IoU predictions (P, 1).
        """
        with self._gradient_of('prompt_encoder'):
            sparse, dense = self.prompt_encoder(boxes=boxes)
            image_pe = self.prompt_encoder.get_dense_pe()
        return self.mask_decoder(
            image_embeddings, image_pe, sparse, dense, image_index, multimask_output=False
        )

    def loss(self, inputs: Tensor, data_samples: list[SAMDataSample]) -> dict[str, Tensor]:
        """Losses of the batch; the samples need ``gt_instances.masks``."""
        if self.mask_loss is None:
            raise ConfigError(
                "The model has no loss: add dict(type='MaskLossHook', loss=dict(...)) to "
                'custom_hooks.'
            )
        boxes, image_index = _gather_boxes(data_samples, inputs.device)
        logits, iou_predictions = self.decode_boxes(self.encode_images(inputs), boxes, image_index)
        sizes = torch.tensor([sample.img_shape for sample in data_samples], device=inputs.device)
        with torch.autocast(inputs.device.type, enabled=False):  # losses in float32
            losses = self.mask_loss(
                low_res_logits=logits.float(),
                iou_predictions=iou_predictions.float(),
                target_masks=_pad_masks(data_samples, self.image_size, inputs.device),
                input_sizes=sizes[image_index],
            )
        objects = _objects_per_rank(len(logits), device=inputs.device)
        return {name: values.sum() / objects for name, values in losses.items()}

    def predict(self, inputs: Tensor, data_samples: list[SAMDataSample]) -> list[SAMDataSample]:
        """Set ``pred_instances`` (``rles`` in original px, ``iou_predictions``) of each sample."""
        image_embeddings = self.encode_images(inputs)
        for index, sample in enumerate(data_samples):
            boxes = sample.prompts.boxes.to(inputs.device)
            rles: list[dict] = []
            iou_predictions: list[Tensor] = []
            for chunk in boxes.split(PREDICTION_CHUNK) if len(boxes) else ():
                image_index = torch.zeros(len(chunk), dtype=torch.int64, device=inputs.device)
                logits, quality = self.decode_boxes(
                    image_embeddings[index : index + 1], chunk, image_index
                )
                logits = logits_to_original(
                    logits, self.image_size, sample.img_shape, sample.ori_shape
                )
                rles += encode_masks((logits[:, 0] > MASK_THRESHOLD).cpu().numpy())
                iou_predictions.append(quality[:, 0].float().cpu())
            sample.pred_instances = InstanceData(
                rles=rles,
                iou_predictions=torch.cat(iou_predictions) if rles else torch.zeros(0),
            )
        return data_samples

    def _gradient_of(self, part: str) -> torch.set_grad_enabled:
        """Context in which a frozen part records no gradient."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and part not in self.frozen)


def _objects_per_rank(own_objects: int, *, device: torch.device) -> Tensor:
    """Mean number of objects over the ranks, a scalar, at least 1; every rank has to call it.

    A rank's sum over its objects divided by this, then averaged over ranks as distributed
    training does with gradients, is the mean over all objects.
    """
    objects = torch.tensor(float(own_objects), device=device)
    all_reduce(objects, op='mean')
    return objects.clamp(min=1)


def _gather_boxes(data_samples: list[SAMDataSample], device: torch.device) -> tuple[Tensor, Tensor]:
    """All prompts of the batch (P, 4) and the index of each one's image (P,)."""
    counts = torch.tensor([len(sample.prompts) for sample in data_samples], device=device)
    boxes = torch.cat([sample.prompts.boxes.to(device) for sample in data_samples])
    return boxes, torch.arange(len(data_samples), device=device).repeat_interleave(counts)


def _pad_masks(data_samples: list[SAMDataSample], image_size: int, device: torch.device) -> Tensor:
    """The truth of all prompts (P, S, S) uint8, padded px."""
    padded = []
    for sample in data_samples:
        masks = sample.gt_instances.masks.to(device)
        height, width = masks.shape[-2:]
        padded.append(F.pad(masks, (0, image_size - width, 0, image_size - height)))
    return torch.cat(padded)
