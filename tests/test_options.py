import pytest

from mmsam.errors import ConfigError
from mmsam.options import check_choice, check_whole_number


def test_choice():
    check_choice('fruit', 'apple', ['apple', 'pear'])
    with pytest.raises(ConfigError, match="^fruit must .* apple, pear, got 'aple'.*'apple'"):
        check_choice('fruit', 'aple', ['apple', 'pear'])
    with pytest.raises(ConfigError, match='got None.$'):
        check_choice('fruit', None, ['apple', 'pear'])


@pytest.mark.parametrize('wrong', [1, -2, '4', 4.0, True, None])
def test_whole_number(wrong):
    check_whole_number('apples', 2, 2)
    check_whole_number('apples', -1, 2, never=-1)
    with pytest.raises(ConfigError, match=f'^apples: .* of at least 2, got {wrong!r}.$'):
        check_whole_number('apples', wrong, 2)
