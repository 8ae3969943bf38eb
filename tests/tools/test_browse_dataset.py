from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import VAL_COUNTS, refused, run_here, write_config

from mmsam.visualization.prediction_picture import draw_sample
from tools import browse_dataset


def test_first_samples_of_a_validation(tmp_path, data, capsys):
    config = write_config(tmp_path, data)
    run_here(browse_dataset, config, '--phase', 'val', '--show-dir', tmp_path / 'shown')
    lines = [line for line in capsys.readouterr().out.splitlines() if 'shown' in line]
    pictures = sorted((tmp_path / 'shown').iterdir())
    assert [path.name for path in pictures] == [f'{i:04d}_val_{i + 1}.png' for i in range(3)]
    for line, path, count in zip(lines, pictures, VAL_COUNTS, strict=True):
        assert line.startswith(f'{path}: ') and line.endswith(f' px, {count} objects')


def test_training_samples_as_drawn_by_the_sampler(tmp_path, data, monkeypatch):
    shown = []
    monkeypatch.setattr(
        browse_dataset, 'draw_sample', lambda *sample: shown.append(sample) or draw_sample(*sample)
    )
    arguments = (write_config(tmp_path, data), '--work-dir', tmp_path / 'run', '--number', '7')
    run_here(browse_dataset, *arguments)
    assert len(list((tmp_path / 'run' / 'samples').iterdir())) == 7
    first = list(shown)
    run_here(browse_dataset, *arguments)
    for (image, sample), (again, same) in zip(first, shown[7:], strict=True):
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(sample.prompts.boxes, same.prompts.boxes)
    names = [sample.img_path for _, sample in first]
    assert len(set(names[:5])) == 5  # an epoch of the five images with objects, then the next
    (path,) = (tmp_path / 'run' / 'samples').glob('0000_*')
    assert path.name == f'0000_{Path(names[0]).stem}.png'
    with Image.open(path) as picture:
        assert picture.size[0] > 2 * 64


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [(('--number', '0'), '--number must be > 0'), (('--phase', 'test'), 'has no test_dataloader')],
)
def test_wrong_arguments(tmp_path, data, capsys, arguments, words):
    config = write_config(
        tmp_path, data, extra='test_dataloader = test_evaluator = test_cfg = None'
    )
    code, line = refused(capsys, browse_dataset, config, *arguments)
    assert code == 2 and line.startswith('ConfigError') and words in line
