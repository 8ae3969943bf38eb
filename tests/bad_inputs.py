"""Bad inputs a fine-tuner meets, and the test that covers each: ``python -m tests.bad_inputs``.

A test says which rows it covers by ``@pytest.mark.bad_input(row, ...)``.
"""

import ast
from pathlib import Path

TESTS = Path(__file__).parent

ROWS = {
    1: 'JPEG that ends early',
    2: 'empty file or web page named .jpg',
    3: 'EXIF orientation',
    4: '16-bit image',
    5: 'float image',
    6: 'image with alpha',
    7: 'gray, palette or 1-bit image',
    8: 'CMYK image',
    9: 'animated or multi-page image',
    10: 'large image in a small file',
    11: 'decompression bomb',
    12: 'image of one pixel',
    13: 'image file that is missing',
    14: 'spaces and umlauts in a file name',
    15: 'mask saved in colours',
    16: 'mask of another size than its image',
    17: 'mask or image without an object',
    18: 'binary mask of 0 and 255',
    19: 'mask with gray levels',
    20: 'label beyond the classes',
    21: 'float mask',
    22: 'RLE of another size',
    23: 'RLE that is too short',
    24: 'RLE that is too long',
    25: 'RLE with negative or huge runs',
    26: 'compressed RLE of garbage',
    27: 'polygon with NaN',
    28: 'polygon far outside the image',
    29: 'polygon of two points',
    30: 'polygon with half a point',
    31: 'annotation without a mask',
    32: 'polygon that leaves the image',
    33: 'coordinates written as text',
    34: 'crowd annotation',
    35: 'annotation ids that are not unique',
    36: 'image ids that are not unique',
    37: 'annotation of no image',
    38: 'JSON that is no COCO file',
    39: 'JSON in another encoding, or cut off',
    40: 'NaN as a JSON number',
    41: 'annotation file larger than memory',
    42: 'annotated size is not that of the image',
    43: 'box without an area',
    44: 'box with NaN',
    45: 'box outside the image',
    46: 'box as corner and size where corners are expected',
    47: 'box in shares of the image',
    48: 'many prompts in one image',
    49: 'empty or overlapping splits',
    50: 'truncated checkpoint',
    51: 'checkpoint with a flipped bit',
    52: 'Git LFS pointer, web page or text as a checkpoint',
    53: 'checkpoint that runs code when it is unpickled',
    54: 'checkpoint with code in its metadata',
    55: 'checkpoint that grows when it is read',
    56: 'weights of another architecture',
    57: 'weights in another layout',
    58: 'weights of a wrapped model',
    59: 'position embeddings of another image size',
    60: 'weights in half precision, or NaN',
    61: 'resuming from mere weights',
    62: 'resuming with other frozen parts',
    63: 'resuming with another number of GPUs',
    64: 'resuming in an empty folder',
    65: 'work dir that was moved',
    66: "checkpoint of mmengine's own",
    67: 'misspelled key',
    68: 'override that is no value',
    69: 'misspelled type',
    70: 'interval of 0, or never',
    71: 'number written as text',
    72: 'YAML that runs code',
    73: "a stranger's config or pickled annotations",
    74: 'gradient checkpointing behind frozen layers',
    75: 'impossible number of GPUs',
    76: 'more GPUs than there are, unknown partition',
    77: 'port that is taken',
    78: 'container without scontrol',
    79: 'torch without CUDA',
    80: 'two runs in one work dir',
    81: 'SIGTERM',
    82: 'SIGUSR1 to the launcher',
    83: 'signal during the imports',
    84: 'full disk',
    85: 'work dir that cannot be written',
    86: 'small /dev/shm',
    87: 'data loader process killed for memory',
    88: 'data loader process that hangs',
    89: 'rank that hangs',
    90: 'NaN loss',
}


def covering_tests() -> dict[int, list[str]]:
    """Row to the tests that are marked with it, as pytest names them; read, not imported."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob('test_*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            for row in _marked_rows(node):
                found.setdefault(row, []).append(f'{path.relative_to(TESTS.parent)}::{node.name}')
    return found


def _marked_rows(node: ast.AST) -> list[int]:
    return [
        ast.literal_eval(row)
        for decorator in getattr(node, 'decorator_list', ())
        if ast.unparse(decorator).startswith('pytest.mark.bad_input(')
        for row in decorator.args
    ]


def main() -> None:
    tests = covering_tests()
    for row, title in ROWS.items():
        print(f'{row:2}  {title}')
        for name in tests.get(row, ['open']):
            print(f'      {name}')


if __name__ == '__main__':
    main()
