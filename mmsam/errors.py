"""The errors mmsam raises for bad input, and the exit code of each kind."""


class MMSAMError(Exception):
    """Base of all errors a user can cause.

    The message is one sentence: what was expected, what was found, where (which file, which
    object). Command line tools print it without a traceback and exit with ``exit_code``.
    """

    exit_code = 1


class ConfigError(MMSAMError):
    """A config or a command line option is wrong."""

    exit_code = 2


class DataError(MMSAMError):
    """An image, a mask or an annotation is wrong or missing."""

    exit_code = 3


class CheckpointError(MMSAMError):
    """A weights file is missing, damaged, or does not fit the model."""

    exit_code = 4


class LaunchError(MMSAMError):
    """The processes of a run cannot be started together, or one of them does not come on."""

    exit_code = 5


class StorageError(MMSAMError):
    """A file cannot be written: the disk is full, read-only, or the folder is not ours."""

    exit_code = 6


class DivergedError(MMSAMError):
    """Loss or gradients stay NaN or infinite."""

    exit_code = 7


class StoppedError(MMSAMError):
    """The run was asked to end, by Slurm or by Ctrl-C, and is saved; EX_TEMPFAIL of sysexits.h.

    Where nothing was saved since its start, its ``exit_code`` is 128 + the signal's number.
    """

    exit_code = 75
