"""Start a task of launch.py's job; signals wait until it can follow them, imports take seconds.

    python tools/submitit_task.py -u -m submitit.core._submit FOLDER

submitit writes this command, with what it takes for Python in front.
"""

# ruff: noqa: E402
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))

import runpy
import sys

if __name__ == '__main__':
    module, folder = sys.argv[3:]
    sys.argv = [module, folder]
    sys.path[0] = ''  # as with python -m
    runpy.run_module(module, run_name='__main__')
