import pytest
from traps import ROWS

from tests.marked_tests import covering_tests, print_table


def test_every_trap_has_a_test():
    missing = ROWS.keys() - covering_tests('trap').keys()
    assert {row: ROWS[row] for row in missing} == {}


def test_every_mark_is_a_row():
    assert covering_tests('trap').keys() <= ROWS.keys()


@pytest.mark.parametrize('row', [3, 20])
def test_the_table_names_tests(row, capsys):
    print_table(ROWS, 'trap')
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(f'{row:2}  {ROWS[row]}')
    assert lines[start + 1].strip() == covering_tests('trap')[row][0]
    assert lines[start + 1].strip().startswith('tests/')
