"""Measure mmsam against its peers on this machine's CPU.

    make bench                            # in an environment of its own, 20 to 25 minutes
    python -m benchmarks --rows NAME ...  # only these
    python -m benchmarks --quick          # tiny models: does every row run?

Prints the table and writes ``benchmarks/results.json``, the picture and the table of
docs/benchmarks.md; with ``--quick`` only the first. With ``--rows`` the other rows stay as they
are in ``results.json``, each with the machine that it was measured on. Files are written after each
subject, so that a run that is stopped leaves what it has measured. Ends with 1 if a result
differs from the peer's by more than its row allows.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable

from . import (
    decoder_rows,
    encoder_rows,
    epoch_rows,
    evaluation_rows,
    report,
    size_rows,
    training_rows,
)
from .machine import describe
from .peers import missing
from .report import Result
from .rows import FULL, QUICK, Row, Scale

SUBJECTS = (
    encoder_rows,
    decoder_rows,
    training_rows,
    epoch_rows,
    size_rows,
    evaluation_rows,
)
"""Modules with ``ROWS`` and ``measure``, in the order of the table."""

ROWS: dict[str, Row] = {row.name: row for subject in SUBJECTS for row in subject.ROWS}


def measure_rows(
    names: list[str],
    scale: Scale,
    after_each: Callable[[list[Result]], None] = lambda results: None,
) -> list[Result]:
    """Measure rows, in the order of the table; those of a missing peer are left out, with why.

    Args:
        names: of the rows.
        scale: at which.
        after_each: called after each subject with all results so far.
    """
    results: list[Result] = []
    for subject in SUBJECTS:
        rows = [row for row in subject.ROWS if row.name in names]
        wanted = frozenset(row.name for row in rows if not missing(row.peers))
        start = time.perf_counter()
        measured = subject.measure(wanted, scale) if wanted else {}
        print(
            f'{subject.__name__}: {time.perf_counter() - start:.0f} s', file=sys.stderr, flush=True
        )
        for row in rows:
            if row.name in measured:
                results.append(report.result_of(row, measured[row.name], describe()))
            else:
                reason = f'{" and ".join(missing(row.peers))} is not installed'
                results.append(report.left_out(row, reason, describe()))
        if rows:
            after_each(results)
    return results


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--rows', nargs='+', metavar='NAME', choices=list(ROWS), help='only these')
    parser.add_argument('--quick', action='store_true', help='tiny models, nothing is written')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    warnings.simplefilter('ignore')  # of the peers and of mmcv-lite
    if args.quick:
        results = measure_rows(args.rows or list(ROWS), QUICK)
    else:
        kept = report.read_results() if args.rows else []
        results = measure_rows(
            args.rows or list(ROWS),
            FULL,
            lambda results: report.write(report.merged(kept, results, list(ROWS))),
        )
    print(report.table(results))
    return int(any(result['wrong'] for result in results))


if __name__ == '__main__':
    sys.exit(main())
