"""Mistakes of public code that fine-tunes SAM, and the tests that none is made here.

``python -m tests.traps`` prints them. A test says which it covers by ``@pytest.mark.trap(row)``.
"""

from tests.marked_tests import print_table

ROWS = {
    1: 'a loss on thresholded, normalised masks has no gradient',
    2: 'a third positional argument of a loss is taken for another option',
    3: 'logits are cut at 0.5',
    4: 'the IoU head keeps its estimates while the masks move',
    5: 'of several masks the first is always trained',
    6: 'images are copied for each prompt, and prompts are cut to the fewest',
    7: 'other frames than SAM: pixel values, padding, resizing, boxes, jitter',
    8: 'the padding is part of the loss',
    9: 'the random frequencies of the positions are not loaded',
    10: 'frozen parts change: statistics, random depth',
    11: 'a part that should train gets no gradient',
    12: 'half precision where SAM overflows',
    13: 'features cached under the name of the file: stale, or of other weights',
    14: 'class ids invented by resizing, masks stored as JPEG, 0..255 as targets',
    15: 'an image without objects crashes, or gives NaN',
    16: 'validation prompts that change; the best chosen by the training loss',
    17: 'the written config is not what ran; ports clash; ranks draw alike; state is lost',
    18: 'resuming reads all data again, or starts the epoch again',
    19: 'weights that load nowhere else, or load nothing, silently',
    20: 'loss scaling with bfloat16; ranks that use different parts hang',
}


if __name__ == '__main__':
    print_table(ROWS, 'trap')
