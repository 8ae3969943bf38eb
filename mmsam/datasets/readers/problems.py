"""What is wrong with single records: a training ends at the first, a check collects them all."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType

from mmengine.logging import print_log

from mmsam.errors import MMSAMError

Remarks = Mapping[str, Sequence[str]]
"""What was done to records, such as 'crowds left out', to the names of the records."""


@dataclass
class Problems:
    """What was found within :func:`collect_problems`, in its order.

    Args:
        errors: would have ended a training.
        remarks: pairs of the file and what would have been logged of it.
    """

    errors: list[MMSAMError] = field(default_factory=list)
    remarks: list[tuple[str, Remarks]] = field(default_factory=list)


_COLLECTED: ContextVar[Problems | None] = ContextVar('problems', default=None)


@contextmanager
def collect_problems() -> Iterator[Problems]:
    """Inside, errors within :class:`one_record` are collected instead of raised.

    The record is left out then, and so is what follows from it. Remarks are collected instead of
    logged.
    """
    problems = Problems()
    token = _COLLECTED.set(problems)
    try:
        yield problems
    finally:
        _COLLECTED.reset(token)


class one_record:  # noqa: N801  (used as a statement: ``with one_record():``)
    """Around what checks one record: its ``MMSAMError`` is raised, or collected, and passed over.

    Whatever follows the block must do without the record.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        problems = _COLLECTED.get()
        if problems is None or not isinstance(error, MMSAMError):
            return False
        problems.errors.append(error)
        return True


def remark(where: str, remarks: Remarks, told: set[str] | None = None) -> None:
    """Log in one warning what was done to records, which may be none; or collect it.

    Args:
        where: the file or folder.
        remarks: what was done, to the names of the records; see ``Remarks``.
        told: where files are read one by one: what was logged of one, and is not of the next;
            gets what is logged now.
    """
    problems = _COLLECTED.get()
    known = told if told is not None and problems is None else set()
    remarks = {what: names for what, names in remarks.items() if names and what not in known}
    if not remarks:
        return
    if problems is not None:
        problems.remarks.append((where, remarks))
        return
    known.update(remarks)
    text = '; '.join(f'{len(names)} {what} ({first_few(names)})' for what, names in remarks.items())
    more = '' if told is None else '; other files are not told'
    print_log(f'{where}: {text}{more}.', logger='current', level=logging.WARNING)


def first_few(names: Sequence[object], few: int = 5) -> str:
    """The first names of a list for an error message, in one line whatever they hold."""
    texts = [str(name) for name in names[:few]]
    shown = [text if text.isprintable() else repr(text) for text in texts]
    return ', '.join(shown) + (', ...' if len(names) > few else '')
