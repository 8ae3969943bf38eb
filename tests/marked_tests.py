"""Finds the tests that are marked with rows of a table, such as ``@pytest.mark.trap(3)``."""

import ast
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).parent


def covering_tests(mark: str) -> dict[int, list[str]]:
    """Row to the tests that are marked with it, as pytest names them; read, not imported."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob('test_*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            for row in _marked_rows(node, mark):
                found.setdefault(row, []).append(f'{path.relative_to(TESTS.parent)}::{node.name}')
    return found


def print_table(rows: Mapping[int, str], mark: str) -> None:
    """Print each row with its tests, or 'open'."""
    tests = covering_tests(mark)
    for row, title in rows.items():
        print(f'{row:2}  {title}')
        for name in tests.get(row, ['open']):
            print(f'      {name}')


def _marked_rows(node: ast.AST, mark: str) -> list[int]:
    return [
        ast.literal_eval(row)
        for decorator in getattr(node, 'decorator_list', ())
        if ast.unparse(decorator).startswith(f'pytest.mark.{mark}(')
        for row in decorator.args
    ]
