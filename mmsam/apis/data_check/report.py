"""Tells what was found in the data: as a text, and as the error that ends a tool."""

from collections.abc import Mapping

from .full_check import CheckedSplit
from .split_facts import facts_table, histogram_table


def data_report(splits: Mapping[str, CheckedSplit]) -> str:
    """Two tables, and a line for each finding."""
    facts = {name: split.facts for name, split in splits.items()}
    lines = [str(facts_table(facts)), str(histogram_table(facts))]
    for name, split in splits.items():
        lines += [f'{name}: {line}' for line in split.findings.lines()]
    return '\n'.join(lines)


def raise_errors(splits: Mapping[str, CheckedSplit]) -> None:
    """Raise the first error, which says how many there are.

    Raises:
        MMSAMError: of the first one's class, if there is one.
    """
    errors = [error for split in splits.values() for error in split.findings.errors]
    if not errors:
        return
    first = errors[0]
    if len(errors) == 1:
        raise first
    raise type(first)(f'{len(errors)} errors in the data, the first: {first}') from first
