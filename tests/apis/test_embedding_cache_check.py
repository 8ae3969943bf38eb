import pytest
from mmengine.config import Config
from tiny_run import ROOT

from mmsam.apis import load_run_config
from mmsam.apis.embedding_cache_check import check_embedding_cache
from mmsam.errors import ConfigError

STAMP = ROOT / 'configs' / 'sam_stamp.py'
CACHE = "embedding_cache = dict(folder='embeddings')\n"


def child(folder, text, base=STAMP):
    path = folder / 'child.py'
    path.write_text(f'_base_ = {str(base)!r}\n{text}\n')
    return str(path)


def message(path: str, options: dict | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        load_run_config(path, options, None)
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ('option', 'value', 'words'),
    [
        ('embedding_cache', dict(foldr='x'), 'embedding_cache.foldr: embedding_cache has no'),
        ('embedding_cach', dict(folder='x'), 'did you mean embedding_cache?'),
        ('embedding_cache.folder', 3, "expected dict(folder='work_dirs/embeddings'), or None"),
        ('embedding_cache', 'embeddings', "or None for no cache, got 'embeddings'"),
        ('model.frozen', (), 'image_encoder in model.frozen, as embeddings change while their'),
        ('model.frozen', ('prompt_encoder',), "got ('prompt_encoder',); set embedding_cache=None"),
    ],
)
def test_wrong_options(option, value, words):
    assert words in message(str(STAMP), {option: value})


@pytest.mark.parametrize('name', ['PhotoMetricDistortion', 'RandomScaleCrop'])
def test_a_transform_that_changes_pixels_names_itself_and_its_loader(tmp_path, name):
    extra = dict(image_size=1024) if name == 'RandomScaleCrop' else {}
    text = (
        "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadSAMImage'), "
        f"dict(type={name!r}, **{extra}), dict(type='PackSAMInputs')]))"
    )
    words = message(child(tmp_path, text))
    assert words.startswith(f'train_dataloader: embedding_cache: {name} may give an image other')


def test_a_model_of_mmseg_is_refused(tmp_path):
    text = message(child(tmp_path, CACHE, ROOT / 'configs' / 'mmseg_fcn_sam_stamp.py'))
    assert 'expected a SAMSegmentor as model, got EncoderDecoder' in text


def test_without_a_cache_all_is_left_as_it_was():
    options = {'embedding_cache': None, 'model.frozen': ()}
    assert load_run_config(str(STAMP), options, None).embedding_cache is None


def test_names_with_a_scope_and_frozen_by_default(tmp_path):
    """As of a project whose own scope is mmseg."""
    text = (
        "default_scope = 'mmseg'\nmodel = dict(type='mmsam.SAMSegmentor')\n"
        "train_pipeline = [dict(type='mmsam.LoadSAMImage'), dict(type='mmsam.PackSAMInputs')]\n"
        'data = dict(type="mmsam.BoxPromptDataset", data_root="x", pipeline=train_pipeline,\n'
        '            reader=dict(type="coco", ann_file="a.json"))\n'
        'train_dataloader = dict(dataset=data)\n' + CACHE
    )
    path = tmp_path / 'own.py'
    path.write_text(text)
    check_embedding_cache(Config.fromfile(path))


def test_a_validation_in_tiles_may_have_any_pipeline(tmp_path):
    pipeline = "[dict(type='LoadSAMImage'), dict(type='PhotoMetricDistortion')]"
    text = (
        f'tiles = dict(tiling=dict(tile_size=1024, overlap=256), pipeline={pipeline})\n'
        'val_dataloader = dict(dataset=tiles)'
    )
    assert load_run_config(child(tmp_path, text), None, None).embedding_cache
