import os
import subprocess
import sys

import pytest
from tiny_run import ROOT


@pytest.mark.bad_input(82, 89)
def test_no_fault_loses_an_iteration_or_changes_a_number():
    """The short form: 20 kills, and the other faults once."""
    paths = os.pathsep.join([str(ROOT / 'tests'), str(ROOT)])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'tests' / 'faults' / 'inject.py', '--short'],
        env={**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert 'kill -9 of a rank' in done.stdout
