import json

import pytest
from html_page import HtmlPage
from toy_run import MAX_ITERS
from toy_run import train as train_toy

from mmsam.visualization import ReportHook
from tools.analysis_tools import report


def test_the_report_of_a_run_that_was_stopped(tmp_path, capsys):
    train_toy(tmp_path, ReportHook())
    by_hook = (tmp_path / 'report.html').read_text()
    (tmp_path / 'report.html').unlink()
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / 'report.html')
    assert (tmp_path / 'report.html').read_text() == by_hook

    (start,) = tmp_path.glob('*/start.json')
    start.write_text(json.dumps({**json.loads(start.read_text()), 'max_iterations': 99}))
    assert report.main([str(tmp_path)]) == 0
    text = HtmlPage((tmp_path / 'report.html').read_text()).text
    assert f'{MAX_ITERS} of 99 iterations logged: it was stopped, or still runs.' in text


@pytest.mark.parametrize('name', ['missing', 'empty'])
def test_a_folder_that_is_no_work_dir(tmp_path, capsys, name):
    (tmp_path / 'empty').mkdir()
    assert report.main([str(tmp_path / name)]) == 3
    assert str(tmp_path / name) in capsys.readouterr().err
    assert not (tmp_path / 'empty' / 'report.html').exists()
