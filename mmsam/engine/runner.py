"""mmengine's Runner with strict loading of SAM weights and distributed training on CPUs."""

import os
from collections.abc import Callable

import torch
from mmengine.dist import is_distributed
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmsam.errors import CheckpointError
from mmsam.registry import RUNNERS


@RUNNERS.register_module()
class SAMRunner(Runner):
    """Runner of all mmsam tools; it trains any mmseg model as well.

    Differences to mmengine's:

    - A model with a method ``load_weights`` (``SAMSegmentor``) loads ``load_from`` through it, and
      resumes strictly; mmengine only logs what is missing.
    - Distributed data parallel works on CPUs, and for SAM always looks for unused parameters: a
      loss or a prompt may leave a part untouched, which would hang the other ranks.
    """

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list | None = None,
    ) -> dict:
        """Load weights (``load_from``), or a whole checkpoint on resume; see mmengine."""
        model = self.model.module if is_model_wrapper(self.model) else self.model
        is_sam = hasattr(model, 'load_weights')
        if is_sam:
            # on resume too: it says what does not fit, and refuses files that would run code
            model.load_weights(filename)
            if not self._resume:
                self._has_loaded = True
                return {}
        keys = [(r'^module\.', '')] if revise_keys is None else revise_keys
        try:
            checkpoint = super().load_checkpoint(filename, map_location, strict or is_sam, keys)
        except (RuntimeError, OSError) as error:
            reason = ' '.join(str(error).split())
            raise CheckpointError(f'{filename} cannot be loaded: {reason}') from error
        if self._resume and not {'meta', 'message_hub', 'optimizer'} <= checkpoint.keys():
            raise CheckpointError(
                f'{filename} holds weights without the state of a run: start from them with '
                '--load-from.'
            )
        return checkpoint

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap for distributed training; a ``model_wrapper_cfg`` in the config goes first."""
        if is_distributed() and model_wrapper_cfg is None and not is_model_wrapper(model):
            device_ids = [int(os.environ['LOCAL_RANK'])] if torch.cuda.is_available() else None
            is_sam = hasattr(model, 'load_weights')
            model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                device_ids=device_ids,
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', is_sam),
            )
        return super().wrap_model(model_wrapper_cfg, model)
