import json

import pytest
from html_page import HtmlPage
from tiny_run import VAL_COUNTS, run_here, write_config
from toy_run import MAX_ITERS, WeightMetric
from toy_run import train as train_toy

from mmsam.errors import StorageError
from mmsam.visualization import ReportHook, report_hook
from mmsam.visualization.prediction_files import read_predictions
from mmsam.visualization.report import write_report
from mmsam.visualization.report.line_chart import MAX_MARKED
from tools import train


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    """The work dir of a training of two iterations, validated before the first and after each.

    An earlier run has left predictions there. And what ``predictions`` held at each report.
    """
    folder = tmp_path_factory.mktemp('work')
    work_dir = folder / 'run "<ä>"'
    (work_dir / 'predictions').mkdir(parents=True)
    (work_dir / 'predictions' / 'latest.json').write_text('[]')
    held = []

    def look(folder):
        held.append(sorted(path.name for path in (folder / 'predictions').iterdir()))
        return write_report(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_hook, 'write_report', look)
        run_here(train, write_config(folder, data, max_iters=2), '--work-dir', work_dir)
    return work_dir, held


@pytest.fixture(scope='module')
def work_dir(run):
    return run[0]


def page_of(work_dir) -> HtmlPage:
    return HtmlPage((work_dir / 'report.html').read_text())


def test_the_report_has_the_numbers_of_the_run(work_dir):
    page = page_of(work_dir)
    results = json.loads((work_dir / 'results.json').read_text())
    before, after = results['before']['mIoU'], results['after']['mIoU']
    assert before != after
    assert page.rows['mIoU'] == [
        f'{results["box_fill"]["mIoU"]:.4f}', f'{before:.4f}', f'{after:.4f}',
        f'{after - before:+.4f}',
    ]  # fmt: skip
    assert '2 iterations, complete.' in page.text
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    logged = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [(record['step'], record['loss']) for record in logged if 'loss' in record]
    assert len(losses) == 2 < MAX_MARKED
    for step, loss in losses:
        assert f'loss: {loss:.4g} at {step}' in page.texts
    scores = [(record['step'], record['sam/mIoU']) for record in logged if 'sam/mIoU' in record]
    assert [step for step, _ in scores] == [0, 1, 2]
    for step, score in scores:
        assert f'mIoU: {score:.4g} at {step}' in page.texts


def test_it_says_how_to_repeat_the_run(work_dir):
    page = page_of(work_dir)
    (command,) = (text for text in page.texts if 'train.py' in text)
    assert str(work_dir) in command
    assert 'iter_2.pth' in page.text
    (start,) = work_dir.glob('*/start.json')
    content = json.loads(start.read_text())
    assert (content['seed'], content['iterations'], content['resumed']) == (0, 2, False)


def test_the_command_of_a_launch_script_goes_before_that_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv('MMSAM_COMMAND', 'GPUS=2 ./slurm_train.sh p j c.py ')
    train_toy(tmp_path, ReportHook())
    (start,) = tmp_path.glob('*/start.json')
    assert json.loads(start.read_text())['command'] == 'GPUS=2 ./slurm_train.sh p j c.py'


def test_every_validation_image_is_shown_with_its_predictions(work_dir):
    images = read_predictions(work_dir / 'predictions')
    assert [len(image.truth) for image in images.values()] == list(VAL_COUNTS)
    assert [len(image.before) for image in images.values()] == list(VAL_COUNTS)
    assert [len(image.after) for image in images.values()] == list(VAL_COUNTS)
    page = page_of(work_dir)
    assert len(page.pictures) == 3 * len(VAL_COUNTS)
    results = json.loads((work_dir / 'results.json').read_text())['images']
    best, *_ = sorted(results.values(), key=lambda scores: -scores['after'])
    captions = [text for text in page.texts if text.startswith('after, IoU')]
    assert captions[0] == f'after, IoU {best["after"]:.4f}'


def test_predictions_of_an_earlier_run_are_forgotten(run):
    _, held = run
    assert held[0] == ['before.json', 'truth.json']
    assert held[1] == ['before.json', 'latest.json', 'truth.json']


def test_a_model_without_prompts(tmp_path):
    train_toy(tmp_path, ReportHook())
    page = page_of(tmp_path)
    assert f'{MAX_ITERS} iterations, complete.' in page.text
    assert page.rows == {'score': ['-', f'{WeightMetric.seen[-1]:.4f}', '-']}
    assert not (tmp_path / 'predictions').exists()


def test_a_run_that_goes_on(tmp_path):
    hook = ReportHook()
    train_toy(tmp_path, hook, interval=3)
    (tmp_path / 'last_checkpoint').write_text('iter_6.pth')
    (tmp_path / 'iter_7.pth').unlink()
    # mmengine names the folders of the logs by the second
    next(tmp_path.glob('*/vis_data')).parent.rename(tmp_path / '20260101_000000')
    train_toy(tmp_path, hook, interval=3, resume=True)
    page = page_of(tmp_path)
    assert 'gone on' in page.text
    assert f'{MAX_ITERS} iterations, complete.' in page.text


def test_without_validation(tmp_path):
    train_toy(tmp_path, ReportHook(), validates=False)
    page = page_of(tmp_path)
    assert 'No validation so far' in page.text
    assert f'{MAX_ITERS} iterations, complete.' in page.text


def test_validations_by_epoch(tmp_path):
    train_toy(tmp_path, ReportHook(), by_epoch=True)
    assert 'epoch' in page_of(tmp_path).texts


def test_what_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch, capfd):
    def fail(path, text):
        raise StorageError(f'{path} cannot be written: no room.')

    monkeypatch.setattr('mmsam.visualization.report.page.write_text_atomically', fail)
    train_toy(tmp_path, ReportHook())
    assert (tmp_path / 'last_checkpoint').exists()
    assert (
        'report.html cannot be written: no room. The training itself is not affected.'
        in capfd.readouterr().out
    )


def test_a_mistake_of_the_report_does_not_end_the_run_and_is_seen(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(report_hook, 'write_report', lambda folder: 1 / 0)
    train_toy(tmp_path, ReportHook())
    assert (tmp_path / 'last_checkpoint').exists()
    words = f'{tmp_path / "report.html"} could not be written (ZeroDivisionError: division by zero)'
    logged = capfd.readouterr().out
    assert words in logged
    assert 'Traceback' in logged and 'lambda folder: 1 / 0' in logged
