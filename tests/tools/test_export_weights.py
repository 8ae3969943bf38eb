"""The exporter on a training checkpoint of a small SAM."""

import hashlib
import runpy
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from reference_sam import build_reference_sam
from tiny_sam import TINY_ARCH

from mmsam.checkpoint import read_state_dict, save_slim_weights, weights_digest
from mmsam.errors import CheckpointError
from tools import export_weights

SCRIPT = Path(export_weights.__file__)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return build_reference_sam(TINY_ARCH, 64).state_dict()


@pytest.fixture
def checkpoint(tmp_path, weights) -> Path:
    path = tmp_path / 'iter_9.pth'
    content = {
        'meta': dict(iter=9),
        'message_hub': dict(log_scalars={'loss': HistoryBuffer([0.5], [1])}),
        'state_dict': {f'module.{key}': value for key, value in weights.items()},
        'optimizer': {'state': {0: {'exp_avg': torch.ones(2)}}},
    }
    torch.save(content, path)
    return path


def test_a_flat_file_that_upstream_opens(tmp_path, checkpoint, weights, monkeypatch, capsys):
    """As a script, of which another process would have to import everything again."""
    out = tmp_path / 'new_folder' / 'sam_vit_b_stamps.pth'
    monkeypatch.setattr(sys, 'argv', [str(SCRIPT), str(checkpoint), str(out)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name='__main__')
    assert not end.value.code
    printed = capsys.readouterr().out
    assert f'{out}: {len(weights)} tensors' in printed
    assert 'read again and equal' in printed
    sam = build_reference_sam(TINY_ARCH, 64)
    for parameter in sam.parameters():
        parameter.data.zero_()
    sam.load_state_dict(torch.load(out, weights_only=True), strict=True)
    for key, value in sam.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_a_hugging_face_folder(tmp_path, checkpoint, weights, capsys):
    out = tmp_path / 'hf'
    assert export_weights.main([str(checkpoint), str(out), '--format', 'hf']) == 0
    assert str(out / 'model.safetensors') in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {'model.safetensors', 'config.json'}
    theirs = safetensors.torch.load_file(out / 'model.safetensors')
    assert torch.equal(theirs['vision_encoder.pos_embed'], weights['image_encoder.pos_embed'])
    # and back
    flat = tmp_path / 'flat.pth'
    assert export_weights.main([str(out), str(flat)]) == 0
    back = read_state_dict(str(flat))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], value) for key, value in weights.items())


def test_the_checkpoint_is_never_replaced(tmp_path, checkpoint, capsys):
    content = checkpoint.read_bytes()
    link = tmp_path / 'link.pth'
    link.symlink_to(checkpoint)
    for out in (checkpoint, link):
        assert export_weights.main([str(checkpoint), str(out)]) == 2
        assert 'the checkpoint itself' in capsys.readouterr().err
    assert checkpoint.read_bytes() == content

    folder = tmp_path / 'hf'
    assert export_weights.main([str(checkpoint), str(folder), '--format', 'hf']) == 0
    for source in (folder, folder / 'model.safetensors'):
        assert export_weights.main([str(source), str(folder), '--format', 'hf']) == 2


@pytest.mark.parametrize(
    ('arguments', 'code', 'expected'),
    [
        (['nothing.pth', 'out.pth'], 4, 'does not exist'),
        (['iter_9.pth', 'folder'], 2, 'expected a file'),
        (['iter_9.pth', 'file', '--format', 'hf'], 2, 'expected a folder'),
        (['encoder.pth', 'out.pth'], 4, 'no whole SAM: no keys prompt_encoder.*, mask_decoder.*'),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    tmp_path, monkeypatch, checkpoint, capsys, arguments, code, expected
):
    monkeypatch.chdir(tmp_path)
    Path('folder').mkdir()
    Path('file').write_text('mine')
    torch.save({'image_encoder.pos_embed': torch.ones(1, 2, 2, 4)}, 'encoder.pth')
    assert export_weights.main(arguments) == code
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1
    assert not Path('out.pth').exists()
    assert Path('file').read_text() == 'mine'


# ------------------------------------------------------------------------------------- slim files


@pytest.fixture
def base(tmp_path, weights) -> Path:
    """The weights before the training, which moved the mask decoder and one zero's sign."""
    before = {key: value.clone() for key, value in weights.items()}
    for key, value in before.items():
        if key.startswith('mask_decoder.'):
            value += 0.5
    weights['image_encoder.neck.1.bias'][0] = 0.0
    before['image_encoder.neck.1.bias'][0] = -0.0
    torch.save(before, tmp_path / 'base.pth')
    return tmp_path / 'base.pth'


@pytest.fixture
def slim(tmp_path, base, checkpoint, capsys) -> Path:
    path = tmp_path / 'slim.safetensors'
    arguments = [str(checkpoint), str(path), '--format', 'slim', '--base', str(base)]
    assert export_weights.main(arguments) == 0
    assert f'{path}: makes, with {base}, ' in capsys.readouterr().out
    return path


def test_a_slim_file_holds_what_was_trained(slim, weights, checkpoint):
    with safetensors.safe_open(slim, 'pt') as file:
        keys, notes = set(file.keys()), file.metadata()
    decoder = {key for key in weights if key.startswith('mask_decoder.')}
    assert keys == decoder | {'image_encoder.neck.1.bias'}
    assert notes['architecture'] == 'ViT (width 48, depth 2)'
    assert slim.stat().st_size < 0.9 * checkpoint.stat().st_size


def test_joined_with_its_base_it_is_the_whole_export(tmp_path, slim, base, checkpoint):
    """Bit for bit; also with the base in another layout and format."""
    whole, joined = tmp_path / 'sam.pth', tmp_path / 'joined' / 'sam.pth'
    assert export_weights.main([str(checkpoint), str(whole)]) == 0
    folder = tmp_path / 'base_hf'
    assert export_weights.main([str(base), str(folder), '--format', 'hf']) == 0
    expected = torch.load(whole)
    for start in (base, folder):
        assert export_weights.main([str(slim), str(joined), '--base', str(start)]) == 0
        found = torch.load(joined)
        assert found.keys() == expected.keys()
        for key, value in found.items():
            assert value.numpy().tobytes() == expected[key].numpy().tobytes(), key


def test_the_digest_is_that_of_the_content(weights):
    """Of each tensor 'name (shape)' and the values, by name."""
    text = hashlib.sha256()
    for key in sorted(weights):
        shape = ', '.join(map(str, weights[key].shape)) + (',' if weights[key].ndim == 1 else '')
        text.update(f'{key} ({shape})\n'.encode())
        text.update(weights[key].numpy().astype('<f4').tobytes())
    assert weights_digest(dict(reversed(weights.items()))) == text.hexdigest()


def test_another_base_is_refused(tmp_path, slim, base, weights, checkpoint, capsys):
    wanted = weights_digest(torch.load(base))
    found = weights_digest(weights)
    out = tmp_path / 'out.pth'
    assert export_weights.main([str(slim), str(out), '--base', str(checkpoint)]) == 4
    error = capsys.readouterr().err.splitlines()[-1]
    assert wanted[:12] in error and found[:12] in error
    assert not out.exists()


def test_a_damaged_slim_file_is_refused(tmp_path, slim, base, capsys):
    content = bytearray(slim.read_bytes())
    content[-3] ^= 4
    slim.write_bytes(content)
    out = tmp_path / 'out.pth'
    assert export_weights.main([str(slim), str(out), '--base', str(base)]) == 4
    assert 'slim.safetensors is damaged' in capsys.readouterr().err
    assert not out.exists()


def test_a_slim_file_is_no_weights_to_start_from(slim, base):
    with pytest.raises(CheckpointError, match='only the tensors that were trained.*--base'):
        read_state_dict(str(slim))
    with pytest.raises(CheckpointError, match='only the tensors that were trained'):
        save_slim_weights(torch.load(base), str(slim), slim)


@pytest.mark.parametrize(
    ('arguments', 'code', 'expected'),
    [
        (['slim.safetensors', 'out.pth'], 2, '--base: expected the weights'),
        (['iter_9.pth', 'out.pth', '--base', 'base.pth'], 2, 'and only there, got base.pth'),
        (['iter_9.pth', 'out.safetensors', '--format', 'slim'], 2, 'got none'),
        (['iter_9.pth', 'o.pth', '--format', 'slim', '--base', 'base.pth'], 2, '.safetensors'),
        (['base.pth', 'o.safetensors', '--format', 'slim', '--base', 'base.pth'], 4, 'Nothing was'),
        (['iter_9.pth', 'o.safetensors', '--format', 'slim', '--base', 'b.pth'], 4, 'b.pth is of'),
        (['slim.safetensors', 'base.pth', '--base', 'base.pth'], 2, 'OUT is the base itself'),
    ],
)
def test_slim_and_base_go_together(tmp_path, monkeypatch, slim, capsys, arguments, code, expected):
    monkeypatch.chdir(tmp_path)
    other = torch.load('base.pth')
    del other['mask_decoder.iou_token.weight']
    torch.save(other, 'b.pth')
    assert export_weights.main(arguments) == code
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert not Path(arguments[1]).exists() or arguments[1] == 'base.pth'


def test_a_file_that_reads_back_differently_is_an_error(tmp_path, monkeypatch, checkpoint, capsys):
    def faulty(state_dict: dict[str, torch.Tensor], path: Path) -> None:
        changed = dict(state_dict)
        key = 'mask_decoder.iou_token.weight'
        changed[key] = changed[key] + 1
        torch.save(changed, path)

    monkeypatch.setattr(export_weights, 'save_stock_weights', faulty)
    assert export_weights.main([str(checkpoint), str(tmp_path / 'out.pth')]) == 4
    captured = capsys.readouterr()
    assert 'differs in mask_decoder.iou_token.weight' in captured.err
    assert 'equal' not in captured.out
