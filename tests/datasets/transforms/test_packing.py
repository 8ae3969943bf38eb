import numpy as np
import torch

from mmsam.datasets.transforms import PackSAMInputs
from mmsam.structures import SAMDataSample


def results(**more):
    return {
        'img_path': 'a.png',
        'img_id': 3,
        'ori_shape': (12, 16),
        'img_shape': (6, 8),
        'img': np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3),
        'boxes': np.array([[1, 2, 3, 4]], np.float32),
        'labels': np.array([2]),
    } | more


def test_validation_sample():
    packed = PackSAMInputs()(
        results(gt_boxes=np.array([[2, 4, 6, 8]], np.float32), rles=[{'size': [12, 16]}])
    )
    inputs, sample = packed['inputs'], packed['data_samples']
    assert inputs.dtype == torch.uint8 and inputs.is_contiguous()
    assert inputs[2, 4, 5] == (4 * 8 + 5) * 3 + 2
    assert isinstance(sample, SAMDataSample)
    assert sample.metainfo == {
        'img_path': 'a.png', 'img_id': 3, 'ori_shape': (12, 16), 'img_shape': (6, 8)
    }  # fmt: skip
    assert sample.prompts.boxes.tolist() == [[1, 2, 3, 4]]
    assert sample.gt_instances.boxes.tolist() == [[2, 4, 6, 8]]
    assert sample.gt_instances.labels.tolist() == [2]
    assert sample.gt_instances.rles == [{'size': [12, 16]}]
    assert 'masks' not in sample.gt_instances
    assert 'ignored_instances' not in sample


def test_an_embedding_takes_the_place_of_the_image():
    embedding = torch.zeros(2, 4, 4, dtype=torch.float16)
    sample = results(rles=[{}], image_embeddings=embedding)
    del sample['img']
    packed = PackSAMInputs()(sample)
    assert packed.keys() == {'image_embeddings', 'data_samples'}
    assert packed['image_embeddings'] is embedding
    assert packed['data_samples'].prompts.boxes.tolist() == [[1, 2, 3, 4]]


def test_crowds_are_ignored_instances():
    crowds = {'ignored_rles': [{'size': [12, 16]}] * 2, 'ignored_labels': np.array([1, 0])}
    sample = PackSAMInputs()(results(rles=[{}], **crowds))['data_samples']
    assert sample.ignored_instances.rles == crowds['ignored_rles']
    assert sample.ignored_instances.labels.tolist() == [1, 0]
    assert sample.gt_instances.labels.tolist() == [2]


def test_training_sample():
    drawn = np.array([[0, 1, 4, 5]], np.float32)
    masks = np.ones((1, 6, 8), np.uint8)
    sample = PackSAMInputs()(results(prompt_boxes=drawn, gt_masks=masks))['data_samples']
    assert sample.prompts.boxes.tolist() == drawn.tolist()
    assert torch.equal(sample.gt_instances.masks, torch.ones(1, 6, 8, dtype=torch.uint8))
    assert 'rles' not in sample.gt_instances and 'boxes' not in sample.gt_instances


def test_drawn_prompts_are_packed_with_seeds():
    drawn = {
        'prompt_kinds': np.array([1]),
        'prompt_points': np.array([[[2, 3]]], np.float32),
        'prompt_masks': np.ones((1, 2, 2), np.float32),
    }
    seeds = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        prompts = PackSAMInputs()(results(rles=[{}], **drawn))['data_samples'].prompts
        seeds.append(int(prompts.seeds))
        for name, values in drawn.items():
            assert prompts[name.removeprefix('prompt_')].tolist() == values.tolist()
    assert seeds[0] == seeds[1] != seeds[2]
    assert 'kinds' not in PackSAMInputs()(results(rles=[{}]))['data_samples'].prompts


def test_boxes_of_a_detector_keep_their_own_number():
    detected = {
        'boxes': np.ones((2, 4), np.float32),
        'prompt_scores': np.array([0.25, 0.5], np.float32),
        'prompt_labels': np.array([1, 0]),
    }
    sample = PackSAMInputs()(results(rles=[{}], **detected))['data_samples']
    assert sample.prompts.scores.tolist() == [0.25, 0.5]
    assert sample.prompts.labels.tolist() == [1, 0]
    assert sample.gt_instances.labels.tolist() == [2]
