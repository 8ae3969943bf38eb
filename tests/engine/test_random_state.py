import random

import numpy as np
import torch

from mmsam.engine.random_state import random_state, random_states, set_random_state


def draw() -> tuple:
    return random.random(), np.random.normal(), float(torch.randn(())), np.random.normal()


def test_a_state_brings_the_same_numbers_back():
    np.random.normal()  # NumPy keeps a second number for the next call: part of the state
    state = random_state()
    expected = draw()
    assert draw() != expected
    set_random_state(state)
    assert draw() == expected


def test_a_state_is_a_copy():
    state = random_state()
    expected = draw()
    draw()
    set_random_state(state)
    set_random_state(state)
    assert draw() == expected


def test_one_process_has_one_state():
    (state,) = random_states()
    expected = draw()
    set_random_state(state)
    assert draw() == expected
