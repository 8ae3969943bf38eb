"""What a row of the table is, and at which size it is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmsam.geometry import Size


@dataclass(frozen=True)
class Row:
    """A ratio of the table.

    Args:
        name: in ``results.json`` and on the command line.
        text: what is compared.
        required: the least ratio, or with ``at_most`` the greatest; None: it is only reported.
        at_most: the ratio is ours / theirs (memory, overhead), else theirs / ours (time).
        peers: modules without which it is left out.
        needs_fast_bf16: required only where the hardware multiplies bfloat16 matrices.
        max_error: the greatest error with which the ratio counts; None: nothing is compared.
        error_of: what the error is.
    """

    name: str
    text: str
    required: float | None = None
    at_most: bool = False
    peers: tuple[str, ...] = ('segment_anything',)
    needs_fast_bf16: bool = False
    max_error: float | None = None
    error_of: str = ''


@dataclass(frozen=True)
class Measurement:
    """What was measured for a row.

    Args:
        ratio: the median of the rounds' ratios.
        spread: the least and the greatest of them.
        ours, theirs: medians of both sides, in ``unit``.
        unit: of what the ratio is: 's CPU' with one thread, 's' of wall time with all threads, or
            'GiB'.
        error: as the row says; None where it compares nothing.
        wall_ratio, wall_spread: of wall time with all threads, where ``ratio`` is of CPU time.
        facts: more to know, by name.
    """

    ratio: float
    spread: tuple[float, float]
    ours: float
    theirs: float
    unit: str
    error: float | None = None
    wall_ratio: float | None = None
    wall_spread: tuple[float, float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How large the models and the data are, and how often both sides run.

    Args:
        arch: of the image encoder, as ``SAMImageEncoder`` takes it.
        img_size: side S of the padded square, px.
        rounds: pairs of measurements after a run of each side.
        page_size: (H, W) of an image, original px.
        crowd_memory: prompts of the decoder step whose memory is compared.
        epoch_images: of an epoch of mmsam.
        tutorial_images: of the tutorial's loop in each round.
        epochs: of each training with mmsam.
        iterations: of each side of the Runner's overhead in a round.
    """

    arch: str | Mapping[str, Any]
    img_size: int
    rounds: int
    page_size: Size
    crowd_memory: int
    epoch_images: int
    tutorial_images: int
    epochs: int
    iterations: int


FULL = Scale(
    arch='vit_b',
    img_size=1024,
    rounds=3,
    page_size=(2339, 1653),  # A4 at 200 dpi, as StaVer's scans
    crowd_memory=64,
    epoch_images=4,
    tutorial_images=2,
    epochs=10,
    iterations=20,
)

QUICK = Scale(
    arch=dict(embed_dim=48, depth=2, num_heads=3, global_attn_indexes=(1,), window_size=3),
    img_size=64,
    rounds=1,
    page_size=(187, 132),
    crowd_memory=4,
    epoch_images=4,
    tutorial_images=2,
    epochs=3,
    iterations=2,
)
"""Shows that every row runs and that its error is small; its ratios mean nothing."""
