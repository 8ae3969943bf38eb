import json
from dataclasses import asdict

from mmsam.score_comparison import Results
from mmsam.visualization.report.run_record import read_run


def log(work_dir, timestamp, records, **start):
    folder = work_dir / timestamp / 'vis_data'
    folder.mkdir(parents=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / 'scalars.json').write_text('\n'.join(lines))
    if start:
        (work_dir / timestamp / 'start.json').write_text(json.dumps(start))


def trained(step, loss):
    return {'loss': loss, 'iter': step, 'step': step}


def test_a_resumed_run_is_one(tmp_path):
    """Killed after 50 iterations, gone on from the checkpoint of 20."""
    log(
        tmp_path, '20260102_000000',
        [{'sam/mIoU': 0.1, 'step': 0}, trained(10, 9.0), trained(20, 8.0), trained(30, 7.0),
         {'sam/mIoU': 0.2, 'step': 30}, trained(40, 6.0)],
        command='python train.py',
    )  # fmt: skip
    log(
        tmp_path, '20260103_000000',
        [trained(30, 5.0), {'sam/mIoU': 0.3, 'step': 30}, trained(40, 4.0), trained(50, 3.0)],
        command='python train.py --resume',
    )  # fmt: skip
    run = read_run(tmp_path)
    assert [(r['step'], r['loss']) for r in run.training] == [
        (10, 9.0), (20, 8.0), (30, 5.0), (40, 4.0), (50, 3.0),
    ]  # fmt: skip
    assert [(r['step'], r['sam/mIoU']) for r in run.validation] == [(0, 0.1), (30, 0.3)]
    assert [start.command for start in run.starts] == [
        'python train.py',
        'python train.py --resume',
    ]


def test_another_run_in_the_same_folder_is_the_one_that_counts(tmp_path):
    log(tmp_path, '20260102_000000', [trained(10, 9.0), trained(20, 8.0)], resumed=False)
    log(tmp_path, '20260103_000000', [], command='python train.py', resumed=False)
    run = read_run(tmp_path)
    assert (run.training, [start.timestamp for start in run.starts]) == ([], ['20260103_000000'])
    log(tmp_path, '20260104_000000', [trained(10, 7.0)], resumed=True)
    run = read_run(tmp_path)
    assert [record['loss'] for record in run.training] == [7.0]
    assert len(run.starts) == 2


def test_scores_of_an_earlier_run_are_not_those_of_one_without_validation(tmp_path):
    (tmp_path / 'results.json').write_text(json.dumps(asdict(Results.empty(7))))
    log(tmp_path, '20260102_000000', [{'sam/mIoU': 0.1, 'step': 0}], resumed=False)
    assert read_run(tmp_path).results == Results.empty(7)
    log(tmp_path, '20260103_000000', [trained(10, 7.0)], resumed=False)
    assert read_run(tmp_path).results is None


def test_what_is_damaged_or_not_finite_is_left_out(tmp_path):
    records = ['{"loss": NaN, "lr": 0.5, "iter": 1, "step": 1}', '[]', '{"loss": 1.0, "it']
    log(tmp_path, '20260102_000000', records)
    (tmp_path / 'results.json').write_text('{"before":')
    (tmp_path / 'predictions').mkdir()
    (tmp_path / 'predictions' / 'truth.json').write_text('[]')
    run = read_run(tmp_path)
    assert run.training == [{'lr': 0.5, 'iter': 1, 'step': 1}]
    assert run.validation == [] and run.results is None and run.images == {}
    (start,) = run.starts
    assert (start.timestamp, start.command) == ('20260102_000000', None)


def test_a_test_in_the_same_folder_is_no_start(tmp_path):
    log(tmp_path, '20260102_000000', [trained(1, 1.0)])
    (tmp_path / '20260103_000000' / 'vis_data').mkdir(parents=True)
    assert len(read_run(tmp_path).starts) == 1
