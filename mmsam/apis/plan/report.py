"""A plan as a text for the terminal."""

from prettytable import PrettyTable

from .machine import PROCESS_BYTES, memory_of_process
from .plan import Plan, PlannedVariant
from .prediction import MOST_IMAGES
from .stored_embeddings import StoredEmbeddings


def plan_report(plan: Plan) -> str:
    """Two tables, and a line for each variant that there is not."""
    images, objects = plan.batch
    lines = [
        f'A step trains on {images} images of {plan.image_size} px with {objects} objects each '
        f'({plan.objects_from}).',
        str(_costs(plan)),
        'memory: weights, gradients, optimizer, batch and activations when they are most; a '
        f'process on a CPU takes {PROCESS_BYTES / 1e9:.2f} GB without any, and what its allocator '
        'keeps.',
        'Images a batch that a card has room for, with as many objects each:',
        str(_batches(plan)),
    ]
    lines += [f'{variant.name}: {variant.why_not}' for variant in plan.left_out]
    return '\n'.join(lines)


def _costs(plan: Plan) -> PrettyTable:
    table = PrettyTable(
        [
            'variant', 'parameters', 'trained', 'TFLOP a step', 'memory', 'process on a CPU',
            'checkpoint', 'embeddings on disk',
        ]
    )  # fmt: skip
    table.align = 'r'
    table.align['variant'] = 'l'
    for planned in plan.planned:
        table.add_row(
            [
                planned.variant.name,
                _millions(planned.parameters),
                _millions(planned.trained_parameters),
                f'{planned.step.flops / 1e12:.3g}',
                _size(planned.step.memory),
                _size(memory_of_process(planned.step.memory)),
                _size(planned.checkpoint_bytes),
                _embeddings(planned.embeddings),
            ]
        )
    return table


def _batches(plan: Plan) -> PrettyTable:
    table = PrettyTable(['variant', *(f'{card:g} GiB' for card in plan.cards)])
    table.align = 'r'
    table.align['variant'] = 'l'
    for planned in plan.planned:
        table.add_row([planned.variant.name, *_cells(planned)])
    return table


def _cells(planned: PlannedVariant) -> list[str]:
    return [f'{n} or more' if n == MOST_IMAGES else str(n) for n in planned.most_images]


def _embeddings(stored: StoredEmbeddings | None) -> str:
    if stored is None:
        return '-'
    if stored.number is None:
        return f'{_size(stored.bytes_each)} each'
    return _size(stored.bytes_each * stored.number)


def _millions(number: int) -> str:
    return f'{number / 1e6:.2f} M'


def _size(number: float) -> str:
    return f'{number / 1e9:.2f} GB' if number >= 1e9 else f'{number / 1e6:.1f} MB'
