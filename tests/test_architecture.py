"""Who may import whom, read from the source without running it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'mmsam'

LAYERS = [
    {'errors', 'stack', 'stop_signal'},
    {'atomic_file', 'cluster_job', 'geometry', 'image_file', 'options', 'registry', 'torch_file'}
    | {'pixel_counts', 'score_comparison', 'score_rules', 'weight_layouts'},
    {'structures', 'embedding_cache', 'checkpoint', 'prompt_sampling', 'training_checkpoint'}
    | {'rgb_image'},
    {'engine', 'evaluation', 'visualization', 'models', 'datasets'},
    {'apis'},
]
"""From the bottom up. A unit imports from lower layers and from itself, never from a sibling."""

LAYER_OF = {unit: number for number, units in enumerate(LAYERS) for unit in units}


def imported_modules(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also inside functions; names from ``from`` included.

    Args:
        source: Python code.
        package: dotted name of the package that holds it, for relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parts = package.split('.')
                parent = '.'.join(parts[: len(parts) - node.level + 1])
                base = f'{parent}.{base}' if base else parent
            for alias in node.names:
                yield node.lineno, f'{base}.{alias.name}'


def unit_of(module: str) -> str | None:
    """'models' of 'mmsam.models.sam.Block'; None for what is not ours; '' for mmsam itself."""
    parts = module.split('.')
    if parts[0] != 'mmsam':
        return None
    return parts[1] if len(parts) > 1 else ''


def violation(importer: str, imported: str) -> str | None:
    """Why the unit ``importer`` may not import the unit ``imported``; None if it may."""
    if importer == imported:
        return None
    if importer == '':  # mmsam/__init__.py runs before everything else
        return None if LAYER_OF.get(imported) == 0 else 'mmsam/__init__ imports the lowest layer'
    if imported not in LAYER_OF:  # the version, an attribute of mmsam itself
        return None if imported in ('', '__version__') else 'unknown unit'
    if LAYER_OF[imported] < LAYER_OF[importer]:
        return None
    if LAYER_OF[imported] == LAYER_OF[importer]:
        return 'siblings meet through the registry and SAMDataSample'
    return 'that is upwards'


def source_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob('*.py'))


def unit_of_file(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    return '' if first == '__init__' else first


def package_of_file(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT).parent.parts)


def test_every_unit_has_a_layer():
    units = {unit_of_file(path) for path in source_files(PACKAGE)} - {''}
    assert units - LAYER_OF.keys() == set(), 'give the new unit its place in LAYERS'


@pytest.mark.parametrize('unit', ['', *sorted(LAYER_OF)], ids=lambda unit: unit or 'mmsam')
def test_imports_point_downwards(unit):
    found = []
    for path in source_files(PACKAGE):
        if unit_of_file(path) != unit:
            continue
        for line, module in imported_modules(path.read_text(), package_of_file(path)):
            imported = unit_of(module)
            if imported is not None and (why := violation(unit, imported)):
                found.append(f'{path.relative_to(ROOT)}:{line} imports {module}: {why}')
    assert found == []


def test_sam_needs_torch_and_mmengines_modules_only():
    allowed = ('torch', 'mmengine.model', 'mmsam.models.sam')
    found = []
    files = source_files(PACKAGE / 'models' / 'sam')
    assert len(files) > 5
    for path in files:
        for line, module in imported_modules(path.read_text(), package_of_file(path)):
            if module.split('.')[0] in sys.stdlib_module_names:
                continue
            if not any(module == name or module.startswith(f'{name}.') for name in allowed):
                found.append(f'{path.relative_to(ROOT)}:{line} imports {module}')
    assert found == []


def test_nothing_of_the_package_imports_tools_or_tests():
    for path in source_files(PACKAGE):
        for line, module in imported_modules(path.read_text(), package_of_file(path)):
            assert module.split('.')[0] not in ('tools', 'tests'), f'{path}:{line}'


@pytest.mark.parametrize(
    ('source', 'package', 'expected'),
    [
        ('import mmsam.apis.x', 'mmsam', ['mmsam.apis.x']),
        ('from mmsam import engine', 'mmsam.models', ['mmsam.engine']),
        ('from .. import engine', 'mmsam.models', ['mmsam.engine']),
        ('from ..engine.hooks import X', 'mmsam.models', ['mmsam.engine.hooks.X']),
        ('from .layers import MLP', 'mmsam.models.sam', ['mmsam.models.sam.layers.MLP']),
        ('def f():\n    from mmsam.apis import g', 'mmsam', ['mmsam.apis.g']),
    ],
)
def test_imports_are_seen(source, package, expected):
    assert [module for _, module in imported_modules(source, package)] == expected


@pytest.mark.parametrize(
    ('importer', 'imported', 'allowed'),
    [
        ('models', 'geometry', True),
        ('models', 'models', True),
        ('apis', 'engine', True),
        ('models', 'engine', False),
        ('structures', 'checkpoint', False),
        ('geometry', 'registry', False),
        ('geometry', 'errors', True),
        ('geometry', 'structures', False),
        ('datasets', 'apis', False),
        ('', 'stack', True),
        ('', 'models', False),
        ('models', 'utils', False),
    ],
)
def test_the_rule(importer, imported, allowed):
    assert (violation(importer, imported) is None) == allowed
