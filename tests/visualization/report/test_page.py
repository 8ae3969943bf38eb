import base64
import io
import json

import numpy as np
import pytest
from html_page import HtmlPage
from PIL import Image

from mmsam.rgb_image import ImageReading
from mmsam.score_comparison import Results
from mmsam.structures.rle import encode_masks
from mmsam.visualization.prediction_files import ImagePredictions
from mmsam.visualization.report import report_page, write_report
from mmsam.visualization.report.run_record import RunRecord, Start

SIZE = (20, 30)
NASTY = 'a<b>&"Grün".png'


def mask(columns: int) -> dict:
    pixels = np.zeros((1, *SIZE), np.uint8)
    pixels[..., :columns] = 1
    return encode_masks(pixels)[0]


def image(folder, name: str, **masks) -> ImagePredictions:
    path = folder / name
    Image.new('RGB', SIZE[::-1], (200, 200, 200)).save(path, 'PNG')
    return ImagePredictions(str(path), SIZE, ImageReading(), [mask(10)], **masks)


def record(folder, **parts) -> RunRecord:
    """Of a run of 40 iterations that was validated after 20; ``parts`` replace what is there."""
    images = [
        image(folder, name, before=[mask(columns)], after=[mask(10)])
        for name, columns in ((NASTY, 20), ('good.png', 5))
    ]
    names = [one.path for one in images]
    default = dict(
        work_dir=folder,
        starts=[Start('20260102_030405', 'configs/sam_<tiny>.py', 'train.py "x & y"', 7, 2, 40)],
        training=[{'loss': 2.0 / step, 'lr': 0.1, 'iter': step, 'step': step} for step in (10, 20)],
        validation=[
            {'sam/mIoU': 0.5, 'sam/mIoU_small': 0.4, 'sam/box_fill_mIoU': 0.55, 'step': 0},
            {'sam/mIoU': 0.75, 'sam/mIoU_small': 0.3, 'sam/box_fill_mIoU': 0.55, 'step': 20},
        ],
        results=Results(
            before={'mIoU': 0.5, 'mIoU_small': 0.4},
            after={'mIoU': 0.75, 'mIoU_small': 0.3},
            box_fill={'mIoU': 0.55},
            images_worse=[{'image': names[0], 'before': 0.9, 'after': 0.25}],
            iteration=20,
            images={
                names[0]: {'before': 0.9, 'after': 0.25},
                names[1]: {'before': 0.1, 'after': 1},
            },
        ),
        images={one.path: one for one in images},
    )
    return RunRecord(**{**default, **parts})


def test_scores_curves_and_pictures_of_a_stopped_run(tmp_path):
    page = HtmlPage(report_page(record(tmp_path)))
    assert page.texts[:2] == ['sam_<tiny>', 'sam_<tiny>']  # title and headline
    assert 'Run of 2026-01-02 03:04.' in page.text
    assert '20 of 40 iterations logged: it was stopped, or still runs.' in page.text
    assert page.rows['mIoU'] == ['0.5500', '0.5000', '0.7500', '+0.2500']
    assert page.rows['mIoU_small'] == ['0.4000', '0.3000', '-0.1000']
    assert page.rows[str(tmp_path / NASTY)] == ['0.9000', '0.2500', '-0.6500']
    assert '1 of 2' in page.text
    for curve in ('Loss', 'Learning rate', 'Validation: Scores', 'mIoU of the filled box'):
        assert curve in page.texts
    assert [text for text in page.texts if 'IoU 0' in text or 'IoU 1' in text] == [
        'before, IoU 0.1000', 'after, IoU 1.0000', 'before, IoU 0.9000', 'after, IoU 0.2500',
    ]  # fmt: skip
    assert 'train.py "x & y"' in page.texts


@pytest.mark.parametrize('launcher', ['', ' --launcher pytorch'])
def test_a_command_of_a_launcher_is_told_apart_from_the_users(tmp_path, launcher):
    start = Start('20260102_030405', command=f'python train.py c.py{launcher}')
    texts = HtmlPage(report_page(record(tmp_path, starts=[start]))).texts
    assert start.command in texts
    note = 'With this each process was started; what the user typed is not recorded.'
    assert (note in texts) == bool(launcher)


def test_clicks_and_noise_are_drawn_over_their_numbers(tmp_path):
    names = ('mIoU', 'mIoU_noise5', 'mIoU_noise10', 'mIoU_click1', 'mIoU_click3')
    results = Results(
        before=dict(zip(names, (0.5, 0.4, 0.3, 0.1, 0.2), strict=True)),
        after=dict(zip(names, (0.9, 0.8, 0.7, 0.5, 0.6), strict=True)),
        box_fill={}, images_worse=[], iteration=1, images={},
    )  # fmt: skip
    texts = HtmlPage(report_page(record(tmp_path, results=results))).texts
    assert [text for text in texts if ' at ' in text and text.startswith('mIoU before')] == [
        'mIoU before: 0.5 at 0', 'mIoU before: 0.4 at 5', 'mIoU before: 0.3 at 10',
        'mIoU before: 0.1 at 1', 'mIoU before: 0.2 at 3',
    ]  # fmt: skip
    assert 'mIoU after: 0.7 at 10' in texts and 'mIoU after: 0.6 at 3' in texts


def test_pictures_show_truth_before_and_after(tmp_path):
    page = HtmlPage(report_page(record(tmp_path)))
    assert len(page.pictures) == 6
    for picture, columns in zip(page.pictures, (10, 5, 10, 10, 20, 10), strict=True):
        header, _, data = picture.partition(',')
        assert header == 'data:image/jpeg;base64'
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
        assert max(pixels.shape[:2]) <= 400
        # the mask's colour is no gray; at both sides of its right edge, away from the outline
        row, zoom = pixels[pixels.shape[0] // 2].astype(int), pixels.shape[1] // SIZE[1]
        is_coloured = np.ptp(row, axis=1) > 60
        assert is_coloured[: (columns - 1) * zoom].all(), columns
        assert not is_coloured[(columns + 2) * zoom :].any(), columns


def test_without_a_validation_since_the_start(tmp_path):
    before = Results({'mIoU': 0.5}, {}, {}, [], 0, {str(tmp_path / 'x.png'): {'before': 0.5}})
    images = {str(tmp_path / 'x.png'): image(tmp_path, 'x.png', before=[mask(20)])}
    run = record(tmp_path, results=before, images=images, validation=[{'mIoU': 0.5, 'step': 0}])
    page = HtmlPage(report_page(run))
    assert 'Not yet validated since the training began' in page.text
    assert page.rows['mIoU'] == ['0.5000', '-', '-']
    assert len(page.pictures) == 2
    assert 'Images that became worse' not in page.text


def test_without_any_validation(tmp_path):
    page = HtmlPage(report_page(record(tmp_path, results=None, images={}, validation=[])))
    assert 'No validation so far: there are no scores.' in page.text
    assert page.rows == {} and page.pictures == []
    assert 'Loss' in page.texts


def test_a_model_without_prompts_has_its_curves_and_scores(tmp_path):
    validation = [
        {'mIoU': 40.0, 'aAcc': 80.0, 'step': 10},
        {'mIoU': 60.0, 'aAcc': 90.0, 'step': 20},
    ]
    training = [{'decode.loss_ce': 1.0, 'loss': 1.0, 'iter': 10, 'step': 10}]
    run = record(tmp_path, results=None, images={}, validation=validation, training=training)
    page = HtmlPage(report_page(run))
    assert page.rows['mIoU'] == ['-', '60.0000', '-']
    assert 'Validation: Scores in percent' in page.texts
    assert 'decode.loss_ce' in page.texts
    assert 'The weights before the training were not validated.' in page.text


def test_an_empty_work_dir(tmp_path):
    page = HtmlPage(report_page(RunRecord(tmp_path, [], [], [], None, {})))
    assert page.texts[1] == tmp_path.name
    assert page.texts.count('Nothing was logged yet.') == 2


def test_an_image_that_has_gone_gets_a_note(tmp_path):
    run = record(tmp_path)
    (tmp_path / NASTY).unlink()
    page = HtmlPage(report_page(run))
    assert len(page.pictures) == 3
    assert f'Cannot read image file {tmp_path / NASTY}' in page.text


def test_large_images_are_shrunk(tmp_path):
    """Noise is what JPEG is worst at."""
    rng = np.random.default_rng(0)
    size = (1000, 2000)
    pixels = np.zeros((1, *size), np.uint8)
    pixels[:, 200:800, 500:1500] = 1
    (rle,) = encode_masks(pixels)
    path = tmp_path / 'noise.png'
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
    one = ImagePredictions(str(path), size, ImageReading(), [rle], [rle], [rle])
    results = Results({'mIoU': 0.5}, {'mIoU': 0.5}, {}, [], 1, {str(path): {'after': 1.0}})
    html = report_page(record(tmp_path, images={str(path): one}, results=results))
    (first, *_) = HtmlPage(html).pictures
    with Image.open(io.BytesIO(base64.b64decode(first.partition(',')[2]))) as picture:
        assert picture.size == (400, 200)
    assert len(html) < 3 * 100_000 + 40_000  # of 27 such pictures less than 3 MB


@pytest.mark.parametrize('count', [1, 4, 12])
def test_best_median_and_worst(tmp_path, count):
    names = [f'{number:02d}.png' for number in range(count)]
    images = [image(tmp_path, name, before=[mask(10)], after=[mask(10)]) for name in names]
    scores = {one.path: {'after': number / 12} for number, one in enumerate(images)}
    results = Results({'mIoU': 0.5}, {'mIoU': 0.5}, {}, [], 1, scores)
    run = record(tmp_path, results=results, images={one.path: one for one in images})
    texts = HtmlPage(report_page(run)).texts
    shown = [text[-6:-4] for text in texts if text.endswith('.png')]
    assert (
        shown
        == {
            1: ['00'],
            4: ['03', '02', '01', '00'],
            12: ['11', '10', '09', '04', '05', '06', '00', '01', '02'],
        }[count]
    )


def test_a_file_name_that_is_no_text(tmp_path):
    results = {'before': {'mIoU': 0.5}, 'after': {'mIoU': 0.4}, 'box_fill': {}, 'iteration': 1}
    worse = [{'image': 'caf\udce9.png', 'before': 0.5, 'after': 0.4}]
    content = {**results, 'images_worse': worse, 'images': {}}
    (tmp_path / 'results.json').write_text(json.dumps(content))
    assert 'caf\\udce9.png' in write_report(tmp_path).read_text(encoding='utf-8')


def test_without_a_score_there_are_no_pictures(tmp_path):
    assert 'Pictures' not in report_page(record(tmp_path, results=None))
