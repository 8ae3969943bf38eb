"""SAM as an MMEngine model: the three parts wired for training and prediction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmsam.checkpoint import load_weights
from mmsam.embedding_cache import digest_of_weights
from mmsam.errors import ConfigError, DataError
from mmsam.geometry import enlarged_masks
from mmsam.models.precision import fast_bfloat16
from mmsam.models.sam.image_encoder import PATCH_SIZE
from mmsam.models.sam.initialization import init_from_scratch
from mmsam.options import check_whole_number
from mmsam.prompt_sampling import PromptKind, correction_steps, random_error_clicks, uniforms
from mmsam.registry import MODELS
from mmsam.structures import SAMDataSample

from .prompt_batch import PromptBatch
from .prompted_prediction import TestPrompts, predict_image
from .tiled_prediction import predict_tiled_image

PARTS = ('image_encoder', 'prompt_encoder', 'mask_decoder')

EncoderDtype = Literal['auto', 'float32', 'bfloat16']


@MODELS.register_module()
class SAMSegmentor(BaseModel):
    """SAM, prompted with boxes, points and masks.

    A batch may hold images of different sizes with different numbers of prompts, also none: all
    prompts of the batch are decoded in one call, boxes, points and masks together. The state dict
    has exactly upstream's keys (``image_encoder.*``, ``prompt_encoder.*``, ``mask_decoder.*``).

    One point alone is ambiguous: of its three masks (slots 1 to 3) the one with the lowest loss is
    trained, and the one with the highest predicted IoU is returned. Every other prompt has the
    single mask of slot 0.

    The loss is no argument: ``MaskLossHook`` puts it into the slot ``mask_loss`` before training.

    Args:
        image_encoder, prompt_encoder, mask_decoder: configs of SAM's parts.
        data_preprocessor: config, usually ``SAMDataPreprocessor``.
        frozen: names of the parts that do not train. They stay in eval mode, run without
            gradient and are left out of the optimizer by ``TrainableParamsConstructor``.
        correction: ``dict(num_clicks=8, num_repeats=2)`` trains as SAM's paper does: the first
            prompt is followed by clicks on errors of the prediction, whose logits are fed back as
            mask prompt (without their gradient), and by repetitions without a new click, one of
            them last. The loss is the mean over all predictions. None: the first prompt only.
        encoder_dtype: in what a frozen image encoder multiplies: ``'float32'``, ``'bfloat16'``, or
            ``'auto'``, bfloat16 where the device is fast at it. An encoder that trains computes in
            what the optimizer wrapper and the loops say (``--amp``).
        prompt_chunk: more prompts of a batch than this are trained in chunks, whose activations are
            computed again for the backward pass, those of each click by themselves: then memory
            grows neither with the number of objects nor of clicks.
        test_cfg: what to predict in validation and test, the options of ``TestPrompts``.

    Raises:
        ConfigError: a wrong option, or sizes that disagree.
    """

    mask_loss: nn.Module | None

    def __init__(
        self,
        image_encoder: dict,
        prompt_encoder: dict,
        mask_decoder: dict,
        data_preprocessor: dict | None = None,
        frozen: Sequence[str] = ('image_encoder', 'prompt_encoder'),
        correction: Mapping | None = None,
        encoder_dtype: EncoderDtype = 'auto',
        prompt_chunk: int = 64,
        test_cfg: Mapping | None = None,
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
        self._check_encoder_options(encoder_dtype)
        self.encoder_dtype = encoder_dtype
        self.correction = _checked_correction(correction)
        check_whole_number('prompt_chunk of SAMSegmentor', prompt_chunk, 1)
        self.prompt_chunk = prompt_chunk
        self.test_prompts = TestPrompts.of_config(test_cfg or {})
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
        inputs: Tensor | Sequence[Tensor] | None = None,
        data_samples: list[SAMDataSample] | None = None,
        mode: str = 'tensor',
        image_embeddings: Tensor | None = None,
    ) -> Any:
        """Run the model on images (B, 3, S, S), normalised and padded, or on their embeddings.

        Args:
            inputs: from the data preprocessor; of samples with ``tiles``, in mode ``'predict'``, B
                images (3, H, W) uint8 as they were read.
            data_samples: B samples with ``prompts``; may be missing in mode ``'tensor'``.
            image_embeddings: (B, C, S/16, S/16) float32, in place of ``inputs``: what
                ``encode_images`` gives for them.
            mode: ``'loss'`` gives a dict of losses; ``'predict'`` the samples with
                ``pred_instances``; ``'tensor'`` low-res logits (P, 1, S/4, S/4) and IoU
                predictions (P, 1) of all prompts, or without samples the image embeddings.

        Raises:
            ConfigError: mode ``'loss'`` without a loss in the slot.
        """
        if mode != 'tensor' and data_samples is None:
            raise DataError(f'mode {mode!r} needs data_samples with prompts, got None.')
        if image_embeddings is None:
            if inputs is None:
                raise DataError('SAMSegmentor expected inputs or image_embeddings, got neither.')
            if not isinstance(inputs, Tensor):
                return self.predict_tiled(inputs, data_samples or [])
            image_embeddings = self.encode_images(inputs)
        if data_samples is None:
            return image_embeddings
        if mode == 'loss':
            return self.loss(image_embeddings, data_samples)
        if mode == 'predict':
            return self.predict(image_embeddings, data_samples)
        if mode == 'tensor':
            device = image_embeddings.device
            prompts = PromptBatch.of_samples(data_samples, self.image_size, device)
            return self.decode_best(image_embeddings, prompts)
        raise ConfigError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}.")

    def encode_images(self, inputs: Tensor) -> Tensor:
        """Images (B, 3, S, S) to embeddings (B, C, S/16, S/16), C = 256 in the official sizes."""
        with self._gradient_of('image_encoder'), self._autocast_of_encoder(inputs.device):
            return self.image_encoder(inputs)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Of an image's embedding, (C, S/16, S/16)."""
        grid = self.image_size // PATCH_SIZE
        return self.image_encoder.out_chans, grid, grid

    def embedding_facts(self) -> dict[str, Any]:
        """All that ``encode_images`` depends on besides the image, as plain values for JSON.

        ``shape`` is ``embedding_shape``.
        """
        encoder, preprocessor = self.image_encoder, self.data_preprocessor
        device = encoder.pos_embed.device
        return {
            'shape': list(self.embedding_shape),
            'weights': digest_of_weights(encoder.state_dict()),
            'blocks': [[block.attn.num_heads, block.attn.window_size] for block in encoder.blocks],
            'image_size': self.image_size,
            'mean': preprocessor.mean.flatten().tolist(),
            'std': preprocessor.std.flatten().tolist(),
            'compute_dtype': str(self._encoder_precision(device)).removeprefix('torch.'),
        }

    def decode(self, image_embeddings: Tensor, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """The masks of the prompts of a ragged batch.

        Args:
            image_embeddings: (B, C, S/16, S/16).
            prompts: P prompts.

        Returns:
            Low-res logits (P, M, S/4, S/4) and IoU predictions (P, M), M = 4 in the order of the
            decoder's slots if a prompt is ambiguous, else M = 1.
        """
        slots = slice(None) if bool(prompts.is_ambiguous().any()) else slice(0, 1)
        with self._gradient_of('prompt_encoder'):
            sparse, dense = self._encode_prompts(prompts)
            image_pe = self.prompt_encoder.get_dense_pe()
        return self.mask_decoder.predict_masks(
            image_embeddings, image_pe, sparse, dense, prompts.image_index, slots
        )

    def decode_best(self, image_embeddings: Tensor, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """The mask that is returned for each prompt, (P, 1, S/4, S/4) and (P, 1); see the class.

        Arguments as in ``decode``.
        """
        return _best(*self.decode(image_embeddings, prompts), prompts.is_ambiguous())

    def _encode_prompts(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Sparse (P, T, C) and dense (P or 1, C, S/16, S/16) embeddings.

        A box is two tokens, a point is two with SAM's padding point, so that T is the same for all.
        """
        is_box = prompts.is_kind(PromptKind.BOX)
        clicks = None
        if prompts.click_labels.shape[1]:
            clicks = prompts.click_coords, prompts.click_labels
        sparse, dense = self.prompt_encoder(prompts.boxes, clicks)
        if not bool(is_box.all()):
            others, _ = self.prompt_encoder(points=prompts.all_points())
            sparse = torch.where(is_box[:, None, None], sparse, others)
        if prompts.masks is not None:
            _, of_masks = self.prompt_encoder(masks=prompts.masks)
            if prompts.has_mask is not None:
                of_masks = torch.where(prompts.has_mask[:, None, None, None], of_masks, dense)
            dense = of_masks
        return sparse, dense

    def loss(
        self, image_embeddings: Tensor, data_samples: list[SAMDataSample]
    ) -> dict[str, Tensor]:
        """Losses of a batch of B images; the samples need ``gt_instances.masks``.

        What the module in the slot gives for each object is added up over the objects and divided
        by the mean number of objects per rank, so that after the average over ranks every object
        of the batch counts the same; values without 'loss' in their name, which mmengine does not
        train, are means of this rank.
        """
        if self.mask_loss is None:
            raise ConfigError(
                "The model has no loss: add dict(type='MaskLossHook', loss=dict(...)) to "
                'custom_hooks.'
            )
        if self.correction is not None:
            for sample in data_samples:
                if 'seeds' not in sample.prompts:
                    raise DataError(
                        f'{sample.img_path}: correction of SAMSegmentor draws clicks and expects '
                        'prompts.seeds, as PackSAMInputs writes them, got none.'
                    )
        device = image_embeddings.device
        prompts = PromptBatch.of_samples(data_samples, self.image_size, device)
        targets = _pad_masks(data_samples, self.image_size, device)
        sizes = torch.tensor([sample.img_shape for sample in data_samples], device=device)
        totals: dict[str, Tensor] = {}
        parts = zip(
            prompts.split(self.prompt_chunk),
            targets.split(self.prompt_chunk),
            sizes[prompts.image_index].split(self.prompt_chunk),
            strict=True,
        )
        is_click = [False]  # of each prediction; the first has the first prompt
        if self.correction is not None and len(prompts):
            is_click += correction_steps(int(prompts.seeds[0]), **self.correction)
        is_chunked = len(prompts) > self.prompt_chunk
        for part in parts:
            sums = self._sum_of_losses(image_embeddings, *part, is_click, recompute=is_chunked)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0) + value
        objects = objects_per_rank(len(prompts), device=device)
        return {
            name: total / (objects if 'loss' in name else len(prompts))
            for name, total in totals.items()
            if 'loss' in name or len(prompts)
        }

    def _sum_of_losses(
        self,
        image_embeddings: Tensor,
        prompts: PromptBatch,
        targets: Tensor,
        input_sizes: Tensor,
        is_click: Sequence[bool],
        *,
        recompute: bool,
    ) -> dict[str, Tensor]:
        """Sums over the prompts of each of the loss's values, the mean over the predictions.

        ``is_click`` says which predictions a new click precedes. With ``recompute`` the backward
        pass computes the activations of each prediction again.
        """
        totals: dict[str, Tensor] = {}
        for number, has_click in enumerate(is_click):
            if has_click:
                assert prompts.masks is not None
                numbers = uniforms(prompts.seeds, number)
                prompts = prompts.with_clicks(
                    *self._random_clicks(prompts.masks, targets, input_sizes, numbers)
                )
            arguments = image_embeddings, prompts, targets, input_sizes
            if recompute:
                sums, logits = checkpoint(self._losses_of_step, *arguments, use_reentrant=False)
            else:
                sums, logits = self._losses_of_step(*arguments)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0) + value / len(is_click)
            prompts = prompts.with_masks(logits)
        return totals

    def _losses_of_step(
        self, image_embeddings: Tensor, prompts: PromptBatch, targets: Tensor, input_sizes: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Sums of the loss's values over the prompts, and the masks (P, 1, S/4, S/4) they return.

        The masks are logits without gradient, for the next step.
        """
        assert self.mask_loss is not None
        logits, qualities = self.decode(image_embeddings, prompts)
        ambiguous = prompts.is_ambiguous()
        sums = defaultdict(list)
        for rows, slots in _rows_and_slots(ambiguous):
            with torch.autocast(logits.device.type, enabled=False):  # losses in float32
                values = self.mask_loss(
                    low_res_logits=logits[rows, slots].float(),
                    iou_predictions=qualities[rows, slots].float(),
                    target_masks=targets[rows],
                    input_sizes=input_sizes[rows],
                )
            for name, value in values.items():
                sums[name].append(value.sum())
        return (
            {name: torch.stack(values).sum() for name, values in sums.items()},
            _best(logits, qualities, ambiguous)[0].detach(),
        )

    @torch.no_grad()
    def _random_clicks(
        self, low_res_logits: Tensor, targets: Tensor, input_sizes: Tensor, numbers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A click (P, 1, 2) with label (P, 1) on an error of each prediction (P, 1, S/4, S/4)."""
        parts = zip(
            *(
                values.split(_OBJECTS_AT_ONCE)
                for values in (low_res_logits, targets, input_sizes, numbers)
            ),
            strict=True,
        )
        clicks = [
            random_error_clicks(enlarged_masks(logits)[:, 0], *part) for logits, *part in parts
        ]
        coords, labels = zip(*clicks, strict=True)
        return torch.cat(coords), torch.cat(labels)

    def predict(
        self, image_embeddings: Tensor, data_samples: list[SAMDataSample]
    ) -> list[SAMDataSample]:
        """Set ``pred_instances`` of each sample; see ``SAMDataSample`` and ``TestPrompts``."""
        for sample, embedding in zip(data_samples, image_embeddings.split(1), strict=True):
            predict_image(self, embedding, sample, self.test_prompts)
        return data_samples

    def predict_tiled(
        self, images: Sequence[Tensor], data_samples: list[SAMDataSample]
    ) -> list[SAMDataSample]:
        """As ``predict``, of samples with ``tiles``; images (3, H, W) uint8 as they were read."""
        for image, sample in zip(images, data_samples, strict=True):
            predict_tiled_image(self, image, sample, self.test_prompts)
        return data_samples

    def _gradient_of(self, part: str) -> torch.set_grad_enabled:
        """Context in which a frozen part records no gradient."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and part not in self.frozen)

    def _encoder_precision(self, device: torch.device) -> torch.dtype:
        """In which the frozen image encoder computes on a device, unless autocast is on already."""
        if self.encoder_dtype == 'auto':
            return torch.bfloat16 if fast_bfloat16(device) else torch.float32
        return getattr(torch, self.encoder_dtype)

    def _autocast_of_encoder(self, device: torch.device) -> AbstractContextManager:
        """Context in which the image encoder computes as ``encoder_dtype`` says."""
        if 'image_encoder' not in self.frozen:
            return nullcontext()
        dtype = self._encoder_precision(device)
        if dtype == torch.float32 and self.encoder_dtype == 'auto':
            return nullcontext()  # that of --amp
        return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def _check_encoder_options(self, encoder_dtype: str) -> None:
        dtypes = list(get_args(EncoderDtype))
        if encoder_dtype not in dtypes:
            raise ConfigError(
                f'encoder_dtype of SAMSegmentor: expected one of {dtypes}, got {encoder_dtype!r}.'
            )
        if 'image_encoder' not in self.frozen and encoder_dtype != 'auto':
            raise ConfigError(
                "encoder_dtype of SAMSegmentor: expected 'auto' as image_encoder trains (not in "
                f'frozen), got {encoder_dtype!r}; --amp trains and tests in bfloat16.'
            )
        frozen_stages = getattr(self.image_encoder, 'frozen_stages', -1)
        if 'image_encoder' in self.frozen and frozen_stages >= 0:
            raise ConfigError(
                'image_encoder.frozen_stages: expected -1 as all of image_encoder is in frozen of '
                f'SAMSegmentor, got {frozen_stages}; take image_encoder out of frozen to train '
                'what comes behind these stages.'
            )


_OBJECTS_AT_ONCE = 16
"""Objects whose logits are enlarged to padded px together; bounds the memory."""


def _checked_correction(correction: Mapping | None) -> dict[str, int] | None:
    if correction is None:
        return None
    is_mapping = isinstance(correction, Mapping)
    steps = {'num_clicks': 8, 'num_repeats': 2, **(correction if is_mapping else {})}
    numbers = all(isinstance(value, int) and value >= 0 for value in steps.values())
    if not is_mapping or set(steps) != {'num_clicks', 'num_repeats'} or not numbers:
        raise ConfigError(
            'correction of SAMSegmentor: expected dict(num_clicks=..., num_repeats=...) of whole '
            f'numbers >= 0, got {correction}.'
        )
    return steps


def _rows_and_slots(ambiguous: Tensor) -> list[tuple[slice | Tensor, slice]]:
    """Which prompts are trained in which of the decoder's slots."""
    if not bool(ambiguous.any()):
        return [(slice(None), slice(0, 1))]
    rows: list[tuple[slice | Tensor, slice]] = [(ambiguous.nonzero()[:, 0], slice(1, None))]
    if not bool(ambiguous.all()):
        rows.append(((~ambiguous).nonzero()[:, 0], slice(0, 1)))
    return rows


def _best(logits: Tensor, iou_predictions: Tensor, ambiguous: Tensor) -> tuple[Tensor, Tensor]:
    """Of masks (P, M, h, w), M = 4 or 1, the one that is returned, and its IoU prediction."""
    if logits.shape[1] == 1:
        return logits, iou_predictions
    slot = torch.where(ambiguous, iou_predictions[:, 1:].argmax(dim=1) + 1, 0)
    prompts = torch.arange(len(slot), device=slot.device)
    return logits[prompts, slot][:, None], iou_predictions[prompts, slot][:, None]


def objects_per_rank(own_objects: int, *, device: torch.device) -> Tensor:
    """Mean number of objects over the ranks, a scalar, at least 1; every rank has to call it.

    A rank's sum over its objects divided by this, then averaged over ranks as distributed
    training does with gradients, is the mean over all objects.
    """
    objects = torch.tensor(float(own_objects), device=device)
    all_reduce(objects, op='mean')
    return objects.clamp(min=1)


def _pad_masks(data_samples: list[SAMDataSample], image_size: int, device: torch.device) -> Tensor:
    """The truth of all prompts (P, S, S) uint8, padded px."""
    masks = [sample.gt_instances.masks for sample in data_samples]
    counts = [len(part) for part in masks]
    padded = torch.zeros(sum(counts), image_size, image_size, dtype=torch.uint8, device=device)
    for place, part in zip(padded.split(counts), masks, strict=True):
        place[:, : part.shape[1], : part.shape[2]] = part
    return padded
