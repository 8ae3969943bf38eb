"""Checks the options of a config and names the nearest right one."""

import difflib
from collections.abc import Iterable

from mmsam.errors import ConfigError


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Checks that ``value`` is one of ``choices``.

    Raises:
        ConfigError: it is not; the message lists the choices, and the nearest if one is near.
    """
    allowed = list(choices)
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ''
    raise ConfigError(f'{option} must be one of {", ".join(allowed)}, got {value!r}{hint}.')


def check_whole_number(option: str, value: object, least: int, never: int | None = None) -> None:
    """Checks that ``value`` is an integer of at least ``least``, or ``never``.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value >= least or value == never:
            return
    off = '' if never is None else f', or {never} for never'
    raise ConfigError(f'{option}: expected a whole number of at least {least}{off}, got {value!r}.')
