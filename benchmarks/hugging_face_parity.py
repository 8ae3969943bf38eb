"""Compare mmsam with transformers' ``SamModel`` on equal random weights; print the largest error.

    pip install transformers
    python benchmarks/hugging_face_parity.py

A small SAM with random weights, position embeddings and relative positions included, is written by
``save_hugging_face``, opened by ``SamModel.from_pretrained`` (which must neither miss nor ignore a
tensor), and both predict the masks of the same boxes. Then ``SamModel.save_pretrained`` writes the
weights, and ``load_weights`` must bring back every bit. Exits with 1 if a difference exceeds 1e-4.
"""

import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import SamModel

from mmsam.checkpoint import load_weights, save_hugging_face
from mmsam.models.segmentors.prompt_batch import PromptBatch

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))

from reference_sam import randomise  # noqa: E402
from tiny_sam import build_segmentor, random_boxes  # noqa: E402

IMG_SIZE = 128
TOLERANCE = 1e-4


@torch.no_grad()
def compare(folder: Path) -> float:
    torch.manual_seed(0)  # the prompt encoder draws a buffer
    segmentor = build_segmentor(IMG_SIZE, encoder_dtype='float32').eval()
    randomise(segmentor)
    save_hugging_face(segmentor.state_dict(), folder)
    theirs, loading = SamModel.from_pretrained(folder, output_loading_info=True)
    theirs.eval()
    problems = {kind: keys for kind, keys in loading.items() if keys}
    if problems:
        raise SystemExit(f'SamModel.from_pretrained: {problems}')

    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, IMG_SIZE, IMG_SIZE, generator=generator)
    boxes = random_boxes(6, (IMG_SIZE, IMG_SIZE))
    prompts = PromptBatch.of_boxes(boxes, torch.tensor([0, 0, 0, 1, 1, 1]))
    ours = segmentor.decode_best(segmentor.encode_images(images), prompts)
    output = theirs(pixel_values=images, input_boxes=boxes.view(2, 3, 4), multimask_output=False)
    pairs = {
        'low_res_logits': (ours[0], output.pred_masks.flatten(0, 1)),
        'iou_predictions': (ours[1], output.iou_scores.flatten(0, 1)),
    }
    largest = 0.0
    for name, (our_value, their_value) in pairs.items():
        error = float((our_value - their_value).abs().max())
        print(f'{name}: error {error:.1e}, values up to {float(our_value.abs().max()):.2f}')
        largest = max(largest, error)

    theirs.save_pretrained(folder / 'saved_by_them')
    again = build_segmentor(IMG_SIZE)
    load_weights(again, str(folder / 'saved_by_them'))
    for key, value in segmentor.state_dict().items():
        if not torch.equal(value, again.state_dict()[key]):
            raise SystemExit(f'{key} did not come back as it was')
    return largest


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        largest = compare(Path(folder))
    print(f'transformers {transformers.__version__}: largest error {largest:.1e}')
    sys.exit(largest > TOLERANCE)


if __name__ == '__main__':
    main()
