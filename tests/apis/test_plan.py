"""The plan against formulas done by hand, and against training steps that really run."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import plain_lora
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from reference_sam import build_reference_sam
from tiny_run import ROOT, write_dataset
from tiny_sam import segmentor_config
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.real_step import measure_step
from mmsam.apis import load_run_config, plan_report, plan_training
from mmsam.apis.plan.machine import PROCESS_BYTES, memory_of_process
from mmsam.apis.plan.prediction import MOST_IMAGES, TracedTraining, largest_batch
from mmsam.apis.plan.stored_embeddings import StoredEmbeddings
from mmsam.apis.plan.tracer import Tracer
from mmsam.apis.plan.training_step import BatchSize, Training, make_batch
from mmsam.apis.plan.variants import variants_of
from mmsam.errors import ConfigError
from mmsam.prompt_sampling import PromptKind

DECODER_ONLY = {'model.frozen': ['image_encoder', 'prompt_encoder']}


def shipped(name: str = 'sam_tiny_stamp.py', **options: Any) -> Config:
    return load_run_config(str(ROOT / 'configs' / name), options or None, None)


def small_config(**options: Any) -> Config:
    """A SAM of 64 px with two blocks, fast to trace."""
    return Config(
        dict(
            default_scope='mmsam',
            model=segmentor_config(64, **options),
            optim_wrapper=dict(
                type='SAMOptimWrapper',
                constructor='TrainableParamsConstructor',
                optimizer=dict(type='AdamW', lr=1e-4, fused=True),
            ),
            custom_hooks=[dict(type='MaskLossHook', loss=dict(type='SAMMaskLoss'))],
            train_dataloader=dict(
                batch_size=2,
                dataset=dict(
                    type='BoxPromptDataset',
                    reader=dict(type='coco', ann_file='nowhere.json'),
                    pipeline=[
                        dict(type='LoadSAMImage'),
                        dict(type='RandomObjects', max_objects=3),
                        dict(type='ResizeLongestSide', image_size=64),
                        dict(type='DecodeObjectMasks'),
                        dict(type='PackSAMInputs'),
                    ],
                ),
            ),
        )
    )


# ----------------------------------------------------------------------------------------- tracer


def test_flops_of_a_linear_layer():
    tracer = Tracer()
    with tracer.without_memory:
        layer, x = nn.Linear(7, 11, bias=False), torch.empty(5, 7, requires_grad=True)
    with tracer:
        out = layer(x)
        assert tracer.flops == 2 * 5 * 7 * 11
        out.sum().backward()
    assert tracer.flops == 3 * 2 * 5 * 7 * 11  # forward, gradient of the weight and of the input


def test_flops_of_attention():
    tracer = Tracer()
    with tracer.without_memory:
        q, k, v = (torch.empty(2, 3, 16, 8, requires_grad=True) for _ in range(3))
    one_product = 2 * (2 * 3) * 16 * 16 * 8
    with tracer:
        out = F.scaled_dot_product_attention(q, k, v)
        assert tracer.flops == 2 * one_product  # scores, and their sum of values
        tracer.reset()
        out.sum().backward()
    assert tracer.flops == 5 * one_product  # the scores again, and gradients of both products


def test_recomputation_counts():
    tracer = Tracer()
    with tracer.without_memory:
        layer, x = nn.Linear(7, 11, bias=False), torch.empty(5, 7, requires_grad=True)
    with tracer:
        checkpoint(lambda x: layer(x).exp(), x, use_reentrant=False).sum().backward()
    assert tracer.flops == 4 * 2 * 5 * 7 * 11


def test_flops_of_the_published_encoder():
    tracer = Tracer()
    with tracer.without_memory:
        arch = dict(embed_dim=768, depth=12, num_heads=12, global_attn_indexes=(2, 5, 8, 11))
        encoder = build_reference_sam(arch, 1024).image_encoder
        image = torch.empty(1, 3, 1024, 1024)
    with tracer, torch.no_grad():
        encoder(image)
    tokens, windows = 4096, 25 * 14**2  # of a map of 64 x 64, padded to 70 x 70 in windows
    width, heads = 768, 64
    linear = {n: 2 * n * width * 4 * width for n in (tokens, windows)}  # qkv and proj
    mlp = 2 * 2 * tokens * width * 4 * width
    attention = 2 * 2 * tokens * tokens * width, 2 * 2 * 25 * 196 * 196 * width
    bias = 2 * 2 * tokens * 12 * heads * 64, 2 * 2 * windows * 12 * heads * 14
    expected = (
        2 * tokens * 3 * 16**2 * width
        + 12 * mlp
        + 4 * (linear[tokens] + attention[0] + bias[0])
        + 8 * (linear[windows] + attention[1] + bias[1])
        + 2 * tokens * 256 * (width + 9 * 256)
    )
    assert tracer.flops == expected
    assert tracer.flops == pytest.approx(972e9, rel=0.01)


def test_peak_and_end_of_a_small_computation():
    number, tracer = 10**6, Tracer()
    with tracer.without_memory:
        x = torch.empty(number, requires_grad=True)
    tracer.watch([x])
    with tracer:
        x.exp().sum().backward()
    # x, its exponential, which backward needs, and the gradient; beside some scalars
    assert tracer.peak == pytest.approx(3 * 4 * number, abs=64)
    assert tracer.live == pytest.approx(2 * 4 * number, abs=64)


def test_a_view_takes_no_memory():
    tracer = Tracer()
    with tracer:
        x = torch.zeros(10**6)
        x.view(1000, 1000)[5:].t()
    assert tracer.peak == tracer.small_peak == 4 * 10**6


def test_large_storages_are_told_apart():
    tracer = Tracer()
    with tracer:
        x = torch.zeros(2**20)
        torch.zeros(2**23 + 1)  # more than 32 MiB
    assert (tracer.peak, tracer.small_peak) == (4 * (2**20 + 2**23 + 1), 4 * 2**20)
    assert tracer.live == 4 * len(x)


def test_half_of_the_places_are_found():
    tracer = Tracer()
    with tracer:
        assert torch.zeros(1000, 1000).nonzero().shape == (500_000, 2)


def test_shapes_that_depend_on_images_are_refused():
    tracer = Tracer()
    with tracer, pytest.raises(ConfigError, match='depend on the content'):
        torch.zeros(10**6).unique()


# --------------------------------------------------------------------------------------- measured


def test_prediction_is_within_15_percent_of_real_steps():
    rows = {
        'all': (Training(shipped()), BatchSize(8, 8)),
        'checkpointing': (
            Training(shipped(**{'model.image_encoder.with_cp': True})),
            BatchSize(16, 2),
        ),
        'cached, with clicks': (
            Training(
                shipped(**DECODER_ONLY, **{'model.correction': dict(num_clicks=2, num_repeats=0)}),
                is_cached=True,
            ),
            BatchSize(4, 8),
        ),
        'bfloat16': (
            Training(shipped(**{'optim_wrapper.type': 'mmsam.BFloat16OptimWrapper'})),
            BatchSize(12, 8),
        ),
        'LoRA': (Training(shipped(), change=plain_lora.wrap_attention), BatchSize(12, 2)),
    }
    with ThreadPoolExecutor(max_workers=2) as pool:
        in_use = {
            name: pool.submit(measure_step, *row, frees_at_once=True) for name, row in rows.items()
        }
        as_it_is = pool.submit(measure_step, *rows['all'])
        predicted = {
            name: TracedTraining(training).step(size) for name, (training, size) in rows.items()
        }
    off = {
        name: predicted[name].memory / (measured.result() - PROCESS_BYTES) - 1
        for name, measured in in_use.items()
    }
    off['process'] = memory_of_process(predicted['all']) / as_it_is.result() - 1
    assert {name: error for name, error in off.items() if abs(error) > 0.15} == {}


# ---------------------------------------------------------------------------------------- numbers


def test_parameters_and_checkpoint():
    traced = TracedTraining(Training(small_config()))
    sizes = {name: p.numel() for name, p in traced.model.named_parameters()}
    decoder = sum(number for name, number in sizes.items() if name.startswith('mask_decoder'))
    assert traced.parameters == sum(sizes.values())
    assert traced.trained_parameters == decoder  # encoders are frozen by default
    frequencies = 2 * 128
    states = 2 * decoder + sum(name.startswith('mask_decoder') for name in sizes)  # and steps
    assert traced.checkpoint_bytes == 4 * (sum(sizes.values()) + frequencies + states)


def test_a_step_holds_gradients_and_states_of_what_trains():
    memory = {
        name: TracedTraining(Training(small_config(frozen=frozen))).step(BatchSize(1, 1)).memory
        for name, frozen in (('decoder', ('image_encoder', 'prompt_encoder')), ('all', ()))
    }
    encoders = 4 * sum(
        p.numel()
        for part in ('image_encoder', 'prompt_encoder')
        for p in getattr(TracedTraining(Training(small_config())).model, part).parameters()
    )
    assert memory['all'] - memory['decoder'] > 2 * encoders


def test_accumulated_gradients_stay_alive():
    config = small_config()
    peaks = []
    for config.optim_wrapper.accumulative_counts in (1, 2):
        traced = TracedTraining(Training(config))
        peaks.append(traced.step(BatchSize(2, 3)).memory)
    assert 0 < peaks[1] - peaks[0] <= 4 * traced.trained_parameters


@pytest.mark.parametrize(
    ('limit', 'images'),
    [(9, 0), (10, 1), (39, 3), (45, 4), (50, 5), (54, 5), (55, 6), (99, 14), (105, MOST_IMAGES)],
)
def test_the_largest_batch(limit, images):
    # ten for an image, but from five on twenty-five and five for an image
    memory = {n: 10 * n if n < 5 else 25 + 5 * n for n in range(1, MOST_IMAGES + 1)}
    assert largest_batch(memory.__getitem__, limit, chunked_from=5) == images


def test_prompts_stand_in_their_proportions():
    config = small_config()
    config.train_dataloader.dataset.pipeline.append(
        dict(type='RandomPrompts', box=0.5, point=0.3, mask=0.2)
    )
    training = Training(config)
    batch = make_batch(training, TracedTraining(training).model, BatchSize(2, 5))
    kinds = [kind for sample in batch['data_samples'] for kind in sample.prompts.kinds.tolist()]
    assert [kinds.count(kind) for kind in PromptKind] == [5, 3, 2]
    assert TracedTraining(training).step(BatchSize(2, 5)).memory > 0


# --------------------------------------------------------------------------------------- variants


def names_of(plan):
    return [planned.variant.name for planned in plan.planned]


@pytest.fixture(scope='module')
def plan():
    """Of a config whose image encoder is frozen."""
    return plan_training(small_config(), cards=())


def test_variants_of_a_frozen_encoder(plan):
    assert names_of(plan) == [
        'as configured',
        'embedding cache',
        'bfloat16 (--amp)',
        'LoRA of rank 16',
    ]
    assert [variant.name for variant in plan.left_out] == ["with_cp='global'", 'with_cp=True']
    as_is, cached, _, lora = plan.planned
    assert cached.step.flops < as_is.step.flops < lora.step.flops
    assert cached.step.memory <= as_is.step.memory < lora.step.memory
    width = 48  # of both blocks: qkv to 3 widths, proj to one
    assert lora.parameters - as_is.parameters == 2 * 16 * (width + 3 * width + width + width)
    assert lora.trained_parameters - as_is.trained_parameters == lora.parameters - as_is.parameters


def test_variants_of_a_training_encoder():
    plan = plan_training(small_config(frozen=()), cards=())
    as_is, _, partly, wholly, _ = plan.planned
    assert (partly.variant.name, wholly.variant.name) == ("with_cp='global'", 'with_cp=True')
    assert as_is.step.flops < partly.step.flops < wholly.step.flops
    assert plan.left_out[0].name == 'embedding cache' and 'trains' in plan.left_out[0].why_not


def test_what_the_config_has_already_is_said():
    config = small_config(frozen=())
    config.optim_wrapper.type = 'mmsam.BFloat16OptimWrapper'
    config.model.image_encoder.with_cp = True
    training = Training(config)
    model = TracedTraining(training).model
    reasons = {variant.name: variant.why_not for variant in variants_of(training, model)}
    assert reasons['with_cp=True'] == 'the config has it.'
    assert reasons['bfloat16 (--amp)'].startswith('the config has mixed precision')


def test_embeddings_of_a_real_data_set(tmp_path):
    data = dict(data_root=str(write_dataset(tmp_path / 'data')))
    config = shipped(**DECODER_ONLY)
    config.train_dataloader.dataset.update(data)
    config.val_dataloader.dataset.update(data)
    model = TracedTraining(Training(config)).model
    # five of six images have objects and each may be flipped both ways; three are for validation
    assert StoredEmbeddings.of(config, model) == StoredEmbeddings(128 * 16 * 16 * 2, 5 * 4 + 3)
    config.val_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    assert StoredEmbeddings.of(config, model).number is None


def test_the_number_of_objects_has_to_be_known():
    config = small_config()
    del config.train_dataloader.dataset['pipeline']
    with pytest.raises(ConfigError, match='--objects'):
        plan_training(config)


def test_the_report_names_every_variant(plan):
    planned = [replace(planned, most_images=(0, MOST_IMAGES)) for planned in plan.planned]
    text = plan_report(replace(plan, cards=(0.5, 8.0), planned=tuple(planned)))
    assert 'A step trains on 2 images of 64 px with 3 objects each (RandomObjects).' in text
    for name in (*names_of(plan), *(variant.name for variant in plan.left_out)):
        assert name in text
    (row,) = (line for line in text.splitlines() if '16 or more' in line and 'LoRA' in line)
    assert [cell.strip() for cell in row.split('|')[2:4]] == ['0', '16 or more']
