"""What the numbers were measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .timing import all_threads

_PACKAGES = ('torch', 'segment-anything', 'transformers')
_BFLOAT16_FLAGS = ('amx_bf16', 'avx512_bf16')


def cpu_field(name: str) -> str:
    """A field of the first CPU in /proc/cpuinfo, '' where there is none."""
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        field, _, value = line.partition(':')
        if field.strip() == name:
            return value.strip()
    return ''


def multiplies_bfloat16_fast() -> bool:
    """Whether the CPU has matrix units for bfloat16 (``amx_bf16``)."""
    return 'amx_bf16' in cpu_field('flags').split()


def describe() -> str:
    """One line: CPU, cores, memory, what it has for bfloat16, versions."""
    flags = cpu_field('flags').split()
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    found = [flag for flag in _BFLOAT16_FLAGS if flag in flags]
    parts = [
        f'{cpu_field("model name") or platform.machine()}, {all_threads()} cores',
        f'{memory:.0f} GiB',
        ' and '.join(found) if found else 'nothing for bfloat16',
        f'Python {platform.python_version()}',
        *(f'{name} {found_version}' for name in _PACKAGES if (found_version := _version(name))),
    ]
    return ', '.join(parts)


def _version(package: str) -> str:
    if package == 'torch':
        return torch.__version__
    try:
        return version(package)
    except PackageNotFoundError:
        return ''
