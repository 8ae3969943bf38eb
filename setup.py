"""Packaging of mmsam.

torch and the MM packages are no plain dependencies: pip would replace the torch a machine was set
up with, and cannot express "the fork or upstream". They are extras, and mmsam checks on import.
"""

from pathlib import Path

from setuptools import find_packages, setup


def read_requirements(name: str) -> list[str]:
    lines = (Path(__file__).parent / 'requirements' / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(('#', '-'))]


setup(
    name='mmsam',
    version='0.1.0',
    description='Fine-tune Segment Anything (SAM) on your own masks, the MMSegmentation way',
    long_description=(Path(__file__).parent / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmsam', 'mmsam.*']),
    install_requires=read_requirements('runtime.txt'),
    extras_require={
        # the maintained forks; they install without a compiler
        'mm': read_requirements('mm.txt'),
        # upstream, for those who already have it
        'openmmlab': ['mmengine', 'mmcv', 'mmsegmentation'],
        # tools/launch.py --use-cluster
        'slurm': ['submitit'],
        'tests': read_requirements('tests.txt'),
    },
)
