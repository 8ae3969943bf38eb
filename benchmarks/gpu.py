"""ViT-B, L and H on one GPU, in a single run of at most ten minutes.

    python -m benchmarks.gpu [--device cuda] [--minutes 8] [--out gpu.json]

Needs mmsam and what it runs on; segment_anything and transformers are measured where they can be
imported. For each size and batch 1, 4 and 8: the image encoder forward, the decoder forward and
backward with 8 boxes an image, and steps of AdamW on the whole model and on its last blocks. Then
the kernels that ran, attention by backend at the head dimensions that occur, and the same with
compiled blocks. Everything in bfloat16 autocast but the side ``segment_anything fp32``; weights are
random and the same on all sides.

Of each step: images a second (median of the repetitions, of which the first is not counted), GiB
that it adds to what was allocated before, and the share of the card's bfloat16 peak, which a large
matrix product in the same run gives; only the model's own operations count, without padding and
what is computed again. ``--out`` is written after every row. A row that no time is left for, or
that does not fit, says so.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmsam.models.sam import SAMImageEncoder, SAMMaskDecoder, SAMPromptEncoder
from mmsam.models.sam.image_encoder import ARCHITECTURES

BOXES = 8
TRAINED_BLOCKS = 4
REPETITIONS = 5
TASKS = ('encoder', 'decoder', 'full fine-tune', 'last blocks')
BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
)


@dataclass(frozen=True)
class Size:
    """What is measured: an architecture (``SAMImageEncoder``'s dict) at a side of S px."""

    name: str
    arch: dict[str, Any]
    img_size: int

    @property
    def grid(self) -> int:
        """Tokens of a side."""
        return self.img_size // 16

    def encoder_operations(self) -> float:
        """Multiplications and additions of the encoder's forward pass of one image."""
        tokens, dim = self.grid**2, self.arch['embed_dim']
        window = self.arch.get('window_size', 14) ** 2
        global_blocks = len(self.arch['global_attn_indexes'])
        keys = global_blocks * tokens + (self.arch['depth'] - global_blocks) * window
        linear = 24 * tokens * dim**2 * self.arch['depth']  # qkv, proj and the MLP
        ends = 2 * tokens * (3 * 16**2 * dim + 256 * dim + 9 * 256**2)  # patches and neck
        return linear + 4 * tokens * keys * dim + ends


PUBLISHED = tuple(Size(name, arch, 1024) for name, arch in ARCHITECTURES.items())
TINY = (
    Size(
        'tiny',
        dict(embed_dim=48, depth=2, num_heads=3, global_attn_indexes=(1,), window_size=3),
        128,
    ),
)


class Ours(nn.Module):
    """mmsam's three parts; ``forward`` gives the low-res logits of all boxes of all images."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.image_encoder = SAMImageEncoder(size.arch, size.img_size)
        self.prompt_encoder = SAMPromptEncoder(image_size=size.img_size)
        self.mask_decoder = SAMMaskDecoder()

    def encode(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)

    def decode(self, embeddings: Tensor, boxes: Tensor) -> Tensor:
        """Embeddings (B, 256, g, g) and boxes (B, K, 4) to logits (B·K, 1, 4g, 4g)."""
        with torch.no_grad():
            sparse, dense = self.prompt_encoder(boxes.flatten(0, 1))
            image_pe = self.prompt_encoder.get_dense_pe()
        index = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
        return self.mask_decoder(embeddings, image_pe, sparse, dense, index, False)[0]


class Theirs(nn.Module):
    """segment_anything's; its decoder takes one image at a time."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        from .peers import their_sam
        from .rows import QUICK

        sam = their_sam(replace(QUICK, arch=size.arch, img_size=size.img_size))
        self.image_encoder, self.prompt_encoder = sam.image_encoder, sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder

    def encode(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)

    def decode(self, embeddings: Tensor, boxes: Tensor) -> Tensor:
        logits = []
        for embedding, of_image in zip(embeddings, boxes, strict=True):
            with torch.no_grad():
                sparse, dense = self.prompt_encoder(points=None, boxes=of_image, masks=None)
            low_res, _ = self.mask_decoder(
                image_embeddings=embedding[None],
                image_pe=self.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            logits.append(low_res)
        return torch.cat(logits)


class HuggingFace(nn.Module):
    """The image encoder of transformers' ``SamModel`` with ``sdpa``."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        from .peers import hugging_face_encoder

        self.image_encoder = hugging_face_encoder(weights, 'sdpa')

    def encode(self, images: Tensor) -> Tensor:
        return self.image_encoder(images).last_hidden_state


@dataclass(frozen=True)
class Side:
    """One way to run a task.

    Args:
        name: in the results.
        build: the model, on the CPU, from the weights of ``Ours``.
        tasks: that it can run.
        bfloat16: under autocast.
        compiled: each block of the encoder by itself.
    """

    name: str
    build: Callable[[Size, dict[str, Tensor]], nn.Module]
    tasks: tuple[str, ...] = TASKS
    bfloat16: bool = True
    compiled: bool = False


def _build(
    kind: type[Ours] | type[Theirs], size: Size, weights: dict[str, Tensor]
) -> Ours | Theirs:
    model = kind(size)
    model.load_state_dict(weights)
    return model


_build_ours = partial(_build, Ours)
_build_theirs = partial(_build, Theirs)


def available_sides() -> list[Side]:
    """All sides whose packages can be imported."""
    sides = [Side('mmsam', _build_ours)]
    if find_spec('segment_anything'):
        sides += [
            Side('segment_anything fp32', _build_theirs, bfloat16=False),
            Side('segment_anything', _build_theirs),
        ]
    if find_spec('transformers'):
        sides.append(Side('hugging_face sdpa', lambda _, w: HuggingFace(w), tasks=('encoder',)))
    sides.append(Side('mmsam compiled', _build_ours, ('encoder', 'full fine-tune'), compiled=True))
    if find_spec('segment_anything'):
        sides.append(
            Side(
                'segment_anything compiled',
                _build_theirs,
                ('encoder', 'full fine-tune'),
                compiled=True,
            )
        )
    return sides


def random_weights(size: Size) -> dict[str, Tensor]:
    """Of all three parts; the position embeddings, which start at zero, are random too."""
    torch.manual_seed(0)
    model = Ours(size)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(('pos_embed', 'rel_pos_h', 'rel_pos_w')):
                parameter.normal_(std=0.3)
    return model.state_dict()


class Bench:
    """The measurements of one device.

    Args:
        device: torch's name of it.
        deadline: ``time.monotonic()`` after which nothing new starts.
        report: called with all results after each of them.
    """

    def __init__(
        self, device: str, deadline: float, report: Callable[[dict[str, Any]], None]
    ) -> None:
        self.device = torch.device(device)
        self.deadline = deadline
        self.report = report
        self.is_gpu = self.device.type == 'cuda'
        self.results: dict[str, Any] = dict(
            device=torch.cuda.get_device_name(self.device) if self.is_gpu else 'CPU',
            torch=torch.__version__,
            rows=[],
            attention=[],
            kernels=[],
        )

    def run(
        self, sizes: tuple[Size, ...], batches: tuple[int, ...], sides: list[Side]
    ) -> dict[str, Any]:
        """Measure everything, what is compiled at the end."""
        self.results['peak_bf16_tflops'] = self.peak() / 1e12
        weights = {size.name: random_weights(size) for size in sizes}
        eager, compiled = (
            [side for side in sides if side.compiled == is_so] for is_so in (False, True)
        )
        for size in sizes:
            self._add_rows(eager, size, batches, weights[size.name])
            self._add_kernels(eager, size, weights[size.name])
            self._add_attention(size)
        for size in sizes:
            self._add_rows(compiled, size, batches, weights[size.name])
        return self.results

    def _add_rows(
        self, sides: list[Side], size: Size, batches: tuple[int, ...], weights: dict[str, Tensor]
    ) -> None:
        for batch, side in product(batches, sides):
            for task in side.tasks:
                self._add_row(side, task, size, batch, weights)

    def _add_row(
        self, side: Side, task: str, size: Size, batch: int, weights: dict[str, Tensor]
    ) -> None:
        row: dict[str, Any] = dict(size=size.name, batch=batch, task=task, side=side.name)
        if time.monotonic() > self.deadline:
            row['left_out'] = 'no time was left'
        else:
            try:
                row |= self.measure(side, task, size, batch, weights)
            except torch.OutOfMemoryError:
                row['left_out'] = 'out of memory'
            except RuntimeError as error:  # one that does not compile must not end the run
                row['left_out'] = _first_line(error)
        self._collect()
        self.results['rows'].append(row)
        self.report(self.results)

    def measure(
        self, side: Side, task: str, size: Size, batch: int, weights: dict[str, Tensor]
    ) -> dict[str, Any]:
        """Images a second, GiB that a step adds, share of the peak, error of the embeddings."""
        model = side.build(size, weights).to(self.device)
        if side.compiled:
            for block in model.image_encoder.blocks:
                block.compile()
        step = self._step(model, side, task, size, batch)
        step()  # allocations, the choice of kernels, compilation
        before = torch.cuda.memory_allocated(self.device) if self.is_gpu else 0
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds = median(self.seconds_of(step) for _ in range(REPETITIONS))
        row: dict[str, Any] = dict(seconds=seconds, images_per_second=batch / seconds)
        if self.is_gpu:
            row['added_gib'] = (torch.cuda.max_memory_allocated(self.device) - before) / 2**30
        if task == 'encoder':
            operations = size.encoder_operations() * batch
            row['share_of_peak'] = operations / seconds / 1e12 / self.results['peak_bf16_tflops']
            row['error'] = self._error(model, side, size, weights)
        return row

    def _step(
        self, model: nn.Module, side: Side, task: str, size: Size, batch: int
    ) -> Callable[[], None]:
        images, boxes, target = self._inputs(size, batch)
        if task == 'encoder':
            return lambda: self._encode(model, images, side)
        embeddings = torch.randn(batch, 256, size.grid, size.grid, device=self.device)
        trained = _train_only(model, task, size)
        optimizer = torch.optim.AdamW(trained, lr=1e-5)

        def step() -> None:
            with self._autocast(side.bfloat16):
                found = embeddings if task == 'decoder' else model.encode(images)
                logits = model.decode(found, boxes)
            F.binary_cross_entropy_with_logits(logits.float(), target).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    @torch.no_grad()
    def _encode(self, model: nn.Module, images: Tensor, side: Side) -> Tensor:
        with self._autocast(side.bfloat16):
            return model.encode(images)

    def _error(self, model: nn.Module, side: Side, size: Size, weights: dict[str, Tensor]) -> float:
        """Difference of an image's embedding to mmsam's in float32, relative, by their norms."""
        images = self._inputs(size, 1)[0]
        exact = Side('mmsam fp32', _build_ours, bfloat16=False)
        reference = self._encode(exact.build(size, weights).to(self.device), images, exact)
        found = self._encode(model, images, side).float()
        return float((found - reference).norm() / reference.norm())

    def _inputs(self, size: Size, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, S, S), boxes (B, K, 4) and masks (B·K, 1, S/4, S/4)."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, size.img_size, size.img_size, generator=generator)
        corners = torch.rand(batch, BOXES, 2, 2, generator=generator).sort(dim=2).values
        side = 4 * size.grid
        target = torch.rand(batch * BOXES, 1, side, side, generator=generator).round()
        boxes = corners.flatten(2) * size.img_size
        return tuple(tensor.to(self.device) for tensor in (images, boxes, target))

    def _autocast(self, bfloat16: bool) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if bfloat16 else nullcontext()

    def seconds_of(self, step: Callable[[], Any]) -> float:
        """Until the device has finished it."""
        self._wait()
        start = time.perf_counter()
        step()
        self._wait()
        return time.perf_counter() - start

    def peak(self) -> float:
        """Operations a second of the fastest of some products of large bfloat16 matrices."""
        side = 8192 if self.is_gpu else 256
        a = torch.randn(side, side, device=self.device, dtype=torch.bfloat16)
        fastest = min(self.seconds_of(lambda: a @ a) for _ in range(20))
        return 2 * side**3 / fastest

    def _add_kernels(self, sides: list[Side], size: Size, weights: dict[str, Tensor]) -> None:
        """What a forward pass of the encoder spends its time in."""
        from torch.profiler import ProfilerActivity, profile

        activity = ProfilerActivity.CUDA if self.is_gpu else ProfilerActivity.CPU
        for side in sides:
            if time.monotonic() > self.deadline:
                continue
            model = side.build(size, weights).to(self.device)
            images = self._inputs(size, 1)[0]
            self._encode(model, images, side)
            with profile(activities=[activity]) as profiler:
                self._encode(model, images, side)
                self._wait()
            spent = {
                event.key: event.self_device_time_total
                if self.is_gpu
                else event.self_cpu_time_total
                for event in profiler.key_averages()
            }
            total = sum(spent.values()) or 1
            most = sorted(spent, key=lambda name: -spent[name])[:8]
            self.results['kernels'].append(
                dict(
                    size=size.name,
                    side=side.name,
                    share_by_kernel={name[:100]: spent[name] / total for name in most},
                )
            )
            self.report(self.results)
        self._collect()

    def _add_attention(self, size: Size) -> None:
        """Forward and backward by backend, at the widths that mmsam's encoder has."""
        for kind, tokens, batch, width in self.attention_shapes(size):
            for backend in BACKENDS:
                row: dict[str, Any] = dict(
                    size=size.name, kind=kind, head_dim=width, backend=backend.name
                )
                if time.monotonic() > self.deadline:
                    row['left_out'] = 'no time was left'
                else:
                    row |= self._attention(backend, batch, size, tokens, width)
                self.results['attention'].append(row)
        self._collect()
        self.report(self.results)

    def attention_shapes(self, size: Size) -> Iterator[tuple[str, int, int, int]]:
        """Kind, tokens, batch and width of an image's attentions, widths a multiple of 8."""
        head_dim = size.arch['embed_dim'] // size.arch['num_heads']
        window = size.arch.get('window_size', 14)
        windows = -(-size.grid // window)
        for kind, side, batch in (('global', size.grid, 1), ('window', window, windows**2)):
            yield kind, side**2, batch, -(-(head_dim + 2 * side) // 8) * 8

    def _attention(
        self, backend: SDPBackend, batch: int, size: Size, tokens: int, width: int
    ) -> dict[str, Any]:
        shape = (batch, size.arch['num_heads'], tokens, width)
        query, key, value = (
            torch.randn(shape, device=self.device, dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        )

        def step() -> None:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(query, key, value, scale=1.0).sum().backward()

        try:
            step()
            return dict(seconds=median(self.seconds_of(step) for _ in range(REPETITIONS)))
        except torch.OutOfMemoryError:
            return dict(left_out='out of memory')
        except RuntimeError as error:  # the backend does not take these shapes
            return dict(left_out=_first_line(error))

    def _wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def _collect(self) -> None:
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()


def _first_line(error: Exception) -> str:
    return str(error).partition('\n')[0][:100]


def _train_only(model: nn.Module, task: str, size: Size) -> list[nn.Parameter]:
    """Freeze what the task does not train; the parameters that are left."""
    encoder = model.image_encoder
    frozen: list[nn.Parameter] = [*model.prompt_encoder.parameters()]
    if task == 'decoder':
        frozen += encoder.parameters()
    elif task == 'last blocks':
        first = max(0, size.arch['depth'] - TRAINED_BLOCKS)
        early = encoder.blocks[:first].parameters()
        frozen += [encoder.pos_embed, *encoder.patch_embed.parameters(), *early]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def table(results: dict[str, Any]) -> str:
    """The rows as lines of text."""
    lines = [f'{results["device"]}, bf16 peak {results["peak_bf16_tflops"]:.3g} TFLOP/s']
    for row in results['rows']:
        what = f'{row["size"]:6} batch {row["batch"]} {row["task"]:15} {row["side"]:26}'
        if 'left_out' in row:
            lines.append(f'{what} {row["left_out"]}')
            continue
        memory = f'{row["added_gib"]:7.2f} GiB' if 'added_gib' in row else ''
        share = f'{row["share_of_peak"]:5.0%} of the peak' if 'share_of_peak' in row else ''
        lines.append(f'{what} {row["images_per_second"]:8.2f} img/s {memory} {share}')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.gpu',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--minutes', type=float, default=8, help='after which no row starts')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 4, 8])
    parser.add_argument('--tiny', action='store_true', help='a tiny model: does it run?')
    parser.add_argument('--eager', action='store_true', help='nothing compiled')
    parser.add_argument('--out', type=Path, default=Path('gpu.json'))
    args = parser.parse_args()
    bench = Bench(
        args.device,
        time.monotonic() + 60 * args.minutes,
        lambda results: args.out.write_text(json.dumps(results, indent=1)),
    )
    sides = [side for side in available_sides() if not (args.eager and side.compiled)]
    results = bench.run(TINY if args.tiny else PUBLISHED, tuple(args.batches), sides)
    print(table(results))


if __name__ == '__main__':
    sys.exit(main())
