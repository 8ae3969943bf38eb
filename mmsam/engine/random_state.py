"""The states of the random generators that a training draws from, of all ranks."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object

RandomState = dict[str, Any]


def random_state() -> RandomState:
    """The state of this process: ``python``, ``numpy``, ``torch`` and ``cuda`` (this GPU's)."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        'python': random.getstate(),
        'numpy': (keys, position, has_gauss, gauss),
        'torch': torch.get_rng_state().numpy(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state().numpy()
    return state


def random_states() -> list[RandomState]:
    """``random_state`` of every rank, in their order; all ranks have to call it."""
    return all_gather_object(random_state())


def set_random_state(state: RandomState) -> None:
    """Put the generators of this process into a state that ``random_state`` returned.

    Its arrays may have become tensors, as they do in a checkpoint.
    """
    random.setstate(state['python'])
    keys, *rest = state['numpy']
    np.random.set_state(('MT19937', np.asarray(keys), *rest))
    torch.set_rng_state(torch.as_tensor(state['torch']))
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.as_tensor(state['cuda']))
