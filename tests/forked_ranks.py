"""Runs a tool as ranks forked from this process, in place of those that torchrun starts.

This process has imported everything, so that a run of several ranks costs a second instead of ten.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ports import free_port
from processes import wait_until
from tiny_run import formatting_once

from mmsam import stop_signal
from mmsam.apis import run_tool
from tools import train

PATIENCE = 120
"""Seconds in which whatever must happen has to happen, on a slow machine too."""


class Ranks:
    """Forked ranks of a tool.

    Args:
        args: of the tool.
        output: file of what they print.
        prepare: called in each with its rank before anything else.
        world_size: number of ranks.
        tool: ``train`` unless given.
        variables: of the environment.
    """

    def __init__(
        self,
        args: list[str],
        output: Path,
        prepare: Callable[[int], None] = lambda rank: None,
        world_size: int = 2,
        tool: ModuleType = train,
        **variables: str,
    ) -> None:
        self.output = output
        output.write_text('')
        variables = dict(
            WORLD_SIZE=str(world_size), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()),
            OMP_NUM_THREADS='1',
        ) | variables  # fmt: skip
        self._tool = tool
        self.codes: dict[int, int] = {}
        self.ranks = [self._fork(args, rank, prepare, variables) for rank in range(world_size)]

    def _fork(
        self, args: list[str], rank: int, prepare: Callable[[int], None], variables: dict[str, str]
    ) -> int:
        process = os.fork()
        if process:
            return process
        try:
            stop_signal.listen()
            with self.output.open('a') as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.environ.update(variables, RANK=str(rank), LOCAL_RANK=str(rank))
            sys.argv = [str(self._tool.__file__), *args, '--launcher', 'pytorch']
            prepare(rank)
            with formatting_once():
                run_tool(self._tool.main, self._tool.parse_args())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(99)  # run_tool has ended the process before

    def poll(self) -> bool:
        """Whether a rank has ended."""
        for rank, process in enumerate(self.ranks):
            if rank not in self.codes:
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)
        return bool(self.codes)

    def finish(self, kill_the_rest: bool = False) -> list[int]:
        """Exit codes of all ranks, -9 for those that are killed here."""
        if kill_the_rest:
            self.kill()
        wait_until(lambda: self.poll() and len(self.codes) == len(self.ranks), PATIENCE)
        self.kill()
        wait_until(lambda: self.poll() and len(self.codes) == len(self.ranks), PATIENCE)
        return [self.codes[rank] for rank in range(len(self.ranks))]

    def kill(self) -> None:
        for rank, process in enumerate(self.ranks):
            if rank not in self.codes:
                os.kill(process, signal.SIGKILL)


def train_on_ranks(world_size: int, work_dir: Path, *args: object, **options: Any) -> None:
    """A run of ``train.py`` on so many ranks, which must succeed; options as of ``Ranks``."""
    output = work_dir.with_name(f'{work_dir.name}.out')
    words = [*map(str, args), '--work-dir', str(work_dir)]
    codes = Ranks(words, output, world_size=world_size, **options).finish()
    assert codes == [0] * world_size, output.read_text()[-3000:]
