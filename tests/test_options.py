import pytest

from mmsam.errors import ConfigError
from mmsam.options import check_choice


def test_choice():
    check_choice('fruit', 'apple', ['apple', 'pear'])
    with pytest.raises(ConfigError, match="^fruit must .* apple, pear, got 'aple'.*'apple'"):
        check_choice('fruit', 'aple', ['apple', 'pear'])
    with pytest.raises(ConfigError, match='got None.$'):
        check_choice('fruit', None, ['apple', 'pear'])
