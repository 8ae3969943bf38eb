"""Three small images with objects that are known pixel by pixel, written in every format.

``a``: a cat shaped like an L, and a dog in two parts; ``b``: nothing; ``c``: a dog in a corner.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {'a': (60, 80), 'b': (40, 40), 'c': (50, 30)}
"""(height, width) by name."""

CLASSES = ('cat', 'dog')

L_SHAPE = [[10, 5], [30, 5], [30, 15], [20, 15], [20, 25], [10, 25]]
PART_ONE = [[40, 30], [50, 30], [50, 40], [40, 40]]
PART_TWO = [[60, 45], [70, 45], [70, 58], [60, 58]]
CORNER = [[0, 0], [7, 0], [7, 9], [0, 9]]

OBJECTS = {
    'a': [('cat', [L_SHAPE]), ('dog', [PART_ONE, PART_TWO])],
    'b': [],
    'c': [('dog', [CORNER])],
}
"""Label and polygons (x, y) of each object."""

BOXES = {'a': [[10, 5, 30, 25], [40, 30, 70, 58]], 'b': [], 'c': [[0, 0, 7, 9]]}


def masks(name):
    """The objects' masks, each (H, W) uint8."""
    found = [np.zeros(SIZES[name], np.uint8) for _ in OBJECTS[name]]
    if name == 'a':
        found[0][5:15, 10:30] = found[0][15:25, 10:20] = 1
        found[1][30:40, 40:50] = found[1][45:58, 60:70] = 1
    elif name == 'c':
        found[0][0:9, 0:7] = 1
    return found


def one_polygon(parts):
    """Parts joined by a line without a width, there and back, as YOLO's converters do."""
    if len(parts) == 1:
        return parts[0]
    one, two = parts
    return [*one[:3], *two, two[0], one[2], one[3]]


def runs(mask):
    """Uncompressed RLE counts, pixel by pixel down the columns."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def brush_code(values, lengths=(3, 4, 8, 16)):
    """Label Studio's code of bytes, a block for each run; single values as literals."""
    bits = f'{len(values):032b}' + f'{7:05b}' + ''.join(f'{size - 1:04b}' for size in lengths)
    position = 0
    while position < len(values):
        end = position
        while end < len(values) and values[end] == values[position] and end - position < 65536:
            end += 1
        number = end - position - 1
        which = next(i for i, size in enumerate(lengths) if number < 2**size)
        bits += f'{int(number > 0)}{which:02b}{number:0{lengths[which]}b}{values[position]:08b}'
        position = end
    bits += '0' * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def brush(mask):
    """The code of a mask that is painted in a colour."""
    return brush_code(np.multiply.outer(mask, [30, 0, 200, 255]).ravel().tolist())


def png_text(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, 'PNG')
    return base64.b64encode(buffer.getvalue()).decode()


def ids(name, of_class=False):
    """One mask for all objects: their numbers from 1, or those of their classes from 1."""
    found = np.zeros(SIZES[name], np.uint8)
    for number, (mask, (label, _)) in enumerate(zip(masks(name), OBJECTS[name], strict=True), 1):
        found[mask == 1] = CLASSES.index(label) + 1 if of_class else number
    return found


def save_palette(mask, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask).convert('P')
    image.putdata(mask.ravel().tolist())
    image.putpalette([9, 9, 9] * 256)  # colours do not tell the values
    image.save(path)


def write_images(folder):
    folder.mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        Image.new('RGB', (width, height), (9, 80, 200)).save(folder / f'{name}.jpg')


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco(root, kind='polygon'):
    write_images(root / 'images')
    images, annotations = [], []
    for image_id, (name, (height, width)) in enumerate(SIZES.items(), 1):
        file_name = f'{name}.jpg'
        images.append(dict(id=image_id, file_name=file_name, height=height, width=width))
        for (label, parts), mask, box in zip(OBJECTS[name], masks(name), BOXES[name], strict=True):
            if kind == 'polygon':
                segmentation = [[value for point in part for value in point] for part in parts]
            else:
                segmentation = dict(size=[height, width], counts=runs(mask))
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=image_id, iscrowd=0,
                    category_id=CLASSES.index(label) + 5, segmentation=segmentation,
                    bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]],
                )
            )  # fmt: skip
    categories = [dict(id=5, name='cat'), dict(id=6, name='dog')]
    content = dict(images=images, annotations=annotations, categories=categories)
    write_json(root / 'annotations.json', content)
    return dict(reader=dict(type='coco', ann_file='annotations.json'))


def coco_runs(root):
    return coco(root, 'runs')


def sa1b(root):
    write_images(root / 'images')
    for image_id, (name, (height, width)) in enumerate(SIZES.items(), 1):
        record = dict(image_id=image_id, width=width, height=height, file_name=f'{name}.jpg')
        annotations = [
            dict(
                id=100 + number, bbox=[0, 0, 1, 1], area=int(mask.sum()), predicted_iou=0.9,
                stability_score=0.9, crop_box=[0, 0, width, height], point_coords=[[1.0, 1.0]],
                segmentation=dict(size=[height, width], counts=runs(mask)),
            )
            for number, mask in enumerate(masks(name))
        ]  # fmt: skip
        write_json(root / 'images' / f'{name}.json', dict(image=record, annotations=annotations))
    return dict(reader=dict(type='sa1b'))


def yolo_seg(root):
    write_images(root / 'images' / 'train')
    folder = root / 'labels' / 'train'
    folder.mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        lines = [
            f'{CLASSES.index(label)} '
            + ' '.join(f'{x / width:.6f} {y / height:.6f}' for x, y in one_polygon(parts))
            for label, parts in OBJECTS[name]
        ]
        if lines:  # YOLO: no file for an image without objects
            (folder / f'{name}.txt').write_text('\n'.join(lines) + '\n')
    (root / 'data.yaml').write_text('path: .\ntrain: images/train\nnames:\n  0: cat\n  1: dog\n')
    reader = dict(type='yolo_seg', ann_dir='labels/train', names_file='data.yaml')
    return dict(reader=reader, data_prefix=dict(img='images/train'))


def labelme(root, kind='polygon'):
    write_images(root / 'images')
    for name, (height, width) in SIZES.items():
        shapes = []
        for number, (label, parts) in enumerate(OBJECTS[name]):
            for part in parts:
                group = number if len(parts) > 1 else None
                shape = dict(label=label, points=part, group_id=group, shape_type='polygon')
                if kind == 'mask':
                    (x1, y1), (x2, y2) = np.min(part, axis=0), np.max(part, axis=0)
                    window = masks(name)[number][y1:y2, x1:x2]
                    shape['points'] = [[float(x1), float(y1)], [float(x2 - 1), float(y2 - 1)]]
                    shape.update(shape_type='mask', mask=png_text(window))
                elif kind == 'rectangle' and len(part) == 4:
                    shape.update(shape_type='rectangle', points=[part[2], part[0]])
                shapes.append(shape)
        content = dict(
            version='5.5.0', flags={}, shapes=shapes, imagePath=f'..\\images\\{name}.jpg'
        )
        content.update(imageData=None, imageHeight=height, imageWidth=width)
        write_json(root / 'json' / f'{name}.json', content)
    return dict(reader=dict(type='labelme', ann_dir='json'))


def labelme_masks(root):
    return labelme(root, 'mask')


def labelme_rectangles(root):
    return labelme(root, 'rectangle')


def label_studio(root, kind='brush'):
    write_images(root / 'images')
    tasks = []
    for number, (name, (height, width)) in enumerate(SIZES.items(), 7):
        results = []
        for (label, parts), mask in zip(OBJECTS[name], masks(name), strict=True):
            value = {f'{kind}labels': [label]}
            if kind == 'brush':
                value.update(format='rle', rle=brush(mask))
            else:
                points = one_polygon(parts)
                value['points'] = [[100 * x / width, 100 * y / height] for x, y in points]
            results.append(
                dict(
                    id=f'r{len(results)}', type=f'{kind}labels', from_name='tag', to_name='image',
                    original_width=width, original_height=height, image_rotation=0, value=value,
                )
            )  # fmt: skip
        annotation = dict(id=number, was_cancelled=False, ground_truth=False, result=results)
        data = dict(image=f'/data/upload/1/0a1b2c3d-{name}.jpg')
        tasks.append(dict(id=number, data=data, annotations=[annotation], predictions=[]))
    write_json(root / 'export.json', tasks)
    return dict(reader=dict(type='label_studio', ann_file='export.json'))


def label_studio_polygons(root):
    return label_studio(root, 'polygon')


def voc(root):
    write_images(root / 'JPEGImages')
    for name in SIZES:
        for folder, of_class in (('SegmentationObject', False), ('SegmentationClass', True)):
            mask = ids(name, of_class)
            mask[-1, -5:] = 255  # an edge of nothing
            save_palette(mask, root / folder / f'{name}.png')
    (root / 'names.txt').write_text('_background_\ncat\ndog\n')
    names = root / 'ImageSets' / 'Segmentation' / 'train.txt'
    names.parent.mkdir(parents=True)
    names.write_text('a\nb\nc\n')
    split = 'ImageSets/Segmentation/train.txt'
    reader = dict(type='voc', split=split, names_file='names.txt')
    return dict(reader=reader, data_prefix=dict(img='JPEGImages'))


def davis(root):
    for name in SIZES:  # a sequence of one frame each, as their sizes differ
        write_images(root / 'all')
        folder = root / 'JPEGImages' / '480p' / name
        folder.mkdir(parents=True)
        (root / 'all' / f'{name}.jpg').rename(folder / '00000.jpg')
        for path in (root / 'all').iterdir():
            path.unlink()
        (root / 'all').rmdir()
        save_palette(ids(name), root / 'Annotations' / '480p' / name / '00000.png')
    names = root / 'ImageSets' / '2017' / 'train.txt'
    names.parent.mkdir(parents=True)
    names.write_text('a\nb\nc\n')
    split = 'ImageSets/2017/train.txt'
    reader = dict(type='davis', ann_dir='Annotations/480p', split=split)
    return dict(reader=reader, data_prefix=dict(img='JPEGImages/480p'))


def mask_folder(root, kind='instance'):
    write_images(root / 'images')
    for name in SIZES:
        save_palette(ids(name, kind == 'label_map'), root / 'masks' / f'{name}.png')
    return dict(reader=dict(type='mask_folder', mask_dir='masks', kind=kind))


def label_map(root):
    metainfo = dict(classes=('background', *CLASSES))
    return dict(mask_folder(root, 'label_map'), metainfo=metainfo)


FORMATS = {
    write.__name__: write
    for write in (
        coco, coco_runs, sa1b, yolo_seg, labelme, labelme_masks, labelme_rectangles, label_studio,
        label_studio_polygons, voc, davis, mask_folder, label_map,
    )
}  # fmt: skip
"""Writers by name. Each takes a folder and returns what ``BoxPromptDataset`` needs beside it."""

WITHOUT_CLASSES = ('sa1b', 'davis', 'mask_folder')


def options(root: Path, form: str) -> dict:
    """Write a format; arguments of ``BoxPromptDataset`` that read it."""
    return dict(FORMATS[form](root), data_root=str(root), test_mode=True)
