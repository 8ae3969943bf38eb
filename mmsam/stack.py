"""Checks on import that the packages mmsam stands on are there, and there once."""

from importlib.metadata import packages_distributions
from importlib.util import find_spec

FORK_OF = {
    'mmengine': ('onedl-mmengine', ('mmengine', 'mmengine-lite')),
    'mmcv': ('onedl-mmcv', ('mmcv', 'mmcv-lite')),
    'mmseg': ('onedl-mmsegmentation', ('mmsegmentation',)),
}
"""Import name: the maintained fork, and upstream's distributions of the same module."""


def check_stack() -> None:
    """Raise ImportError where torch or an MM package is missing, or installed twice.

    A fork and its upstream write into the same folder; whichever came last has silently
    overwritten the other's files, so that neither can be trusted.
    """
    if find_spec('torch') is None:
        raise ImportError("mmsam needs torch: install it first, e.g. 'pip install torch'.")
    missing = [module for module in FORK_OF if find_spec(module) is None]
    if missing:
        raise ImportError(
            f"mmsam needs {', '.join(missing)}: run 'pip install mmsam[mm]' (from a clone: "
            "'pip install -e .[mm]')."
        )
    installed = packages_distributions()
    for module, (fork, upstreams) in FORK_OF.items():
        names = set(installed.get(module, ()))
        both = names & set(upstreams)
        if fork in names and both:
            raise ImportError(
                f'Module {module} was installed twice, by {fork} and {", ".join(sorted(both))}, '
                'and they overwrite each other: uninstall both, then install one.'
            )
