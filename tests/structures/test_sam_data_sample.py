import pytest
import torch
from mmengine.structures import InstanceData

from mmsam.structures import SAMDataSample


@pytest.fixture
def sample() -> SAMDataSample:
    sample = SAMDataSample(metainfo=dict(img_path='a.png', ori_shape=(40, 60)))
    sample.prompts = InstanceData(boxes=torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    sample.gt_instances = InstanceData(labels=torch.tensor([7]))
    return sample


def test_fields_keep_what_was_put_in(sample):
    sample.pred_instances = InstanceData(iou_predictions=torch.tensor([0.5]))
    assert sample.prompts.boxes.tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert sample.gt_instances.labels.tolist() == [7]
    assert sample.pred_instances.iou_predictions.tolist() == [0.5]
    assert sample.ori_shape == (40, 60)


def test_fields_show_under_their_public_names(sample):
    assert 'prompts' in sample and 'gt_instances' in sample
    assert 'pred_instances' not in sample


@pytest.mark.parametrize(
    'field', ['prompts', 'gt_instances', 'ignored_instances', 'pred_instances']
)
def test_another_type_is_refused(sample, field):
    with pytest.raises(AssertionError, match='InstanceData'):
        setattr(sample, field, dict(boxes=torch.zeros(1, 4)))


def test_a_missing_field_is_an_attribute_error(sample):
    with pytest.raises(AttributeError):
        _ = sample.pred_instances


def test_objects_of_one_field_have_one_length(sample):
    with pytest.raises(AssertionError):
        sample.gt_instances.masks = torch.zeros(2, 40, 60)


def test_moves_all_fields_together(sample):
    moved = sample.to(torch.float64)
    assert moved.prompts.boxes.dtype == torch.float64
    assert moved.img_path == 'a.png'
    assert sample.prompts.boxes.dtype == torch.float32
