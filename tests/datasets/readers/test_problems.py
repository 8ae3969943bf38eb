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


@pytest.fixture
def lines(monkeypatch):
    logged = []
    monkeypatch.setattr(problems, 'print_log', lambda text, **options: logged.append(text))
    return logged


def test_remarks_of_file_after_file_are_logged_once_but_all_collected(lines):
    told = set()
    with collect_problems() as found:
        remark('a', {'left out': ['1']}, told)
        remark('b', {'left out': ['1']}, told)
    assert [where for where, _ in found.remarks] == ['a', 'b'] and lines == []
    remark('a', {'left out': [], 'cut off': ['2']}, told)
    remark('b', {'left out': ['1'], 'cut off': ['2']}, told)
    remark('c', {'left out': ['1', '2']}, told)
    more = '; other files are not told.'
    assert lines == [f'a: 1 cut off (2){more}', f'b: 1 left out (1){more}']


def test_remarks_are_logged_or_collected(lines):
    remarks = {'left out': ['a'], 'cut off': [f'b{number}' for number in range(6)], 'turned': []}
    remark('file', remarks)
    remark('file', {'turned': []})
    assert lines == ['file: 1 left out (a); 6 cut off (b0, b1, b2, b3, b4, ...).']
    with collect_problems() as found:
        remark('file', remarks)
        remark('file', {'turned': []})
    assert len(lines) == 1
    assert found.remarks == [('file', {key: remarks[key] for key in ('left out', 'cut off')})]
