import pytest
from bad_inputs import ROWS, covering_tests, main


def test_every_row_has_a_test():
    missing = ROWS.keys() - covering_tests().keys()
    assert {row: ROWS[row] for row in missing} == {}


def test_every_mark_is_a_row():
    assert covering_tests().keys() <= ROWS.keys()
    assert list(ROWS) == list(range(1, 91))


@pytest.mark.parametrize('row', [50, 90])
def test_the_table_names_tests(row, capsys):
    main()
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(f'{row}  {ROWS[row]}')
    assert lines[start + 1].strip() == covering_tests()[row][0]
    assert lines[start + 1].strip().startswith('tests/')
