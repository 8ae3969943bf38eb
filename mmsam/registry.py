"""mmsam's registries: children of mmseg's, so that a config may name modules of both.

A lookup that fails in a child goes up to its parent, but mmengine imports only the modules that
the child lists in ``locations``. Each node therefore lists mmseg's package as well as ours;
mmsam's names stand beside mmseg's and mmengine's under ``default_scope = 'mmsam'``.
"""

from mmengine.registry import Registry
from mmseg import registry as mmseg_registry

SCOPE = 'mmsam'


def _child(parent: Registry, *folders: str) -> Registry:
    """Child of one of mmseg's registries, with mmsam's ``folders`` added to its locations."""
    own = [f'{SCOPE}.{folder}' for folder in folders]
    # mmengine keeps the locations in `_locations` and offers no other access to them
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=[*parent._locations, *own])


MODELS = _child(mmseg_registry.MODELS, 'models')
DATASETS = _child(mmseg_registry.DATASETS, 'datasets')
DATA_SAMPLERS = _child(mmseg_registry.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child(mmseg_registry.TRANSFORMS, 'datasets')
METRICS = _child(mmseg_registry.METRICS, 'evaluation')
HOOKS = _child(mmseg_registry.HOOKS, 'engine', 'visualization')
RUNNERS = _child(mmseg_registry.RUNNERS, 'engine')
LOOPS = _child(mmseg_registry.LOOPS, 'engine')
OPTIM_WRAPPERS = _child(mmseg_registry.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(mmseg_registry.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')

# mmsam adds nothing to these, but without a node of its own mmengine warns at every lookup
EVALUATOR = _child(mmseg_registry.EVALUATOR)
LOG_PROCESSORS = _child(mmseg_registry.LOG_PROCESSORS)
MODEL_WRAPPERS = _child(mmseg_registry.MODEL_WRAPPERS)
OPTIMIZERS = _child(mmseg_registry.OPTIMIZERS)
PARAM_SCHEDULERS = _child(mmseg_registry.PARAM_SCHEDULERS)
VISBACKENDS = _child(mmseg_registry.VISBACKENDS)
VISUALIZERS = _child(mmseg_registry.VISUALIZERS)
WEIGHT_INITIALIZERS = _child(mmseg_registry.WEIGHT_INITIALIZERS)
