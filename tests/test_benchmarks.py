"""The benchmarks measure what they say, their tables say what was measured. No time is asserted."""

import json
import math
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from tiny_run import formatting_once

from benchmarks import __main__ as command
from benchmarks import epoch_rows, gpu, machine, peers, report, timing
from benchmarks.decoder_rows import gradient_error
from benchmarks.memory import memory_ratio, step_memory
from benchmarks.pages import draw_page
from benchmarks.rows import FULL, QUICK, Measurement, Row

ROW = Row('faster', 'a vs b', required=2.0, max_error=1e-4, error_of='max abs')


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


def test_every_row_gives_a_number_and_its_error_is_small():
    with formatting_once():
        results = command.measure_rows(list(command.ROWS), QUICK)
    assert [result['row'] for result in results] == list(command.ROWS)
    for result in results:
        row = command.ROWS[result['row']]
        if any(find_spec(peer) is None for peer in row.peers):
            assert result['left_out'].endswith('is not installed'), result
            continue
        low, high = result['spread']
        assert 0 < low <= result['ratio'] <= high < math.inf, result
        assert not result['wrong'], result
        assert (result['error'] is None) == (row.max_error is None), result


def test_ratios_are_medians_of_pairs():
    faster = timing.measurement([1.0, 2.0, 4.0], [3.0, 8.0, 20.0], 's')
    assert (faster.ratio, faster.spread) == (4, (3, 5))
    assert (faster.ours, faster.theirs) == (2, 8)
    smaller = timing.measurement([3.0, 8.0, 20.0], [1.0, 2.0, 4.0], 's', at_most=True)
    assert (smaller.ratio, smaller.spread) == (4, (3, 5))


def test_sides_take_turns_by_both_clocks():
    order = []
    sides = {name: partial(order.append, name) for name in 'ab'}
    times = timing.interleaved(sides, rounds=2)
    assert ''.join(order) == 'ab' + 2 * 'abab'
    assert {name: len(seconds) for name, seconds in times.cpu.items()} == {'a': 2, 'b': 2}
    assert {name: len(seconds) for name, seconds in times.wall.items()} == {'a': 2, 'b': 2}


def test_memory_of_a_step_is_what_it_adds():
    # 200 MB in float64; partial(np.ones, ...) is the step that is measured
    first = step_memory(partial, np.ones, 25_000_000)
    assert first.added == pytest.approx(0.2e9 / 2**30, rel=0.05)
    assert first.peak > first.added
    second = step_memory(partial, np.ones, 50_000_000)
    assert memory_ratio(second, first).ratio == pytest.approx(2, rel=0.05)


def test_a_step_that_fails_in_its_process_is_named():
    with pytest.raises(RuntimeError, match='ended with 1'):
        step_memory(partial, np.ones, -1)


def test_gradient_error_by_hand():
    theirs = dict(a=torch.tensor([3.0, 0.0]), b=torch.tensor([4.0]))
    assert gradient_error(theirs, theirs) == 0
    assert gradient_error(dict(theirs, a=torch.tensor([3.0, 0.5])), theirs) == pytest.approx(0.1)
    assert gradient_error(dict(a=theirs['a']), theirs) == pytest.approx(0.8)  # b is missing


def test_pages_of_equal_proportions_show_the_same():
    small, large = (
        draw_page((200 * scale, 140 * scale), 5, object_sides=(0.1, 0.3)) for scale in (1, 4)
    )
    assert small.boxes() == pytest.approx(large.boxes() / 4, abs=3)  # whole px
    masks = coco_mask.decode(small.rles)
    assert np.array_equal(small.pixels < 100, masks.any(axis=2))


def test_the_tutorial_trains_the_decoder_only():
    sam = peers.their_sam(QUICK)
    before = {name: parameter.clone() for name, parameter in sam.named_parameters()}
    tutorial = peers.TutorialLoop(sam, [draw_page(QUICK.page_size, 2, (0.1, 0.3))])
    tutorial.step(0)
    changed = {name for name, value in sam.named_parameters() if not value.equal(before[name])}
    assert changed and all(name.startswith('mask_decoder.') for name in changed)


def test_the_measured_training_is_the_config_with_the_cache(tmp_path):
    config = epoch_rows.training_config(FULL, 8, tmp_path, tmp_path / 'run', max_iters=20)
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert steps['RandomObjects'].max_objects == 8
    assert 'RandomPromptedFlip' not in steps and 'JitterBoxes' in steps
    assert config.embedding_cache.folder == str(tmp_path / 'embeddings')
    assert config.model.image_encoder.arch == 'vit_b'
    assert config.model.frozen == ('image_encoder', 'prompt_encoder')
    hooks = [hook.type for hook in config.custom_hooks]
    assert {'MaskLossHook', 'GradientCheckHook', 'FrozenCheckHook'} <= set(hooks)


# ------------------------------------------------------------------------------------------ report


def measured(ratio: float, error: float | None = 1e-6) -> Measurement:
    return Measurement(ratio, (ratio, ratio), 1.0, ratio, 's CPU', error)


@pytest.mark.parametrize(
    ('row', 'ratio', 'error', 'met', 'wrong'),
    [
        (ROW, 2.0, 1e-4, True, False),
        (ROW, 1.9, 1e-4, False, False),
        (ROW, 9.0, 2e-4, False, True),
        (ROW, 9.0, math.nan, False, True),
        (replace(ROW, at_most=True), 2.0, 0.0, True, False),
        (replace(ROW, at_most=True), 2.1, 0.0, False, False),
        (replace(ROW, required=None), 0.1, 0.0, None, False),
        (replace(ROW, max_error=None), 9.0, None, True, False),
    ],
)
def test_what_is_met_and_what_is_wrong(row, ratio, error, met, wrong):
    result = report.result_of(row, measured(ratio, error), 'a machine')
    assert (result['met'], result['wrong']) == (met, wrong)


@pytest.mark.parametrize('flags', ['fpu avx512_bf16', 'fpu amx_bf16 avx512_bf16'])
def test_bfloat16_rows_are_required_with_amx_only(monkeypatch, flags):
    monkeypatch.setattr(machine, 'cpu_field', lambda name: flags if name == 'flags' else 'A CPU')
    row = replace(ROW, needs_fast_bf16=True)
    result = report.result_of(row, measured(1.0), machine.describe())
    assert result['required_here'] == ('amx_bf16' in flags)
    assert ('required with amx_bf16' in str(report.table([result]))) != result['required_here']


def test_a_missing_peer_is_said(monkeypatch):
    monkeypatch.setattr(peers, 'find_spec', lambda name: None)
    (result,) = command.measure_rows(['encoder_fwd_fp32_vs_hugging_face_sdpa'], QUICK)
    reason = 'segment_anything and transformers is not installed'
    assert (result['ratio'], result['left_out']) == (None, reason)
    assert reason in str(report.table([result]))


def test_new_results_replace_those_of_their_rows():
    old = [dict(row=name, ratio=1) for name in ('a', 'b', 'gone')]
    new = [dict(row=name, ratio=2) for name in ('c', 'b')]
    assert report.merged(old, new, ['a', 'b', 'c', 'd']) == [
        dict(row='a', ratio=1),
        dict(row='b', ratio=2),
        dict(row='c', ratio=2),
    ]


def test_the_document_is_written_between_its_markers(tmp_path):
    results = [
        report.result_of(ROW, measured(3.0), 'one machine'),
        report.left_out(replace(ROW, name='other', text='c vs d'), 'no peer', 'another machine'),
    ]
    paths = [tmp_path / name for name in ('results.json', 'document.md', 'picture.png')]
    paths[1].write_text(f'before\n{report.BEGIN}\nold\n{report.END}\nafter\n')
    report.write(results, *paths)
    text = paths[1].read_text()
    assert text.startswith('before\n') and text.endswith(f'{report.END}\nafter\n')
    assert 'old' not in text and '| a vs b | 3 |' in text and 'left out: no peer' in text
    assert text.index('one machine') < text.index('a vs b') < text.index('another machine')
    assert json.loads(paths[0].read_text()) == results
    assert paths[2].read_bytes().startswith(b'\x89PNG')
    report.write(results, *paths)
    assert paths[1].read_text() == text

    paths[1].write_text('no markers')
    with pytest.raises(ValueError, match='once each'):
        report.write(results, *paths)


def test_the_shipped_document_has_the_markers_and_no_row_that_does_not_exist():
    text = report.DOCUMENT.read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
    assert {result['row'] for result in report.read_results()} <= set(command.ROWS)


# --------------------------------------------------------------------------------------------- GPU


def test_the_gpu_script_measures_every_side(monkeypatch):
    monkeypatch.setattr(gpu, 'REPETITIONS', 1)
    written = []
    bench = gpu.Bench('cpu', time.monotonic() + 600, lambda results: written.append(len(results)))
    sides = [side for side in gpu.available_sides() if not side.compiled]
    results = json.loads(json.dumps(bench.run(gpu.TINY, (2,), sides)))
    assert len(results['rows']) == sum(len(side.tasks) for side in sides)
    for row in results['rows']:
        assert row['images_per_second'] > 0, row
        if row['task'] == 'encoder':
            assert row['error'] < (1e-5 if row['side'].endswith('fp32') else 0.02), row
    assert {row['backend'] for row in results['attention']} == {b.name for b in gpu.BACKENDS}
    assert any('seconds' in row for row in results['attention'])
    assert {kernels['side'] for kernels in results['kernels']} == {side.name for side in sides}
    assert len(written) > len(results['rows'])
    assert 'tiny   batch 2 encoder         mmsam ' in gpu.table(results)


def test_the_gpu_script_starts_nothing_after_its_time():
    bench = gpu.Bench('cpu', time.monotonic() - 1, lambda results: None)
    results = bench.run(gpu.TINY, (1,), gpu.available_sides())
    assert {row['left_out'] for row in results['rows']} == {'no time was left'}
    assert results['kernels'] == []


def test_both_decoders_of_the_gpu_script_give_the_same_masks():
    (size,) = gpu.TINY
    weights = gpu.random_weights(size)
    models = [build(size, weights).eval() for build in (gpu._build_ours, gpu._build_theirs)]
    embeddings = torch.randn(2, 256, size.grid, size.grid)
    boxes = torch.tensor([[[1.0, 2, 60, 50], [9, 9, 30, 90]], [[5, 5, 99, 99], [0, 0, 20, 9]]])
    with torch.no_grad():
        ours, theirs = (model.decode(embeddings, boxes) for model in models)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_only_the_last_blocks_train():
    size = replace(gpu.TINY[0], arch=dict(gpu.TINY[0].arch, depth=gpu.TRAINED_BLOCKS + 1))
    model = gpu.Ours(size)
    trained = set(map(id, gpu._train_only(model, 'last blocks', size)))
    names = {name for name, parameter in model.named_parameters() if id(parameter) in trained}
    assert not any(
        name.startswith(('image_encoder.blocks.0.', 'image_encoder.p', 'prompt_encoder.'))
        for name in names
    )
    assert 'image_encoder.blocks.1.attn.qkv.weight' in names
    assert 'image_encoder.neck.0.weight' in names
    assert 'mask_decoder.iou_token.weight' in names


def test_operations_of_vit_b_by_hand():
    """A block: 24 N C² in linear layers, 4 N K C in attention over K keys; N = 4096, C = 768."""
    size = gpu.PUBLISHED[0]
    linear = 12 * 24 * 4096 * 768**2
    attention = 4 * 4096 * 768 * (4 * 4096 + 8 * 196)
    ends = 2 * 4096 * (768 * 768 + 768 * 256 + 256 * 256 * 9)
    assert size.encoder_operations() == linear + attention + ends
