"""Memory and FLOPs of a computation on tensors without memory."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from mmsam.errors import ConfigError

_aten = torch.ops.aten

_REAL_BYTES = 2**20
"""What is computed from real tensors alone is real up to this size."""

_INVENTED_NUMBERS = 2**16
"""Of a tensor: up to so many whole numbers or truths are invented, see ``Tracer``."""


class Tracer(TorchDispatchMode):
    """Runs what is in its context on tensors without memory, and keeps count of both.

    Large tensors, and all that is computed from them, are torch's fake tensors: they have shape,
    type and storage, but no content. Small ones that depend on no such tensor are real, so that
    Python code that looks at numbers or kinds of prompts runs as always. Small whole numbers and
    truths that do depend on one, such as clicks on a prediction, are invented, truths as true and
    numbers as 0, which is an index of anything: branches may depend on them, memory hardly does.

    Attributes:
        without_memory: context in which all that is made is fake, such as a model.
        live: bytes of all storages that are alive.
        peak: the most that were alive at a time since ``reset``.
        flops: of matrix products, convolutions and attention since ``reset``; a multiplication and
            an addition are two.

    Raises:
        ConfigError: a shape or a branch depends on the content of a large tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.without_memory = FakeTensorMode(allow_non_fake_inputs=True)
        self.live = 0
        self.peak = 0
        self.flops = 0
        self._watched: dict[int, tuple[int, weakref.ref]] = {}

    def reset(self) -> None:
        """Begin a new peak at what is alive, and count FLOPs from 0."""
        self.peak = self.live
        self.flops = 0

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of tensors that were made outside."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._watched:
                size = storage.nbytes()
                self._watched[key] = size, weakref.ref(storage, self._forgets(key))
                self.live += size
        self.peak = max(self.peak, self.live)

    def _forgets(self, key: int) -> Callable[[weakref.ref], None]:
        def forget(_: weakref.ref) -> None:
            size, _ = self._watched.pop(key)
            self.live -= size

        return forget

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == 'prim':  # the device of a fake tensor
            return func(*args, **kwargs)
        out = self._compute(func, args, kwargs)
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        self.watch(value for value in tree_leaves(out) if isinstance(value, Tensor))
        return out

    def _compute(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if not any(isinstance(value, FakeTensor) for value in tree_leaves((args, kwargs))):
            return self._compute_from_real(func, args, kwargs)
        if func is _aten._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).item()
        if func in _INDEXING:
            args = (args[0], _places(args[1]), *args[2:])
        try:
            with self.without_memory:
                out = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise ConfigError(
                'A step of this model cannot be planned: its shapes depend on the content of '
                f'images ({func}).'
            ) from error
        return tree_map_only(FakeTensor, _invented_if_small, out)

    def _compute_from_real(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """The result with its content, unless it is large."""
        if not func._schema.is_mutable:
            try:
                with self.without_memory:
                    out = func(*args, **kwargs)
            except (DataDependentOutputException, DynamicOutputShapeException):
                return func(*args, **kwargs)
            sizes = [
                value.untyped_storage().nbytes()
                for value in tree_leaves(out)
                if isinstance(value, Tensor)
            ]
            if sum(sizes) > _REAL_BYTES:
                return out
        return func(*args, **kwargs)


_INDEXING = (
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
)

_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q.shape, k.shape, v.shape)
    ),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(
            grad.shape, q.shape, k.shape, v.shape
        )
    ),
}
"""torch's, which lack the kernels of a CPU."""


def _places(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices in which real truths are replaced by the places where they are."""
    places: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            places += index.nonzero().unbind(1)
        else:
            places.append(index)
    return places


def _invented_if_small(tensor: FakeTensor) -> Tensor:
    if tensor.dtype.is_floating_point or tensor.numel() > _INVENTED_NUMBERS:
        return tensor
    is_truth = tensor.dtype in (torch.bool, torch.uint8)
    return torch.full(tensor.shape, int(is_truth), dtype=tensor.dtype)
