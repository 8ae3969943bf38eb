import pytest
from traps import ROWS

from tests.marked_tests import print_table, tests_of_rows


def test_every_trap_has_a_test():
    missing = ROWS.keys() - tests_of_rows('trap').keys()
    assert {row: ROWS[row] for row in missing} == {}


def test_every_mark_is_a_row():
    assert tests_of_rows('trap').keys() <= ROWS.keys()


@pytest.mark.parametrize('row', [3, 20])
def test_the_table_names_tests(row, capsys):
    print_table(ROWS, 'trap')
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(f'{row:2}  {ROWS[row]}')
    assert lines[start + 1].strip() == tests_of_rows('trap')[row][0]
    assert lines[start + 1].strip().startswith('tests/')
