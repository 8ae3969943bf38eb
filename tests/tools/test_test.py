"""Testing a checkpoint by the command line, and weights that go out and in again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from reference_sam import build_reference_sam
from tiny_run import (
    VAL_COUNTS,
    finish,
    refused,
    run_here,
    start,
    weights_of,
    write_config,
)
from tiny_sam import TINY_ARCH

from tools import export_weights, test, train

IMG_SIZE = 128


@pytest.fixture(scope='module')
def official(tmp_path_factory) -> Path:
    """Weights as segment_anything saves them."""
    path = tmp_path_factory.mktemp('official') / 'sam_tiny.pth'
    torch.save(build_reference_sam(TINY_ARCH, IMG_SIZE).state_dict(), path)
    return path


@pytest.fixture(scope='module')
def trained(data, official, tmp_path_factory):
    """Three decoder steps from the official weights: the config and the work dir."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_config(
        folder, data, IMG_SIZE, max_iters=3,
        # float32 on every machine, also in processes of its own
        extra="model.update(frozen=('image_encoder', 'prompt_encoder'), encoder_dtype='float32')",
    )  # fmt: skip
    run_here(
        train, config, '--load-from', official, '--work-dir', folder / 'run',
        '--options', 'evaluation.interval=3', 'default_hooks.checkpoint.interval=3',
        'optim_wrapper.optimizer.lr=1e-4',  # so that something is still predicted
    )  # fmt: skip
    return config, folder / 'run'


@pytest.fixture(scope='module')
def tested(trained, tmp_path_factory):
    """The folder in which the tool ran, by its command line."""
    config, work_dir = trained
    folder = tmp_path_factory.mktemp('tested')
    process = start(
        'test.py', config, work_dir / 'iter_3.pth', '--work-dir', 'run',
        '--out', 'out/predictions.json', '--show-dir', 'pictures', cwd=folder,
    )  # fmt: skip
    done = finish(process)
    assert done.returncode == 0, done.stderr
    return folder


def test_its_metrics_are_those_of_the_validation(trained, tested):
    """Test and validation data are the same images, here one by one, there in pairs."""
    _, work_dir = trained
    expected = json.loads((work_dir / 'results.json').read_text())
    (path,) = (tested / 'run').glob('*/*.json')
    metrics = json.loads(path.read_text())
    assert expected['after']['mIoU'] > 0
    for name, value in expected['after'].items():
        assert metrics[f'sam/{name}'] == pytest.approx(value, abs=1e-3), name
    assert metrics['sam/box_fill_mIoU'] == expected['box_fill']['mIoU']


def test_predictions_are_coco_results(data, tested):
    coco = COCO(data / 'annotations_test.json')
    path = tested / 'out' / 'predictions.json'
    results = coco.loadRes(str(path))
    assert len(results.anns) == sum(VAL_COUNTS)
    for annotation in results.anns.values():
        image = coco.imgs[annotation['image_id']]
        assert results.annToMask(annotation).shape == (image['height'], image['width'])
    boxes = [entry['prompt_box'] for entry in json.loads(path.read_text())]
    truth = [coco.anns[number]['bbox'] for number in sorted(coco.anns)]
    np.testing.assert_allclose(boxes, truth, atol=1e-2)


def test_predictions_score_as_the_metric_says(data, tested):
    """IoU by hand from the two files alone."""
    coco = COCO(data / 'annotations_test.json')
    entries = coco.loadRes(str(tested / 'out' / 'predictions.json'))
    ious = []
    for truth, entry in zip(
        coco.loadAnns(sorted(coco.anns)), entries.loadAnns(sorted(entries.anns)), strict=True
    ):
        a, b = coco.annToMask(truth) > 0, entries.annToMask(entry) > 0
        ious.append((a & b).sum() / (a | b).sum())
    (path,) = (tested / 'run').glob('*/*.json')
    assert json.loads(path.read_text())['sam/mIoU'] == pytest.approx(np.mean(ious), abs=1e-6)


def metrics_in(work_dir):
    (path,) = work_dir.glob('*/*.json')
    return json.loads(path.read_text())


def test_clicks_and_box_noise(trained, tested, tmp_path):
    config, work_dir = trained
    run_here(
        test, config, work_dir / 'iter_3.pth', '--work-dir', tmp_path,
        '--clicks', 3, '--box-noise', 0.1,
    )  # fmt: skip
    metrics, plain = metrics_in(tmp_path), metrics_in(tested / 'run')
    new = {name for name in metrics if name.startswith('sam/')} - plain.keys()
    assert new == {
        'sam/mIoU_noise10', 'sam/mIoU_click1', 'sam/mIoU_click2', 'sam/mIoU_click3',
        'sam/NoC85', 'sam/NoC90',
    }  # fmt: skip
    assert metrics['sam/mIoU'] == pytest.approx(plain['sam/mIoU'])
    assert 0 < metrics['sam/mIoU_noise10'] != metrics['sam/mIoU']
    assert 1 <= metrics['sam/NoC85'] <= metrics['sam/NoC90'] <= 3


def test_amp_predicts_in_bfloat16(trained, tested, tmp_path):
    config, work_dir = trained
    run_here(test, config, work_dir / 'iter_3.pth', '--work-dir', tmp_path, '--amp')
    rounded, exact = (metrics_in(folder)['sam/IoU_bias'] for folder in (tmp_path, tested / 'run'))
    assert rounded != exact and rounded == pytest.approx(exact, abs=1e-2)


def test_boxes_of_a_detector(data, trained, tested, tmp_path):
    """What the model predicts is made the truth; one box more is wrong. By hand: from the files."""
    config, work_dir = trained
    truth = json.loads((data / 'annotations_test.json').read_text())
    predicted = json.loads((tested / 'out' / 'predictions.json').read_text())
    for annotation, mask in zip(truth['annotations'], predicted, strict=True):
        area = int(mask_utils.area(mask['segmentation']))
        annotation.update(segmentation=mask['segmentation'], area=area)
    annotations = tmp_path / 'truth.json'
    annotations.write_text(json.dumps(truth))
    names = ('image_id', 'category_id', 'bbox')
    boxes = [{name: annotation[name] for name in names} for annotation in truth['annotations']]
    boxes.insert(1, boxes[0] | dict(bbox=[1, 2, 30, 20]))
    for rank, box in enumerate(boxes):
        box['score'] = 0.9 - rank / 10
    results, out = tmp_path / 'results.json', tmp_path / 'masks.json'
    results.write_text(json.dumps(boxes))
    run_here(
        test, config, work_dir / 'iter_3.pth', '--work-dir', tmp_path / 'run',
        '--boxes', results, '--out', out,
        '--options', f'test_dataloader.dataset.reader.ann_file={annotations}',
    )  # fmt: skip
    coco = COCO(annotations)
    evaluation = COCOeval(coco, coco.loadRes(str(out)), 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    metrics = metrics_in(tmp_path / 'run')
    names = ('AP', 'AP50', 'AP75', 'AR')
    expected = dict(zip(names, evaluation.stats[[0, 1, 2, 8]], strict=True))
    assert {name: metrics[f'coco/{name}'] for name in names} == pytest.approx(expected)
    assert metrics['coco/AR'] == 1 and 0.5 < metrics['coco/AP'] < 1
    scores = [mask['score'] for mask in json.loads(out.read_text())]
    assert scores == pytest.approx([box['score'] for box in boxes])


def test_one_picture_per_image(data, tested):
    images = json.loads((data / 'annotations_test.json').read_text())['images']
    pictures = sorted((tested / 'pictures').iterdir())
    assert [path.stem.split('_', 1)[1] for path in pictures] == [
        Path(image['file_name']).stem for image in images
    ]
    for path in pictures:
        assert Image.open(path).convert('RGB').getextrema() != ((0, 0),) * 3


def test_a_missing_checkpoint(trained, tmp_path, capsys):
    config, _ = trained
    missing = tmp_path / 'no.pth'
    code, line = refused(capsys, test, config, missing, '--work-dir', tmp_path)
    assert code == 4 and str(missing) in line


def test_an_out_file_that_is_no_json(trained, tmp_path, capsys):
    config, work_dir = trained
    code, line = refused(
        capsys, test, config, work_dir / 'iter_3.pth', '--work-dir', tmp_path, '--out', 'x.pkl'
    )
    assert code == 2 and 'x.pkl' in line


def test_a_config_without_test_data(data, trained, tmp_path, capsys):
    config = write_config(tmp_path, data, IMG_SIZE, extra='test_dataloader = None')
    code, line = refused(capsys, test, config, trained[1] / 'iter_3.pth', '--work-dir', tmp_path)
    assert (code, line) == (2, f'ConfigError: {config} has no test_dataloader.')


def test_missing_test_data(trained, tmp_path, capsys):
    config, work_dir = trained
    code, line = refused(
        capsys, test, config, work_dir / 'iter_3.pth', '--work-dir', tmp_path,
        '--options', 'test_dataloader.dataset.data_root=no/data',
    )  # fmt: skip
    assert code == 3 and 'no/data' in line


def test_weights_go_out_to_segment_anything_again(trained, official, tmp_path):
    """From segment_anything, through three decoder steps, and back: strictly."""
    _, work_dir = trained
    shutil.copy(work_dir / 'iter_3.pth', tmp_path)
    arguments = [str(tmp_path / 'iter_3.pth'), str(tmp_path / 'tuned.pth')]
    assert export_weights.main(arguments) == 0
    sam = build_reference_sam(TINY_ARCH, IMG_SIZE)
    sam.load_state_dict(torch.load(tmp_path / 'tuned.pth', weights_only=True), strict=True)
    before = torch.load(official, weights_only=True)
    after = sam.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        if not key.startswith('mask_decoder.'):
            assert torch.equal(after[key], value), key
    changed = {
        key
        for key, value in before.items()
        if key.startswith('mask_decoder.') and not torch.equal(after[key], value)
    }
    assert {'mask_decoder.mask_tokens.weight', 'mask_decoder.iou_token.weight'} <= changed
    trained_weights = weights_of(work_dir / 'iter_3.pth')
    assert all(torch.equal(after[key], value) for key, value in trained_weights.items())


# ------------------------------------------------------------------------------------ --zero-shot


@pytest.fixture(scope='module')
def compared(trained, official, tmp_path_factory):
    """The folder of a comparison of the trained weights, and those of the official ones alone."""
    config, work_dir = trained
    folder = tmp_path_factory.mktemp('compared')
    run_here(test, config, official, '--work-dir', folder / 'stock')
    run_here(
        test, config, work_dir / 'iter_3.pth', '--zero-shot', official,
        '--work-dir', folder / 'both', '--show-dir', folder / 'pictures',
        '--out', folder / 'predictions.json',
    )  # fmt: skip
    return folder


def scores_of(work_dir: Path) -> dict[str, float]:
    (path,) = work_dir.glob('*/*.json')
    return {name.partition('/')[2]: score for name, score in json.loads(path.read_text()).items()}


def test_gains_are_the_difference_of_two_tests(compared, tested):
    comparison = json.loads((compared / 'both' / 'comparison.json').read_text())
    stock, tuned = scores_of(compared / 'stock'), scores_of(tested / 'run')
    assert stock['mIoU'] != tuned['mIoU']
    assert comparison['before'].keys() == comparison['after'].keys() >= {'mIoU', 'mDice', 'mBIoU'}
    for name in comparison['before']:
        assert comparison['before'][name] == stock[name], name
        assert comparison['after'][name] == tuned[name], name
    assert comparison['box_fill']['mIoU'] == stock['box_fill_mIoU']
    (log,) = (compared / 'both').glob('*/*.log')
    (row,) = [line for line in log.read_text().splitlines() if line.startswith('| mIoU ')]
    assert [cell.strip() for cell in row.strip('|').split('|')] == [
        'mIoU', f'{stock["box_fill_mIoU"]:.4f}', f'{stock["mIoU"]:.4f}', f'{tuned["mIoU"]:.4f}',
        f'{tuned["mIoU"] - stock["mIoU"]:+.4f}',
    ]  # fmt: skip


def test_the_predictions_are_those_of_the_tuned_weights(compared, tested):
    tuned = (tested / 'out' / 'predictions.json').read_text()
    assert (compared / 'predictions.json').read_text() == tuned


def test_regressions_are_listed_and_drawn(compared):
    comparison = json.loads((compared / 'both' / 'comparison.json').read_text())
    images = comparison['images']
    assert len(images) == len(VAL_COUNTS)
    gains = {path: scores['after'] - scores['before'] for path, scores in images.items()}
    assert [scores['gain'] for scores in images.values()] == sorted(gains.values())
    assert {path: scores['gain'] for path, scores in images.items()} == gains
    worse = [path for path in sorted(gains, key=gains.__getitem__) if gains[path] < 0]
    assert worse, 'choose other weights: nothing became worse'
    assert [entry['image'] for entry in comparison['images_worse']] == worse
    assert [path.name for path in sorted((compared / 'pictures').iterdir())] == [
        f'{number:04d}_{Path(path).stem}.png' for number, path in enumerate(worse)
    ]
    for path in (compared / 'pictures').iterdir():
        assert Image.open(path).width > 3 * 256  # three panels
    # the mean fall of an image is that of its objects
    for path in worse:
        falls = [
            entry['after'] - entry['before']
            for entry in comparison['objects_worse']
            if entry['image'] == path
        ]
        count = VAL_COUNTS[int(Path(path).stem.split('_')[1]) - 1]
        assert falls == sorted(falls) and sum(falls) / count <= gains[path] + 1e-9


def test_stock_weights_that_are_missing(trained, tmp_path, capsys):
    config, work_dir = trained
    code, line = refused(
        capsys, test, config, work_dir / 'iter_3.pth', '--work-dir', tmp_path,
        '--zero-shot', tmp_path / 'no.pth',
    )  # fmt: skip
    assert code == 4 and str(tmp_path / 'no.pth') in line
