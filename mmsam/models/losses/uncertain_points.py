"""Px at which a mask is compared: drawn at random, most of them where its logits are uncertain."""

import torch
from torch import Tensor

NUM_POINTS = 12_544
OVERSAMPLING = 3
UNCERTAIN_SHARE = 0.75


@torch.no_grad()
def uncertain_points(low_res_logits: Tensor, input_sizes: Tensor, side: int) -> Tensor:
    """Px of each object's image, never of the padding.

    Of three times as many as are needed, drawn evenly, those whose logits are nearest to the
    threshold make three quarters; the rest is drawn evenly. A px may be drawn more than once. The
    M masks of an object share its points, so that their losses compare; a px is as uncertain as the
    least certain mask there.

    An object of a few px in a large image may get no point: 'low_res' sees every one.

    Args:
        low_res_logits: (P, M, S/4, S/4) float.
        input_sizes: (P, 2) int64, (h, w) input px.
        side: S, in padded px.

    Returns:
        (P, 12544, 2) int64 (x, y), drawn with torch's generator of the device.

    Source: Kirillov et al., PointRend (CVPR 2020), section 3.1, training; the numbers are those of
    Cheng et al., Mask2Former (CVPR 2022).
    """
    chosen = int(UNCERTAIN_SHARE * NUM_POINTS)
    candidates = _even_points(input_sizes, OVERSAMPLING * NUM_POINTS)
    certainty = logits_at(low_res_logits, candidates, side).abs().amin(dim=1)
    index = certainty.topk(chosen, dim=1, largest=False).indices
    uncertain = candidates.gather(1, index[..., None].expand(-1, -1, 2))
    return torch.cat([uncertain, _even_points(input_sizes, NUM_POINTS - chosen)], dim=1)


def logits_at(low_res_logits: Tensor, points: Tensor, side: int) -> Tensor:
    """The logits (P, M, N) that bilinear enlarging to ``side`` gives at px (P, N, 2) (x, y)."""
    last = low_res_logits.shape[-1] - 1
    places = ((points + 0.5) * ((last + 1) / side) - 0.5).clamp(0, last)
    low = places.floor()
    right, down = (places - low)[:, None].to(low_res_logits.dtype).unbind(-1)
    x, y = low.long().unbind(-1)

    def take(columns: Tensor, rows: Tensor) -> Tensor:
        # not grid_sample, whose gradient is not deterministic on a GPU
        index = (rows * (last + 1) + columns)[:, None].expand(-1, low_res_logits.shape[1], -1)
        return low_res_logits.flatten(2).gather(-1, index)

    next_x, next_y = (x + 1).clamp(max=last), (y + 1).clamp(max=last)
    above = take(x, y).lerp(take(next_x, y), right)
    below = take(x, next_y).lerp(take(next_x, next_y), right)
    return above.lerp(below, down)


def _even_points(input_sizes: Tensor, number: int) -> Tensor:
    """Px (P, number, 2) int64 (x, y), each as likely as the next."""
    uniform = torch.rand(len(input_sizes), number, 2, device=input_sizes.device)
    return (uniform * input_sizes.flip(-1)[:, None]).long()
