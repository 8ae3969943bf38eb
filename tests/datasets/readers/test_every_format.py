"""The same objects, written in every format, are the same samples."""

from pathlib import Path

import annotated_scenes as scenes
import numpy as np
import pytest
from pycocotools import mask as mask_api

from mmsam.datasets import BoxPromptDataset

pytestmark = pytest.mark.usefixtures('quick_data_sets')

PIPELINE = [dict(type='LoadSAMImage')]


@pytest.mark.parametrize('form', scenes.FORMATS)
def test_samples_are_equal(tmp_path, form):
    options = scenes.options(tmp_path, form)
    dataset = BoxPromptDataset(**options, pipeline=PIPELINE, empty_images='keep')
    names = {'davis': [f'{name}/00000' for name in scenes.SIZES]}.get(form, list(scenes.SIZES))
    assert len(dataset) == 3
    for index, (name, path) in enumerate(zip(scenes.SIZES, names, strict=True)):
        sample = dataset[index]
        assert Path(sample['img_path']).with_suffix('').as_posix().endswith(f'/{path}')
        assert sample['img'].shape == (*scenes.SIZES[name], 3)
        assert sample['ori_shape'] == (sample['height'], sample['width']) == scenes.SIZES[name]
        assert sample['boxes'].dtype == np.float32 and sample['boxes'].shape[1:] == (4,)
        assert sample['boxes'].tolist() == scenes.BOXES[name]
        labels = [scenes.CLASSES.index(label) for label, _ in scenes.OBJECTS[name]]
        if form in scenes.WITHOUT_CLASSES:
            labels = [0] * len(labels)
        elif form == 'label_map':
            labels = [label + 1 for label in labels]
        assert sample['labels'].tolist() == labels
        for rle, mask in zip(sample['rles'], scenes.masks(name), strict=True):
            assert rle == mask_api.encode(np.asfortranarray(mask))


@pytest.mark.parametrize('form', scenes.FORMATS)
@pytest.mark.bad_input(17)
def test_images_without_objects_are_skipped(tmp_path, form):
    dataset = BoxPromptDataset(**scenes.options(tmp_path, form))
    assert [dataset[index]['height'] for index in range(len(dataset))] == [60, 50]


WITH_CLASSES = [
    form for form in scenes.FORMATS if form not in (*scenes.WITHOUT_CLASSES, 'label_map')
]


@pytest.mark.parametrize('form', WITH_CLASSES)
def test_one_class_is_chosen(tmp_path, form):
    options = scenes.options(tmp_path, form) | dict(metainfo=dict(classes=('dog',)))
    dataset = BoxPromptDataset(**options)
    assert dataset.metainfo['classes'] == ('dog',)
    assert [dataset[index]['labels'].tolist() for index in range(len(dataset))] == [[0], [0]]
    assert dataset[0]['boxes'].tolist() == scenes.BOXES['a'][1:]
