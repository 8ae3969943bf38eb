"""Make report.html in the work dir of a training, from the files that it left there."""

import argparse
import sys
from pathlib import Path

from mmsam.errors import DataError, MMSAMError
from mmsam.visualization.report import write_report


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='folder of a training, finished or not')
    args = parser.parse_args(argv)
    try:
        if not args.work_dir.is_dir():
            raise DataError(f'Expected the work dir of a training, got {args.work_dir}: no folder.')
        if not any(args.work_dir.glob('*/vis_data')):
            raise DataError(
                f'Expected the work dir of a training, got {args.work_dir} without a folder '
                '*/vis_data.'
            )
        print(write_report(args.work_dir))
    except MMSAMError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == '__main__':
    sys.exit(main())
