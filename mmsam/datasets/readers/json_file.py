"""Reads JSON files."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmsam.errors import DataError

from .formats import check_format
from .problems import one_record


def read_json(path: Path, reader: str | None = None) -> Any:
    """The content of a JSON file.

    Args:
        path: the file; UTF-8, with or without a byte order mark.
        reader: the ``type`` of the reader that asks, for whose format the file was taken; None if
            it is no annotation.

    Raises:
        DataError: no such file, or no JSON, which knows neither NaN nor infinite numbers.
    """
    constants: list[str] = []

    def remember(constant: str) -> float:
        constants.append(constant)
        return float(constant)

    try:
        content = json.loads(path.read_text('utf-8-sig'), parse_constant=remember)
    except (OSError, ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError
        hint = ''
        if reader is not None:
            check_format(path, reader)
            hint = "; check data_root and the reader's options, or run the converter that makes it"
        if isinstance(error, OSError):
            raise DataError(f'Cannot read {path}: {error.strerror}{hint}.') from error
        raise DataError(f'{path} is not valid JSON: {error}.') from error
    with one_record():
        if constants:
            raise DataError(
                f'{path} is not valid JSON: {_record_with_no_number(content)} has {constants[0]}, '
                'expected a number.'
            )
    return content


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number; one that no float can hold is not."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max


def _record_with_no_number(content: Any) -> str:
    """The first record that JSON cannot hold, as it has NaN or an infinite number."""
    for name, record in _records(content):
        try:
            json.dumps(record, allow_nan=False)
        except ValueError:
            return name
    return 'it'


def _records(content: Any) -> Iterator[tuple[str, Any]]:
    """The records of the lists in a file, with their names, and what stands beside the lists."""
    for key, value in content.items() if isinstance(content, dict) else [('record', content)]:
        if not isinstance(value, list):
            yield key, value
            continue
        for number, record in enumerate(value):
            has_id = isinstance(record, dict) and 'id' in record
            yield f'{key} with id {record["id"]!r}' if has_id else f'{key}[{number}]', record
