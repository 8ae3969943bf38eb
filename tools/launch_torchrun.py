"""Run torchrun on a port that is held from the start, and have the last word about what failed.

    python tools/launch_torchrun.py PORT given|preferred|elsewhere [arguments of torchrun]

Called by ``launch_torchrun.sh``. A ``preferred`` port may be replaced by a free one; ``elsewhere``
leaves it to the first machine. The exit code is that of the rank that ended the job, or 128 and
the signal's number where a signal did; a job that was asked to end ends with 75 if its ranks do.
"""

import os
import signal
import socket
import sys
from typing import Any, NoReturn

STOPPED = 75
"""Of a rank that was asked to end and is saved."""

SECONDS_AFTER_A_FAILURE = 3
"""For the other ranks to end; they may wait for the failed one, deaf to SIGTERM."""

SECONDS_AFTER_A_SIGNAL = 600
"""For the ranks to finish their iteration and save; whoever sent the signal may be less patient."""


def bound(port: int, beside_others: bool) -> socket.socket:
    """A socket on a port; 0 is any free one."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, beside_others)
    holder.bind(('', port))
    return holder


def hold(port: int, port_is: str) -> socket.socket | None:
    """Hold the port until torchrun listens, which it does after its imports, seconds later.

    The socket does not listen; it keeps away jobs that are started at the same moment, which then
    find another port or end with a message.
    """
    if port_is == 'elsewhere':
        return None
    try:
        return bound(port, False)
    except OSError:
        if port_is == 'preferred':
            holder = bound(0, False)
            print(
                f'PORT not given and {port} is taken: using {holder.getsockname()[1]}',
                file=sys.stderr,
            )
            return holder
    try:  # a job that has just ended leaves its port waiting for a minute
        return bound(port, True)
    except OSError:
        end_for_the_port(port)


def end_for_the_port(port: int) -> NoReturn:
    other = port + 1 if port < 65535 else 29501
    end(
        f'LaunchError: port {port} is taken or cannot be used, by another job perhaps: '
        f'choose another one, e.g. PORT={other}.',
        5,
    )


def end(last_words: str, exit_code: int) -> NoReturn:
    print(last_words, file=sys.stderr, flush=True)
    sys.exit(exit_code)


def time_of(failure: Any) -> tuple[bool, float]:
    """By what the failures of ranks are put in order, the one that ended the job first.

    torchrun also counts the ranks that it ends itself, by SIGTERM and later by SIGKILL. When
    a rank that left no error file was killed, it knows to a second, and as late as it noticed.
    """
    if isinstance(failure.message, dict):
        return False, failure.message['extraInfo']['time']
    return -failure.exitcode == signal.SIGTERM, failure.timestamp - 1


def own_exit_code(failure: Any) -> int:
    """The code with which a rank wanted to end: torchrun may have killed it on its way out."""
    if isinstance(failure.message, dict):
        return failure.message['extraInfo']['exit_code']
    return failure.exitcode


def end_for_the_first(failures: dict[int, Any]) -> NoReturn:
    """Name the rank that failed first, with its own words."""
    rank, first = min(failures.items(), key=lambda item: time_of(item[1]))
    code = first.exitcode
    if isinstance(first.message, dict):
        words = first.message['message'].rstrip()
        end(f'Rank {rank} ended the job:\n{words}', own_exit_code(first))
    if code < 0:
        end(f'Rank {rank} was killed by {first.signal_name()}, which ended the job.', 128 - code)
    end(f'Rank {rank} ended the job with exit code {code}; what it printed stands above.', code)


def end_after_signal(number: int, ranks: Any) -> NoReturn:
    """End as the ranks did after a signal; one that failed nevertheless goes first.

    Args:
        number: of the signal.
        ranks: torchrun's ``SubprocessContext``, closed; None where no rank was started.
    """
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    name = signal.Signals(number).name
    if ranks is None:
        end(f'{name} has ended the job before its ranks were started.', 128 + number)
    failures = {}
    for local_rank, handler in ranks.subprocess_handlers.items():
        code = handler.proc.poll()
        if code is None:  # the kernel does not let it go
            code = -signal.SIGKILL
        if code != 0:
            error_file = ranks.error_files[local_rank]
            failure = ProcessFailure(local_rank, handler.proc.pid, code, error_file)
            failures[int(ranks.envs[local_rank]['RANK'])] = failure
    others = {rank: one for rank, one in failures.items() if own_exit_code(one) != STOPPED}
    if others:
        end_for_the_first(others)
    if failures:
        end(f'{name} has ended the job; what its ranks saved stands above.', STOPPED)
    end(f'{name} came when the ranks were done.', 0)


def main(port: int, port_is: str, arguments: list[str]) -> None:
    holder = hold(port, port_is)
    if holder is not None:
        port = holder.getsockname()[1]

    from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    if holder is not None:
        # Torchrun binds with SO_REUSEADDR: it may from now on, still before the kernel gives the
        # port to anybody else. Other systems than Linux would keep it away.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        if sys.platform != 'linux':
            holder.close()
    # torchrun waits 30 s in both cases
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', str(SECONDS_AFTER_A_SIGNAL))
    closed = []
    close = PContext.close

    def close_and_note(
        self: Any, death_sig: Any = None, timeout: int = SECONDS_AFTER_A_FAILURE
    ) -> None:  # torchrun gives a timeout only after a signal
        closed.append(self)
        close(self, death_sig, timeout)

    PContext.close = close_and_note
    os.environ['MMSAM_LAUNCHER_PID'] = str(os.getpid())
    # by default SIGUSR1, which Slurm may be told to send, kills torchrun and leaves its processes
    signals = '--signals-to-handle=SIGTERM,SIGINT,SIGUSR1'
    try:
        run(parse_args([f'--master_port={port}', signals, *arguments]))
    except RuntimeError as error:
        if 'EADDRINUSE' not in str(error):
            raise
        end_for_the_port(port)
    except ChildFailedError as error:
        end_for_the_first(error.failures)
    except SignalException as error:
        end_after_signal(error.sigval, closed[-1] if closed else None)


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
