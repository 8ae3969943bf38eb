from importlib.util import find_spec

import pytest

from mmsam import stack


@pytest.fixture
def pretend(monkeypatch):
    """Make the check see other modules and distributions than are installed."""

    def pretend(missing: tuple[str, ...] = (), **distributions: list[str]) -> None:
        monkeypatch.setattr(stack, 'find_spec', lambda name: name not in missing or None)
        monkeypatch.setattr(stack, 'packages_distributions', lambda: distributions)

    return pretend


FORKS = dict(mmengine=['onedl-mmengine'], mmcv=['onedl-mmcv'], mmseg=['onedl-mmsegmentation'])
UPSTREAM = dict(mmengine=['mmengine'], mmcv=['mmcv-lite'], mmseg=['mmsegmentation'])


def test_the_installed_stack_is_one():
    stack.check_stack()
    assert all(find_spec(module) for module in stack.FORK_OF)


@pytest.mark.parametrize('distributions', [FORKS, UPSTREAM], ids=['forks', 'upstream'])
def test_either_is_fine(pretend, distributions):
    pretend(**distributions)
    stack.check_stack()


def test_torch_comes_first(pretend):
    pretend(missing=('torch', 'mmcv'))
    with pytest.raises(ImportError, match=r"needs torch.*pip install torch'"):
        stack.check_stack()


def test_what_is_missing_is_named_with_the_extra(pretend):
    pretend(missing=('mmcv', 'mmseg'), mmengine=['onedl-mmengine'])
    with pytest.raises(ImportError, match=r'needs mmcv, mmseg: .*mmsam\[mm\]'):
        stack.check_stack()


@pytest.mark.parametrize(
    ('module', 'upstream'),
    [('mmengine', 'mmengine'), ('mmengine', 'mmengine-lite'), ('mmcv', 'mmcv'),
     ('mmcv', 'mmcv-lite'), ('mmseg', 'mmsegmentation')],
)  # fmt: skip
def test_fork_and_upstream_together(pretend, module, upstream):
    pretend(**{**FORKS, module: [*FORKS[module], upstream]})
    with pytest.raises(ImportError, match=f'{module} .*twice.*{FORKS[module][0]} and {upstream},'):
        stack.check_stack()


def test_a_mix_of_modules_is_fine(pretend):
    pretend(**{**FORKS, 'mmcv': ['mmcv']})
    stack.check_stack()
