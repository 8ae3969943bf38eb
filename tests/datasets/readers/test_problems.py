import pytest

from mmsam.datasets.readers import problems
from mmsam.datasets.readers.problems import collect_problems, one_record, remark
from mmsam.errors import ConfigError, DataError


def read(records):
    good = []
    for record in records:
        with one_record():
            if isinstance(record, Exception):
                raise record
            good.append(record)
    return good


def test_the_first_error_is_raised():
    with pytest.raises(DataError, match='a'):
        read([1, DataError('a'), DataError('b')])


def test_errors_are_collected_and_their_records_left_out():
    with collect_problems() as found:
        assert read([DataError('a'), 1, ConfigError('b'), 2]) == [1, 2]
    assert [str(error) for error in found.errors] == ['a', 'b']
    with pytest.raises(DataError, match='c'):
        read([DataError('c')])
    assert len(found.errors) == 2


def test_a_slip_of_the_code_is_never_collected():
    with collect_problems() as found, pytest.raises(ValueError, match='slip'):
        read([ValueError('slip')])
    assert found.errors == []


def test_remarks_are_logged_or_collected(monkeypatch):
    lines = []
    monkeypatch.setattr(problems, 'print_log', lambda text, **options: lines.append(text))
    remarks = {'left out': ['a'], 'cut off': [f'b{number}' for number in range(6)], 'turned': []}
    remark('file', remarks)
    remark('file', {'turned': []})
    assert lines == ['file: 1 left out (a); 6 cut off (b0, b1, b2, b3, b4, ...).']
    with collect_problems() as found:
        remark('file', remarks)
        remark('file', {'turned': []})
    assert len(lines) == 1
    assert found.remarks == [('file', {key: remarks[key] for key in ('left out', 'cut off')})]
