"""Looks at a config file, which is a program, without running any of it."""

import ast
from collections.abc import Iterator
from pathlib import Path

from mmsam.errors import ConfigError

_PLAIN_CALLS = ('dict', 'list', 'tuple', 'set')


def describe_config(path: str) -> str:
    """What a ``.py`` config and the files it inherits would import, call and set.

    Args:
        path: the file; ``_base_`` files that are given as texts and exist are described too.

    Returns:
        A text of several lines; line numbers are those of each file.

    Raises:
        ConfigError: no such file, no ``.py`` file, or no Python.
    """
    return '\n'.join(_describe_files(Path(path), set()))


def _describe_files(path: Path, seen: set[Path]) -> Iterator[str]:
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    if path.suffix != '.py':
        raise ConfigError(f'{path}: expected a .py config; other formats are plain data.')
    try:
        body = ast.parse(path.read_bytes()).body
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error.strerror}.') from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f'{path} is no Python: {error}.') from None
    yield f'{path}'
    for title, lines in (
        ('imports', _imports(body)),
        ('calls', _calls(body)),
        ('other statements', _other_statements(body)),
        ('sets', _settings(body)),
    ):
        yield from (f'  {title}: {line}' for line in lines)
    for base in _bases(body):
        inherited = path.parent / base
        if inherited.suffix == '.py' and inherited.is_file():
            yield from _describe_files(inherited, seen)
        else:
            yield f'{base}\n  not looked at: expected a .py file beside {path}'


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    """Modules that run when they are imported, by a statement or by ``custom_imports``."""
    for node in _nodes(body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield f'{ast.unparse(node)} (line {node.lineno})'
    for name, value, line in _assignments(body):
        if name == 'custom_imports':
            yield f'custom_imports = {ast.unparse(value)} (line {line})'


def _calls(body: list[ast.stmt]) -> Iterator[str]:
    """All calls but those of plain containers, as long as the file means these by the names."""
    bound = _bound_names(body)
    plain = () if '*' in bound else [name for name in _PLAIN_CALLS if name not in bound]
    for node in _nodes(body):
        if isinstance(node, ast.Call):
            if not (isinstance(node.func, ast.Name) and node.func.id in plain):
                yield f'{ast.unparse(node)} (line {node.lineno})'


def _bound_names(body: list[ast.stmt]) -> set[str]:
    """Names that a file gives a meaning to; ``*`` where it imports whatever there is."""
    bound = set()
    for node in _nodes(body):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif not isinstance(node, ast.keyword):
            names = (getattr(node, key, None) for key in ('asname', 'name', 'arg'))
            bound.update(name for name in names if isinstance(name, str))
    return bound


def _other_statements(body: list[ast.stmt]) -> Iterator[str]:
    """What is neither an assignment nor an import nor a text: functions, loops, deletions."""
    for node in body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Call)
        known = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign)
        if not is_text and not isinstance(node, known):
            first = ast.unparse(node).splitlines()[0]
            yield f'{first} (line {node.lineno})'


def _settings(body: list[ast.stmt]) -> Iterator[str]:
    return (f'{name} = {ast.unparse(value)}' for name, value, _ in _assignments(body))


def _bases(body: list[ast.stmt]) -> Iterator[str]:
    for name, value, _ in _assignments(body):
        if name == '_base_':
            yield from (
                node.value
                for node in ast.walk(value)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            )


def _assignments(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr, int]]:
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield ast.unparse(target), node.value, node.lineno
        elif isinstance(node, ast.AnnAssign | ast.AugAssign) and node.value is not None:
            yield ast.unparse(node.target), node.value, node.lineno


def _nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        yield from ast.walk(statement)
