"""Which of two scores is the better one, and scores that a validation does not give."""

import re
from collections.abc import Iterable

from mmsam.errors import ConfigError

RULES = ('greater', 'less')

_GREATER = re.compile(r'[am][A-Z]|AP|AR|box_fill_')
_LESS = re.compile(r'IoU_error|NoC|.*loss')


def rule_of_score(name: str) -> str | None:
    """'greater' or 'less', whichever is better in a score of mmsam or mmseg; None if unknown.

    ``sam/IoU_bias`` has none: it is best at 0.
    """
    own_name = name.rpartition('/')[2]
    if _GREATER.match(own_name):
        return 'greater'
    return 'less' if _LESS.match(own_name) else None


def check_rule(where: str, name: str, rule: str | None) -> None:
    """Check that a rule is one, or that it is known for a score.

    Raises:
        ConfigError: it is not.
    """
    if rule is not None and rule not in RULES:
        raise ConfigError(f"{where}: expected the rule 'greater' or 'less', got {rule!r}.")
    if rule is None and rule_of_score(name) is None:
        raise ConfigError(
            f"{where}: expected rule='greater' or rule='less', as it is not known which {name!r} "
            'is better, got none.'
        )


def check_score(where: str, name: str, scores: Iterable[str]) -> None:
    """Check that a validation gives the score that is asked for.

    Raises:
        ConfigError: it does not.
    """
    known = list(scores)
    if name not in known:
        raise ConfigError(
            f'{where}: expected a score of this validation, {", ".join(known)}; got {name!r}.'
        )
