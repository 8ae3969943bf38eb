import os
import signal
import time

import pytest

from mmsam import stop_signal


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """What pytest had, is there again afterwards."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    stop_signal.forget()
    stop_signal.listen()
    yield
    stop_signal.forget()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_remembered_until_it_is_forgotten(number):
    assert stop_signal.received() is None
    os.kill(os.getpid(), number)
    assert stop_signal.received() is number
    stop_signal.forget()
    assert stop_signal.received() is None


def test_the_first_one_counts():
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop_signal.received() is signal.SIGUSR1


def test_ctrl_c_passed_on_by_a_launcher_is_the_same_ctrl_c(capsys):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    assert stop_signal.received() is signal.SIGINT
    assert capsys.readouterr().err.count('Ctrl-C again leaves at once') == 1


def test_a_second_ctrl_c_leaves_at_once(monkeypatch):
    os.kill(os.getpid(), signal.SIGINT)
    later = time.monotonic() + 3
    monkeypatch.setattr(time, 'monotonic', lambda: later)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
