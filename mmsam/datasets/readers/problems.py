"""What is said of records that a reader leaves out."""

import logging
from collections.abc import Mapping, Sequence

from mmengine.logging import print_log

Remarks = Mapping[str, Sequence[str]]
"""What was done to records, such as 'crowds left out', to the names of the records."""


def remark(where: str, remarks: Remarks) -> None:
    """Log in one warning what was done to records, which may be none.

    Args:
        where: the file or folder.
        remarks: what was done, to the names of the records; see ``Remarks``.
    """
    remarks = {what: names for what, names in remarks.items() if names}
    if remarks:
        text = '; '.join(
            f'{len(names)} {what} ({first_few(names)})' for what, names in remarks.items()
        )
        print_log(f'{where}: {text}.', logger='current', level=logging.WARNING)


def first_few(names: Sequence[object], few: int = 5) -> str:
    """The first names of a list for an error message, in one line whatever they hold."""
    texts = [str(name) for name in names[:few]]
    shown = [text if text.isprintable() else repr(text) for text in texts]
    return ', '.join(shown) + (', ...' if len(names) > few else '')
