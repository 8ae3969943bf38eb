import inspect

import mmcv.cnn
import mmcv.transforms  # noqa: F401  (registers mmcv's names)
import pytest
from mmengine.registry import DefaultScope, Registry
from tiny_sam import TINY_ARCH

from mmsam import registry
from mmsam.models import SAMBackbone

NODES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}
EACH_NODE = pytest.mark.parametrize('node', NODES.values(), ids=NODES)


def own_modules(node: Registry) -> dict[str, type]:
    node.import_from_location()
    return dict(node.module_dict)


def test_there_are_nodes():
    assert {'MODELS', 'DATASETS', 'TRANSFORMS', 'HOOKS', 'METRICS'} <= NODES.keys()


@EACH_NODE
def test_a_node_is_a_child_of_mmsegs(node):
    assert node.scope == 'mmsam'
    assert node.parent.scope == 'mmseg' and node.parent.parent.scope == 'mmengine'


@EACH_NODE
def test_no_name_hides_one_of_mmseg_mmcv_or_mmengine(node):
    """A name that a parent has would replace the parent's module in users' own configs."""
    mmseg_node, mmengine_node = node.parent, node.parent.parent
    for ancestor in (mmseg_node, mmengine_node):
        ancestor.import_from_location()
    taken = mmseg_node.module_dict.keys() | mmengine_node.module_dict.keys()
    assert taken, 'nothing was registered, so nothing is compared'
    assert own_modules(node).keys() & taken == set()


@EACH_NODE
def test_every_module_lies_where_its_node_looks(node):
    """A node imports its locations only: a module elsewhere is found only by accident."""
    locations = tuple(f'{location}.' for location in node._locations)
    for name, module in own_modules(node).items():
        assert module.__module__.startswith(locations), name


@EACH_NODE
def test_no_module_takes_any_option(node):
    """A misspelled option must fail when built."""
    for name, module in own_modules(node).items():
        parameters = inspect.signature(module).parameters.values()
        assert all(p.kind is not p.VAR_KEYWORD for p in parameters), name


@pytest.mark.parametrize(
    ('scope', 'name'),
    [
        ('mmseg', 'mmsam.SAMBackbone'),
        ('mmsam', 'mmsam.SAMBackbone'),
        ('mmsam', 'SAMBackbone'),
        (None, 'SAMBackbone'),
    ],
)
def test_ours_builds_in_both_scopes(scope, name):
    from mmseg.registry import MODELS as MMSEG_MODELS

    nodes = [registry.MODELS] + ([MMSEG_MODELS] if scope else [])
    for node in nodes:
        with DefaultScope.overwrite_default_scope(scope):
            backbone = node.build(dict(type=name, arch=TINY_ARCH, img_size=64))
        assert type(backbone) is SAMBackbone


@pytest.mark.parametrize('scope', ['mmseg', 'mmsam'])
@pytest.mark.parametrize('name', ['FCNHead', 'mmseg.FCNHead'])
def test_mmsegs_builds_in_both_scopes(scope, name):
    with DefaultScope.overwrite_default_scope(scope):
        head = registry.MODELS.build(
            dict(type=name, num_convs=1, in_channels=4, channels=4, num_classes=2)
        )
    assert type(head).__module__.startswith('mmseg.models')


def test_mmengines_builds_in_our_scope():
    with DefaultScope.overwrite_default_scope('mmsam'):
        hook = registry.HOOKS.build(dict(type='EMAHook'))
    assert type(hook).__module__.startswith('mmengine.')


@EACH_NODE
@pytest.mark.parametrize('scope', ['mmseg', 'mmsam'])
def test_an_unknown_name(node, scope):
    config = dict(type='mmsam.NoSuchThing')
    if node is registry.RUNNERS:  # which reads a whole config
        config = dict(config, model=dict(), work_dir='', runner_type=config.pop('type'))
    with (
        DefaultScope.overwrite_default_scope(scope),
        pytest.raises(KeyError, match='NoSuchThing'),
    ):
        node.build(config)
