from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub, MMLogger
from reference_sam import build_reference_sam
from tiny_sam import TINY_ARCH, build_segmentor

from mmsam.engine.hooks import StockWeightsHook


def run_hook(model, work_dir, best=None, averages=None, scores='sam/mIoU', key='best_ckpt'):
    """``after_train`` of a finished run.

    Args:
        best: the file of its best checkpoint, if any.
        averages: weights that EMAHook puts into whatever is saved, if it is there.
        scores: ``save_best`` of its checkpoint hook.
        key: under which that notes ``best``.
    """

    def before_save_checkpoint(name, checkpoint):
        assert name == 'before_save_checkpoint'
        checkpoint['state_dict'] = averages or checkpoint['state_dict']

    hub = MessageHub.get_instance(work_dir.name)
    if best is not None:
        hub.update_info(key, str(best))
    logger = MMLogger.get_current_instance()
    StockWeightsHook().after_train(
        SimpleNamespace(
            model=model,
            message_hub=hub,
            work_dir=str(work_dir),
            logger=logger,
            call_hook=before_save_checkpoint,
            hooks=[CheckpointHook(), CheckpointHook(save_best=scores, rule='greater')],
        )  # fmt: skip
    )
    return {path.name for path in work_dir.glob('sam_*.pth')}


def assert_opens_in_reference(path, expected):
    reference = build_reference_sam(TINY_ARCH, 128)
    reference.load_state_dict(torch.load(path, weights_only=True), strict=True)
    for name, value in reference.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_last_weights_where_no_best_was_kept(tmp_path):
    model = build_segmentor()
    assert run_hook(model, tmp_path) == {'sam_tuned.pth'}
    assert_opens_in_reference(tmp_path / 'sam_tuned.pth', model.state_dict())


def test_best_weights_go_first(tmp_path):
    best, last = build_segmentor(), build_segmentor()
    path = tmp_path / 'best_iter_3.pth'
    torch.save({'state_dict': best.state_dict(), 'meta': {}}, path)
    run_hook(last, tmp_path, best=path)
    assert_opens_in_reference(tmp_path / 'sam_tuned.pth', best.state_dict())
    path.unlink()  # a best checkpoint that somebody moved away
    run_hook(last, tmp_path, best=path)
    assert_opens_in_reference(tmp_path / 'sam_tuned.pth', last.state_dict())


@pytest.mark.parametrize('first', [True, False])
def test_the_first_of_several_scores_decides(tmp_path, first):
    """mmengine keeps a best checkpoint of each score, under a name of its own."""
    best, last = build_segmentor(), build_segmentor()
    path = tmp_path / 'best_iter_3.pth'
    torch.save({'state_dict': best.state_dict(), 'meta': {}}, path)
    scores = ['sam/mIoU', 'sam/mDice']
    key = 'best_ckpt_sam/mIoU' if first else 'best_ckpt_sam/mDice'
    run_hook(last, tmp_path, best=path, scores=scores, key=key)
    expected = best if first else last
    assert_opens_in_reference(tmp_path / 'sam_tuned.pth', expected.state_dict())


def test_averages_where_the_run_has_them(tmp_path):
    averages = build_segmentor().state_dict()
    run_hook(build_segmentor(), tmp_path, averages=averages)
    assert_opens_in_reference(tmp_path / 'sam_tuned.pth', averages)


def test_the_name_carries_the_architecture(tmp_path):
    model = build_segmentor()
    model.image_encoder.arch_name = 'vit_b'
    assert run_hook(model, tmp_path) == {'sam_vit_b_tuned.pth'}


def test_other_models_are_left_alone(tmp_path):
    assert run_hook(torch.nn.Linear(2, 2), tmp_path) == set()
