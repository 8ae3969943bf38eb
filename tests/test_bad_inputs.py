from bad_inputs import ROWS

from tests.marked_tests import covering_tests


def test_every_row_has_a_test():
    missing = ROWS.keys() - covering_tests('bad_input').keys()
    assert {row: ROWS[row] for row in missing} == {}


def test_every_mark_is_a_row():
    assert covering_tests('bad_input').keys() <= ROWS.keys()
    assert list(ROWS) == list(range(1, len(ROWS) + 1))
