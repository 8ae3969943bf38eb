"""Reading, loading and writing of weights, against segment_anything and damaged files."""

import http.server
import io
import json
import os
import pickle
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from mmengine.logging import HistoryBuffer
from reference_sam import build_reference_sam
from tiny_sam import TINY_ARCH, build_segmentor
from torch import Tensor, nn

from mmsam import checkpoint
from mmsam.checkpoint import (
    check_finite,
    load_weights,
    read_state_dict,
    save_hugging_face,
    save_stock_weights,
    stock_state_dict,
)
from mmsam.errors import CheckpointError, StorageError
from mmsam.models import SAMBackbone
from mmsam.weight_layouts import from_hugging_face, hugging_face_config, to_hugging_face

DATA = Path(__file__).parent / 'data'


def key_list(name: str) -> dict[str, tuple[int, ...]]:
    lines = (DATA / name).read_text().splitlines()
    pairs = (line.split(' ') for line in lines)
    return {key: tuple(map(int, shape.split('x'))) for key, shape in pairs}


def shapes_of(state_dict: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state_dict.items()}


def assert_equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.fixture(scope='module')
def weights() -> dict[str, Tensor]:
    """Of upstream's model, every value random."""
    return build_reference_sam(TINY_ARCH, 128).state_dict()


@pytest.fixture(scope='module')
def official_file(weights, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp('weights') / 'sam.pth'
    torch.save(weights, path)
    return str(path)


@pytest.fixture
def messages(monkeypatch) -> list[str]:
    logged: list[str] = []
    monkeypatch.setattr(checkpoint, 'print_log', lambda message, logger: logged.append(message))
    return logged


class Small(nn.Module):
    """Few bytes, so that files of it can be cut at every length."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)


# --------------------------------------------------------------------------------- the stock keys


@pytest.mark.parametrize('arch', ['vit_b', 'vit_l', 'vit_h'])
def test_keys_and_shapes_are_upstreams(arch):
    with torch.device('meta'):
        segmentor = build_segmentor(1024, arch)
    assert shapes_of(segmentor.state_dict()) == key_list(f'sam_{arch}_keys.txt')


@pytest.mark.trap(19)
def test_upstreams_weights_go_in_and_out_bit_equal(tmp_path, weights, official_file, messages):
    segmentor = build_segmentor(128)
    load_weights(segmentor, official_file)
    assert_equal_states(segmentor.state_dict(), weights)
    number = sum(value.numel() for value in weights.values())
    assert messages == [
        f'loaded {len(weights)} tensors ({number / 1e6:.1f} M values) from {official_file}'
    ]

    save_stock_weights(segmentor.state_dict(), tmp_path / 'tuned.pth')
    other = build_reference_sam(TINY_ARCH, 128)
    for parameter in other.parameters():
        parameter.data.zero_()
    with open(tmp_path / 'tuned.pth', 'rb') as file:  # as upstream's build_sam does
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert_equal_states(other.state_dict(), weights)


# ---------------------------------------------------------------------------------------- reading


def test_reads_a_training_checkpoint_without_its_log(tmp_path, weights):
    """What mmengine's runner pickles beside the weights: log histories, numpy, ``getattr``."""
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    scalar = np.float32(0.5)
    path = tmp_path / 'iter_3.pth'
    torch.save(
        {
            'meta': dict(iter=3, seed=0, best_score=scalar),
            'state_dict': weights,
            'message_hub': dict(log_scalars={'loss': history}, runtime_info=dict(iter=np.int64(3))),
            'optimizer': {'state': {0: {'exp_avg': torch.ones(2)}}, 'param_groups': [{'lr': 0.1}]},
        },
        path,
    )
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read('iter_3/data.pkl')
    assert b'HistoryBuffer' in pickled and b'getattr' in pickled  # else this tests nothing
    assert_equal_states(read_state_dict(str(path)), weights)


@pytest.mark.bad_input(58)
def test_reads_other_ways_to_save(tmp_path, weights, messages):
    prefixed = {f'module._orig_mod.{key}': value for key, value in weights.items()}
    compiled_part = {
        key.replace('image_encoder.', 'image_encoder._orig_mod.'): value
        for key, value in weights.items()
    }
    cases = dict(model={'model': weights}, wrapped={'state_dict': prefixed}, compiled=compiled_part)
    for name, content in cases.items():
        torch.save(content, tmp_path / name)
        messages.clear()
        assert_equal_states(read_state_dict(str(tmp_path / name)), weights)
        assert [('prefixes removed' in message) for message in messages] == (
            [] if name == 'model' else [True]
        )
    torch.save(weights, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert_equal_states(read_state_dict(str(tmp_path / 'old.pth')), weights)


def test_a_key_that_only_sometimes_starts_with_module_stays(tmp_path):
    torch.save({'module.a': torch.ones(1), 'b': torch.ones(1)}, tmp_path / 'x.pth')
    assert read_state_dict(str(tmp_path / 'x.pth')).keys() == {'module.a', 'b'}


def expect_error(source: Path | str) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_state_dict(str(source))
    message = str(raised.value)
    assert str(source) in message
    assert 'weights_only' not in message and 'safe_globals' not in message
    assert '\n' not in message and message.endswith('.')
    return message


LFS_POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 375042383\n'


@pytest.mark.parametrize('name', ['sam.pth', 'model.safetensors'])
@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'', 'is empty (0 bytes)'),
        (LFS_POINTER, 'Git LFS pointer'),
        (b'\n<!DOCTYPE html>\n<html><body>Not found</body></html>', 'is a web page'),
        (b'epoch,loss\n1,0.5\n', 'is a text file'),
        ('Gewichte für später\n'.encode(), 'is a text file'),
    ],
)
@pytest.mark.bad_input(52)
def test_what_is_no_weights_file_is_named(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    assert expected in expect_error(path)


def test_a_missing_file_and_a_folder_without_weights(tmp_path):
    assert 'does not exist' in expect_error(tmp_path / 'nothing.pth')
    assert 'without model.safetensors or pytorch_model.bin' in expect_error(tmp_path)


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ([torch.ones(1)], 'expected a dict of tensors, got list'),
        ({}, 'no tensors inside'),
        ({'epoch': 3, 'model_state_dict': {'a': torch.ones(1)}}, 'only epoch, model_state_dict'),
        ({'a': torch.ones(1), 'epoch': 3}, "got int as 'epoch'"),
    ],
)
def test_a_file_without_a_dict_of_tensors(tmp_path, content, expected):
    torch.save(content, tmp_path / 'x.pth')
    assert expected in expect_error(tmp_path / 'x.pth')


def test_other_binary_files(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('notes.txt', 'nothing')
    assert 'zip archive without PyTorch weights' in expect_error(tmp_path / 'a.zip')
    (tmp_path / 'noise.pth').write_bytes(np.random.default_rng(0).bytes(2000))
    assert 'truncated, damaged or no file of PyTorch weights' in expect_error(
        tmp_path / 'noise.pth'
    )
    (tmp_path / 'noise.safetensors').write_bytes(np.random.default_rng(0).bytes(2000))
    assert 'no safetensors file' in expect_error(tmp_path / 'noise.safetensors')


class Malicious:
    def __init__(self, function: Callable, *arguments: str) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('container', ['zip', 'legacy', 'bare'])
@pytest.mark.parametrize('function', [os.mkdir, exec, __import__])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, container, function):
    bait = tmp_path / 'bait'
    argument = {
        os.mkdir: str(bait),
        exec: f'import os; os.mkdir({str(bait)!r})',
        __import__: 'antigravity',
    }[function]
    content = {'state_dict': {'a': torch.ones(1)}, 'meta': Malicious(function, argument)}
    path = tmp_path / 'x.pth'
    if container == 'bare':
        path.write_bytes(pickle.dumps(content['meta'], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == 'zip')
    message = expect_error(path)
    assert 'is refused: it contains' in message
    assert function.__name__ in message
    assert not bait.exists() and 'antigravity' not in sys.modules


def test_the_allowed_getattr_is_a_stand_in(tmp_path):
    """The real one would fail here, and could be led anywhere from the allowed classes."""
    content = {'state_dict': {'a': torch.ones(1)}, 'meta': Malicious(getattr, 'text', 'nowhere')}
    torch.save(content, tmp_path / 'x.pth')
    assert read_state_dict(str(tmp_path / 'x.pth')).keys() == {'a'}


@pytest.mark.parametrize('layout', ['zip', 'legacy', 'safetensors'])
@pytest.mark.bad_input(50)
def test_a_truncated_file_never_loads(tmp_path, layout):
    state_dict = {f'layer.{i}': torch.arange(4.0) + i for i in range(2)}
    path = tmp_path / ('x.safetensors' if layout == 'safetensors' else 'x.pth')
    if layout == 'safetensors':
        safetensors.torch.save_file(state_dict, path)
    else:
        torch.save(state_dict, path, _use_new_zipfile_serialization=layout == 'zip')
    content = path.read_bytes()
    assert_equal_states(read_state_dict(str(path)), state_dict)
    for length in range(2, len(content), 1 if len(content) < 500 else 7):
        path.write_bytes(content[:length])
        assert 'truncated' in expect_error(path), length
    path.write_bytes(content[:-1])
    assert 'truncated' in expect_error(path)


def test_the_size_of_a_truncated_file_is_said(tmp_path, official_file):
    path = tmp_path / 'cut.pth'
    path.write_bytes(Path(official_file).read_bytes()[:123_456])
    assert 'is truncated: it ends after 123456 bytes' in expect_error(path)


def test_a_changed_byte_in_the_weights_is_noticed(tmp_path, official_file, weights):
    content = bytearray(Path(official_file).read_bytes())
    needle = weights['image_encoder.pos_embed'].numpy().tobytes()
    content[content.index(needle) + len(needle) // 2] ^= 1
    (tmp_path / 'x.pth').write_bytes(content)
    assert 'checksum' in expect_error(tmp_path / 'x.pth')


# ------------------------------------------------------------------------------------------- URLs


class Server:
    """Serves bytes, counts requests; may announce more bytes than it sends."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.missing_bytes = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                outer.requests.append(self.path)
                content = outer.files.get(self.path.partition('?')[0])
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header('Content-Length', str(len(content) + outer.missing_bytes))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server.server_port}'


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    running = Server()
    thread = threading.Thread(target=running.server.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.server.shutdown()
    thread.join()
    running.server.server_close()


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob('*') if path.is_file() and path.suffix != '.lock'}


def test_a_url_is_downloaded_once_and_equal_names_are_kept_apart(tmp_path, server):
    for name in 'ab':
        buffer = io.BytesIO()
        torch.save({name: torch.ones(1)}, buffer)
        server.files[f'/{name}/sam.pth'] = buffer.getvalue()
    for _ in range(2):
        for name in 'ab':
            assert read_state_dict(f'{server.url}/{name}/sam.pth?download=true').keys() == {name}
    assert len(server.requests) == 2
    assert left_in(tmp_path) == {'sam.pth'}


@pytest.mark.parametrize(
    ('content', 'missing_bytes', 'expected'),
    [
        (None, 0, 'HTTP Error 404'),
        (b'PK\x03\x04', 5, 'ended after 4 of 9 bytes'),
        (b'<html>log in</html>', 0, 'web page'),
    ],
)
def test_a_failed_download_leaves_nothing(tmp_path, server, content, missing_bytes, expected):
    if content is not None:
        server.files['/sam.pth'] = content
    server.missing_bytes = missing_bytes
    assert expected in expect_error(f'{server.url}/sam.pth')
    assert left_in(tmp_path) == set()


def test_an_unreachable_host_is_said(tmp_path, server):
    url = f'{server.url}/sam.pth'
    server.server.socket.shutdown(2)
    server.server.socket.close()
    message = expect_error(url)
    assert 'cannot be downloaded' in message and 'path of a copy' in message


# ---------------------------------------------------------------------------------------- loading


def expect_refusal(model: nn.Module, source: Path | str, **options: str) -> str:
    """Loading raises and changes nothing; the message."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        load_weights(model, str(source), **options)
    assert_equal_states(model.state_dict(), before)
    return str(raised.value)


@pytest.fixture(scope='module')
def segmentor() -> nn.Module:
    return build_segmentor(128)


@pytest.mark.bad_input(56)
@pytest.mark.trap(19)
def test_missing_unexpected_and_mis_shaped_keys(tmp_path, segmentor, weights):
    changed = dict(weights)
    for index in range(4):
        del changed[f'prompt_encoder.point_embeddings.{index}.weight']
    changed['mask_decoder.extra'] = torch.ones(1)
    changed['mask_decoder.iou_token.weight'] = torch.ones(1, 128)
    torch.save(changed, tmp_path / 'x.pth')
    message = expect_refusal(segmentor, tmp_path / 'x.pth')
    assert str(tmp_path / 'x.pth') in message
    assert '4 missing (prompt_encoder.point_embeddings.0.weight' in message
    assert '1 unexpected (mask_decoder.extra)' in message
    assert '1 of another shape (mask_decoder.iou_token.weight (1, 128) for (1, 256))' in message


@pytest.mark.trap(9)
def test_the_random_buffer_is_never_left_random(tmp_path, segmentor, weights):
    key = 'prompt_encoder.pe_layer.positional_encoding_gaussian_matrix'
    torch.save({k: v for k, v in weights.items() if k != key}, tmp_path / 'x.pth')
    assert f'1 missing ({key})' in expect_refusal(segmentor, tmp_path / 'x.pth')


def fake_weights(arch: str) -> dict[str, Tensor]:
    """Official keys and shapes; every tensor of one value, so that they take no memory."""
    shapes = key_list(f'sam_{arch}_keys.txt')
    return {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}


def test_a_wrong_architecture_is_named(tmp_path, segmentor, weights, monkeypatch):
    with torch.device('meta'):
        vit_b = build_segmentor(1024, 'vit_b')
    with monkeypatch.context() as patch:
        patch.setattr('mmsam.checkpoint.read_state_dict', lambda source: fake_weights('vit_l'))
        with pytest.raises(CheckpointError, match='has vit_l weights, the config builds vit_b.'):
            load_weights(vit_b, 'f.pth')
        assert 'has vit_l weights, the config builds ViT (width 48, depth 2)' in expect_refusal(
            segmentor, Path('f.pth')
        )
    torch.save(weights, tmp_path / 'tiny.pth')
    deeper = build_segmentor(128, {**TINY_ARCH, 'depth': 3})
    assert 'has ViT (width 48, depth 2) weights, the config builds ViT (width 48, depth 3)' in (
        expect_refusal(deeper, tmp_path / 'tiny.pth')
    )


def test_windows_and_global_attention_are_not_confused(official_file):
    """The tables could be resampled into each other, but the model would be another one."""
    exchanged = build_segmentor(128, {**TINY_ARCH, 'global_attn_indexes': (0,)})
    message = expect_refusal(exchanged, official_file)
    assert 'image_encoder.blocks.0.attn.rel_pos_h (5, 16) for (15, 16)' in message
    wider = build_segmentor(128, {**TINY_ARCH, 'window_size': 4})
    assert 'rel_pos_h (5, 16) for (7, 16)' in expect_refusal(wider, official_file)


@pytest.mark.parametrize('img_size', [64, 192])
@pytest.mark.bad_input(59)
def test_another_img_size_is_resampled(weights, official_file, messages, img_size):
    model = build_segmentor(img_size)
    load_weights(model, official_file)
    assert f'3 position embeddings resampled from img_size 128 to {img_size}' in messages
    loaded, grid = model.state_dict(), img_size // 16
    for axis in 'hw':
        key = f'image_encoder.blocks.1.attn.rel_pos_{axis}'
        # as get_rel_pos of upstream resamples when it runs at another size
        table = weights[key]
        expected = F.interpolate(
            table.reshape(1, table.shape[0], -1).permute(0, 2, 1), 2 * grid - 1, mode='linear'
        )
        torch.testing.assert_close(loaded[key], expected.reshape(-1, 2 * grid - 1).permute(1, 0))
    assert loaded['image_encoder.pos_embed'].shape == (1, grid, grid, 48)
    for key, value in weights.items():
        if 'pos_embed' not in key and 'blocks.1.attn.rel_pos' not in key:
            assert torch.equal(loaded[key], value), key


@pytest.mark.bad_input(60)
def test_half_precision_is_cast_and_reported(tmp_path, weights, messages):
    torch.save({key: value.half() for key, value in weights.items()}, tmp_path / 'x.pth')
    model = build_segmentor(128)
    load_weights(model, str(tmp_path / 'x.pth'))
    assert f'torch.float16 weights of {tmp_path / "x.pth"} cast to torch.float32' in messages
    assert_equal_states(
        model.state_dict(), {key: value.half().float() for key, value in weights.items()}
    )


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.bad_input(60)
def test_values_that_are_not_finite_are_refused(tmp_path, segmentor, weights, value):
    changed = dict(weights)
    key = 'mask_decoder.iou_prediction_head.layers.1.bias'
    changed[key] = changed[key].clone()
    changed[key][7] = value
    torch.save(changed, tmp_path / 'x.pth')
    assert f'NaN or infinity in {key}' in expect_refusal(segmentor, tmp_path / 'x.pth')


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16, torch.float8_e5m2])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_every_kind_of_number_is_looked_at(dtype, value):
    weights = {'number': torch.tensor(3), 'none': torch.zeros(0), 'good': torch.ones(2, 3)}
    check_finite({**weights, 'large': torch.tensor([-5e4, 5e4]).to(dtype)}, 'x.pth')
    bad = torch.tensor([1.0, value, 2.0]).to(dtype)
    with pytest.raises(CheckpointError, match='x.pth has NaN or infinity in bad'):
        check_finite({**weights, 'bad': bad}, 'x.pth')


def test_exactly_the_pixel_mean_and_deviation_are_ignored(tmp_path, segmentor, weights):
    extra = {'pixel_mean': torch.zeros(3, 1, 1), 'pixel_std': torch.ones(3, 1, 1)}
    torch.save({**extra, **weights}, tmp_path / 'x.pth')
    model = build_segmentor(128)
    load_weights(model, str(tmp_path / 'x.pth'))
    assert_equal_states(model.state_dict(), weights)
    torch.save({**weights, 'pixel_max': torch.ones(1)}, tmp_path / 'x.pth')
    assert '1 unexpected (pixel_max)' in expect_refusal(segmentor, tmp_path / 'x.pth')


def test_a_part_of_the_file(weights, official_file):
    backbone = SAMBackbone(arch=TINY_ARCH, img_size=128)
    load_weights(backbone, official_file, prefix='image_encoder.')
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, weights[f'image_encoder.{key}']), key
    message = expect_refusal(backbone, official_file, prefix='backbone.')
    assert 'has no keys backbone.*' in message and 'image_encoder.pos_embed' in message


def test_a_wrapped_model_is_looked_through(tmp_path):
    source, target = Small(), Small()
    torch.save(source.state_dict(), tmp_path / 'x.pth')
    load_weights(nn.DataParallel(target), str(tmp_path / 'x.pth'))
    assert_equal_states(target.state_dict(), source.state_dict())


# ---------------------------------------------------------------------------------------- writing


def test_stock_weights_are_float32_copies_of_the_three_parts(weights):
    half = {key: value.half() for key, value in weights.items()}
    half['image_encoder.pos_embed'] = half['image_encoder.pos_embed'].transpose(1, 2)
    stock = stock_state_dict({**half, 'mask_loss.scale': torch.ones(1)})
    assert stock.keys() == weights.keys()
    for key, value in stock.items():
        assert value.dtype == torch.float32 and value.is_contiguous(), key
        assert torch.equal(value, half[key].float())
    same = stock_state_dict(weights)
    assert all(same[key].data_ptr() != value.data_ptr() for key, value in weights.items())


def test_incomplete_or_broken_weights_are_not_written(tmp_path, weights):
    encoder = {key: value for key, value in weights.items() if key.startswith('image_encoder.')}
    with pytest.raises(CheckpointError, match='no keys prompt_encoder.*, mask_decoder'):
        save_stock_weights(encoder, tmp_path / 'x.pth')
    broken = {**weights, 'mask_decoder.iou_token.weight': torch.full((1, 256), torch.nan)}
    with pytest.raises(CheckpointError, match='NaN or infinity in mask_decoder.iou_token.weight'):
        save_stock_weights(broken, tmp_path / 'x.pth')
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_good_file(tmp_path, weights, monkeypatch):
    path = tmp_path / 'new' / 'tuned.pth'
    save_stock_weights(weights, path)
    content = path.read_bytes()

    def full_disk(_: object, target: Path) -> None:
        Path(target).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(StorageError, match='tuned.pth cannot be written: .*No space left'):
        save_stock_weights(weights, path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced_and_never_overwritten(tmp_path, weights):
    """Whoever still has the old file open keeps reading the old weights."""
    path = tmp_path / 'tuned.pth'
    save_stock_weights(weights, path)
    mapped = read_state_dict(str(path))
    save_stock_weights({key: value + 1 for key, value in weights.items()}, path)
    assert_equal_states(mapped, weights)


# ----------------------------------------------------------------------------------- Hugging Face


def test_keys_and_shapes_are_those_of_transformers(weights):
    assert shapes_of(to_hugging_face(weights)) == key_list('hf_sam_tiny_keys.txt')


def test_hugging_face_round_trip(weights):
    assert_equal_states(from_hugging_face(to_hugging_face(weights)), weights)
    for arch in ('vit_b', 'vit_h'):
        state_dict = fake_weights(arch)
        theirs = to_hugging_face(state_dict)
        theirs.pop('prompt_encoder.shared_embedding.positional_embedding')  # one of two equal
        assert shapes_of(from_hugging_face(theirs)) == shapes_of(state_dict)


def test_iou_heads_of_other_depths_convert():
    for depth in (2, 3, 5):
        head = 'mask_decoder.iou_prediction_head'
        stock = {f'{head}.layers.{i}.weight': torch.full((1,), i) for i in range(depth)}
        theirs = to_hugging_face(stock)
        assert theirs[f'{head}.proj_in.weight'] == 0
        assert theirs[f'{head}.proj_out.weight'] == depth - 1
        assert_equal_states(from_hugging_face(theirs), stock)


def test_differing_copies_of_the_frequencies_are_refused(weights):
    theirs = to_hugging_face(weights)
    theirs['shared_image_embedding.positional_embedding'] += 1
    with pytest.raises(CheckpointError, match='differ'):
        from_hugging_face(theirs)


@pytest.mark.parametrize('name', ['model.safetensors', 'pytorch_model.bin'])
@pytest.mark.bad_input(57)
def test_a_hugging_face_folder_loads(tmp_path, weights, name):
    save_hugging_face(weights, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {'model.safetensors', 'config.json'}
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1  # others may read both files or none
    if name == 'pytorch_model.bin':
        torch.save(safetensors.torch.load_file(tmp_path / 'model.safetensors'), tmp_path / name)
        (tmp_path / 'model.safetensors').unlink()
    for source in (tmp_path, tmp_path / name):
        model = build_segmentor(128)
        load_weights(model, str(source))
        assert_equal_states(model.state_dict(), weights)


def test_hugging_face_config_of_the_written_weights(tmp_path, weights):
    save_hugging_face(weights, tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['model_type'] == 'sam' and config['architectures'] == ['SamModel']
    vision = config['vision_config']
    assert vision.pop('global_attn_indexes') == [1]
    assert vision == dict(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=128,
        patch_size=16,
        output_channels=256,
        mlp_dim=192,
        num_pos_feats=128,
        window_size=3,
    )


@pytest.mark.parametrize(
    ('arch', 'heads', 'indexes'),
    [('vit_b', 12, [2, 5, 8, 11]), ('vit_l', 16, [5, 11, 17, 23]), ('vit_h', 16, [7, 15, 23, 31])],
)
def test_hugging_face_config_of_the_published_sizes(arch, heads, indexes):
    config = hugging_face_config(fake_weights(arch))
    vision = config['vision_config']
    assert (vision['num_attention_heads'], vision['global_attn_indexes']) == (heads, indexes)
    assert (vision['window_size'], vision['image_size'], vision['patch_size']) == (14, 1024, 16)
    assert config['prompt_encoder_config'] == dict(
        hidden_size=256, image_size=1024, patch_size=16, mask_input_channels=16
    )
    assert config['mask_decoder_config'] == dict(
        hidden_size=256,
        mlp_dim=2048,
        num_hidden_layers=2,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
        layer_norm_eps=1e-5,
    )
