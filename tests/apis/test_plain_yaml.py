from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from tiny_run import ROOT

from mmsam.apis import load_run_config
from mmsam.errors import ConfigError

RUNS = '!!python/object/apply:os.mkdir [{}]'


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_run_config(str(path), None, None)
    text = str(caught.value)
    assert text.startswith(f'{path}: ') and '\n' not in text
    return text


@pytest.mark.parametrize('inherited', [False, True])
@pytest.mark.bad_input(72)
def test_a_tag_runs_nothing(tmp_path, inherited):
    marker = tmp_path / 'ran'
    (tmp_path / 'tag.yaml').write_text(f'train_cfg:\n  x: {RUNS.format(marker)}\n')
    (tmp_path / 'upon_it.py').write_text("_base_ = 'tag.yaml'")
    text = refusal(tmp_path / ('upon_it.py' if inherited else 'tag.yaml'))
    assert 'expected plain YAML in line 2' in text and 'python/object/apply' in text
    assert not marker.exists()


def test_the_tag_is_real(tmp_path):
    yaml.unsafe_load(RUNS.format(tmp_path / 'ran'))
    assert (tmp_path / 'ran').exists()


def test_aliases_that_unfold_to_a_bomb(tmp_path):
    """600 bytes; nine to the tenth values."""
    lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
    for n in range(1, 10):
        lines.append(f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 9)}]')
    (tmp_path / 'bomb.yaml').write_text('\n'.join(lines))
    assert 'unfold to more than 100000 values' in refusal(tmp_path / 'bomb.yaml')


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('a: &a [*a]', 'unfold to more than'),
        ('a: ' + '[' * 5000 + ']' * 5000, 'nested too deeply'),
        ('a: [1', 'in line 1: '),
        ('a: \0', 'not allowed'),
    ],
)
def test_other_files_that_are_no_config(tmp_path, text, reason):
    (tmp_path / 'some.yaml').write_text(text)
    assert reason in refusal(tmp_path / 'some.yaml')


def test_plain_yaml_stays_a_config_also_as_a_run_dumps_it(tmp_path):
    """With an alias, a merged mapping, and tuples, for which mmengine writes a tag."""
    tiny = ROOT / 'configs' / 'sam_tiny_stamp.py'
    (tmp_path / 'some.yaml').write_text(
        f'_base_: {tiny}\nshared: &loader {{num_workers: 3}}\n'
        'val_dataloader: {<<: *loader, batch_size: 1}\ntest_dataloader: *loader\n'
    )
    loaded = load_run_config(str(tmp_path / 'some.yaml'), None, None)
    assert loaded.val_dataloader.num_workers == loaded.test_dataloader.num_workers == 3
    assert loaded.val_dataloader.batch_size == 1
    loaded.some_tuple = (1, (2, 3))
    loaded.dump(tmp_path / 'dumped.yaml')
    assert '!!python/tuple' in (tmp_path / 'dumped.yaml').read_text()
    again = load_run_config(str(tmp_path / 'dumped.yaml'), None, None)
    assert again.some_tuple == (1, (2, 3))
    assert again.model == loaded.model == Config.fromfile(tiny).model
