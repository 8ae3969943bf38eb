"""Binary masks as COCO's run-length encoding (RLE)."""

import numpy as np
from pycocotools import mask as coco_mask

RLE = dict
"""``{'size': [H, W], 'counts': bytes}``, compressed."""


def encode_masks(masks: np.ndarray) -> list[RLE]:
    """Masks (K, H, W) bool or uint8 of 0 and 1, to K compressed RLEs."""
    if len(masks) == 0:
        return []
    # pycocotools wants (H, W, K) in Fortran order; this transpose is that without another copy
    column_major = np.ascontiguousarray(masks.astype(np.uint8, copy=False).transpose(0, 2, 1))
    return coco_mask.encode(column_major.T)
