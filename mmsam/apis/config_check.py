"""Checks a whole config before anything is loaded or built, and names the nearest right name."""

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from mmengine import registry as roots
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner
from mmengine.runner import TestLoop as DefaultTestLoop  # pytest would collect the name Test...
from mmengine.runner import ValLoop as DefaultValLoop
from torch.utils.data import DataLoader

from mmsam import registry
from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.readers import build_reader
from mmsam.datasets.splits import build_split
from mmsam.datasets.tiling import build_tiling
from mmsam.errors import ConfigError
from mmsam.options import check_whole_number

from .split_check import ENDLESS_SAMPLERS

_Kinds = tuple[Registry, ...]

_MODEL_PARTS: _Kinds = (roots.MODELS, roots.TASK_UTILS, roots.WEIGHT_INITIALIZERS)
_ANY: _Kinds = tuple(value for value in vars(roots).values() if isinstance(value, Registry))

_KINDS_OF_SECTION: dict[str, _Kinds] = {
    'model': _MODEL_PARTS,
    'data_preprocessor': _MODEL_PARTS,
    'tta_model': _MODEL_PARTS,
    'model_wrapper_cfg': (roots.MODEL_WRAPPERS,),
    'train_cfg': (roots.LOOPS,),
    'val_cfg': (roots.LOOPS,),
    'test_cfg': (roots.LOOPS,),
    'optim_wrapper': (roots.OPTIM_WRAPPERS,),
    'param_scheduler': (roots.PARAM_SCHEDULERS,),
    'default_hooks': (roots.HOOKS,),
    'custom_hooks': (roots.HOOKS,),
    'val_evaluator': (roots.METRICS, roots.EVALUATOR),
    'test_evaluator': (roots.METRICS, roots.EVALUATOR),
    'visualizer': (roots.VISUALIZERS,),
    'log_processor': (roots.LOG_PROCESSORS,),
    'tta_pipeline': (roots.TRANSFORMS,),
}
"""Top-level keys from which mmengine builds, apart from the data loaders."""

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

_KINDS_OF_KEY: dict[str, _Kinds] = {
    'dataset': (roots.DATASETS,),
    'datasets': (roots.DATASETS,),
    'sampler': (roots.DATA_SAMPLERS,),
    'batch_sampler': (roots.DATA_SAMPLERS,),
    'pipeline': (roots.TRANSFORMS,),
    'transforms': (roots.TRANSFORMS,),
    'collate_fn': (roots.FUNCTIONS,),
    'worker_init_fn': (roots.FUNCTIONS,),
    'optimizer': (roots.OPTIMIZERS,),
    'metrics': (roots.METRICS,),
    'vis_backends': (roots.VISBACKENDS,),
}
"""What a key means below a module, outside of models; parts of models are parts of models."""

_NEED_TYPE = ('dataset', 'sampler', 'batch_sampler', 'pipeline', 'optimizer')

_OWN_TYPES = ('clip_grad', 'on_trace_ready', 'metainfo')
"""Keys whose dicts have a ``type`` that is no registered name."""

_TAKEN_BY_THE_BUILDER: dict[Registry, tuple[str, ...]] = {
    roots.HOOKS: ('priority',),
    roots.PARAM_SCHEDULERS: ('convert_to_iter_based', 'epoch_length'),
    roots.OPTIM_WRAPPERS: ('constructor', 'paramwise_cfg'),
    roots.WEIGHT_INITIALIZERS: ('override', 'name'),
}
"""Options that do not reach the constructor."""

_RUN_KEYS = {
    *(name for name in inspect.signature(Runner).parameters if name != 'cfg'),
    *('custom_imports', 'model_wrapper_cfg'),  # read by mmengine beside the runner's parameters
    *('evaluation', 'prepare_data', 'embedding_cache'),  # read by mmsam's tools
}
"""Other keys pass, read by mmengine (``sync_bn``) or not, unless they almost are one of these."""

_KEYS_OF_DICT: dict[str, tuple[str, ...]] = {
    'randomness': tuple(inspect.signature(Runner.set_randomness).parameters)[1:],
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.mp_cfg': ('mp_start_method', 'opencv_num_threads'),
    'auto_scale_lr': ('base_batch_size', 'enable'),
    'embedding_cache': ('folder',),
    **{
        loader: (
            *inspect.signature(DataLoader).parameters,
            *('num_batch_per_epoch', 'disable_subprocess_warning'),
        )
        for loader in _LOADERS
    },
}

_LEAST: dict[str, int] = {
    'train_cfg.max_iters': 1,
    'train_cfg.max_epochs': 1,
    'train_cfg.val_interval': 1,
    'optim_wrapper.accumulative_counts': 1,
    'auto_scale_lr.base_batch_size': 1,
    **{f'{loader}.batch_size': 1 for loader in _LOADERS},
    **{f'{loader}.num_workers': 0 for loader in _LOADERS},
}

_VALUES_OF: dict[Any, tuple[str, tuple[type, ...]]] = {
    int: ('a whole number', (int,)),
    float: ('a number', (int, float)),
    bool: ('True or False', (bool, int, NoneType)),
    str: ('text', (str,)),
}
_VALUES_OF |= {
    kind | None: (f'{what} or None', (*types, NoneType))
    for kind, (what, types) in _VALUES_OF.items()
}
"""What a parameter with this annotation expects, and the types of the values that do.

False may be written as 0 or None, as Python takes them.
"""

_ALIKE = 0.8
"""Likeness from which an unknown name that could be right is taken for a slip."""


def check_config(config: Config) -> None:
    """Check all that can be wrong in a config before data, weights or a model are touched.

    Top-level keys, the names and options of everything that is built, numbers and texts among
    mmsam's own options, and limits: intervals, lengths, the learning rate, loader settings. Options
    that a constructor requires and that are not given are left to it. Paths are left to
    ``check_paths``.

    Args:
        config: with all overrides; ``evaluation`` already translated.

    Raises:
        ConfigError: with the dotted key and the nearest right name or the expected value.
    """
    _check_top_level(config)
    for where, keys in _KEYS_OF_DICT.items():
        given = value_at(config, where)
        if isinstance(given, dict):
            _check_keys(given, where, keys, where)
    _check_train_cfg(config.get('train_cfg'))
    _check_values(config)
    scope = config.get('default_scope') or 'mmengine'
    _check_scope(scope)
    for section, value in config.items():
        if section in _KINDS_OF_SECTION or section in _LOADERS:
            _check_section(section, value, scope)
    _check_ends(config, scope)


def check_option_paths(config: Config, options: Mapping[str, Any]) -> None:
    """Check that each dotted key of ``--options`` leads somewhere in the config.

    A new key in a dict with a ``type`` is left to ``check_config``, which knows the options of
    that type; any other new key is refused where it is almost one that exists.

    Args:
        config: before the options are merged.
        options: value by dotted key; entries of lists by their number.

    Raises:
        ConfigError: with the option and the nearest key.
    """
    for option in options:
        value: Any = config.to_dict()
        parts = option.split('.')
        for depth, part in enumerate(parts):
            where = '.'.join(parts[:depth])
            if isinstance(value, list | tuple):
                if not part.isdigit() or int(part) >= len(value):
                    raise ConfigError(
                        f'--options {option}: expected the number of one of the {len(value)} '
                        f'entries of {where}, counted from 0, got {part!r}.'
                    )
                value = value[int(part)]
            elif not isinstance(value, dict):
                raise ConfigError(
                    f'--options {option}: expected a dict or list in {where}, got {value!r}.'
                )
            elif part in value:
                value = value[part]
            else:
                known = {*value, *(_RUN_KEYS if depth == 0 else _KEYS_OF_DICT.get(where, ()))}
                is_right = part in known or 'type' in value
                near = None if is_right else nearest(part, known, _ALIKE)
                if near:
                    right = '.'.join([*parts[:depth], near])
                    raise ConfigError(f'--options {option}: no such key; did you mean {right}?')
                break


# ------------------------------------------------------------------------------ names and numbers


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The most similar name, upper and lower case being the same; None if none is similar."""
    by_lower = {other.lower(): other for other in sorted(names)}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def value_at(config: Config, where: str) -> Any:
    """The value under a dotted key; None if there is none."""
    value: Any = config
    for part in where.split('.'):
        value = value.get(part) if isinstance(value, dict | Config) else None
    return value


def datasets_of(config: Any) -> Iterator[dict]:
    """A data set's config, and those that it wraps."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from datasets_of(item)
    elif isinstance(config, dict):
        yield config
        for key in ('dataset', 'datasets'):
            yield from datasets_of(config.get(key))


def _check_keys(given: Mapping, where: str, allowed: Iterable[str], owner: str) -> None:
    """Raise ConfigError for a key that is neither allowed nor mmengine's own."""
    for key in given:
        if key not in allowed and key not in ('type', '_scope_'):
            near = nearest(str(key), allowed)
            known = ', '.join(sorted(allowed)) or 'none'
            hint = f'did you mean {near}?' if near else f'its options are: {known}.'
            raise ConfigError(f'{where}.{key}: {owner} has no option {key}; {hint}')


def _check_top_level(config: Config) -> None:
    """A key that is almost one of a run's, and that the config uses nowhere as a variable."""
    for key in config:
        near = None if key in _RUN_KEYS else nearest(key, _RUN_KEYS, _ALIKE)
        used = rf'(?<![\w.\'"]){re.escape(key)}\b(?!\s*=[^=])'
        if near and not re.search(used, config.text or ''):
            raise ConfigError(f'{key}: no such key of a run; did you mean {near}?')


def _check_train_cfg(train_cfg: Any) -> None:
    if not isinstance(train_cfg, dict):
        return
    if 'max_iters' in train_cfg and 'max_epochs' in train_cfg:
        raise ConfigError(
            'train_cfg: expected max_iters (IterBasedTrainLoop) or max_epochs '
            '(EpochBasedTrainLoop), got both; train_cfg=dict(_delete_=True, ...) drops what is '
            'inherited.'
        )
    if 'type' in train_cfg and 'by_epoch' in train_cfg:
        raise ConfigError('train_cfg: expected type or by_epoch, got both.')
    kind = _loop_of(train_cfg)
    names = {'IterBasedTrainLoop': 'max_iters', 'EpochBasedTrainLoop': 'max_epochs'}
    name = str(kind if isinstance(kind, str) else getattr(kind, '__name__', kind)).split('.')[-1]
    for given in ('max_iters', 'max_epochs'):
        if given in train_cfg and names.get(name, given) != given:
            raise ConfigError(
                f'train_cfg.{given}: {name} runs for {names[name]}, not for {given}; set '
                f'{names[name]}, or another type.'
            )


def _loop_of(train_cfg: dict) -> Any:
    """The type of a training loop, as mmengine chooses it."""
    if 'type' in train_cfg:
        return train_cfg['type']
    if 'by_epoch' not in train_cfg:
        raise ConfigError('train_cfg: expected a type or by_epoch, got neither.')
    return EpochBasedTrainLoop if train_cfg['by_epoch'] else IterBasedTrainLoop


def _check_values(config: Config) -> None:
    for where, least in _LEAST.items():
        section, key = where.split('.')
        given = config.get(section)
        if isinstance(given, dict) and key in given:
            check_whole_number(where, given[key], least)
    for loader in _LOADERS:
        given = config.get(loader)
        if isinstance(given, dict) and given.get('persistent_workers'):
            if given.get('num_workers', 0) == 0:
                raise ConfigError(
                    f'{loader}.persistent_workers: expected False as num_workers is 0, got True.'
                )
    scaling = config.get('auto_scale_lr')
    if scaling is not None and not (isinstance(scaling, dict) and 'base_batch_size' in scaling):
        raise ConfigError(f'auto_scale_lr: expected dict(base_batch_size=N), got {scaling!r}.')
    optimizer = value_at(config, 'optim_wrapper.optimizer')
    if isinstance(optimizer, dict) and 'lr' in optimizer:
        rate = optimizer['lr']
        is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not is_number or not math.isfinite(rate) or rate < 0:
            raise ConfigError(
                'optim_wrapper.optimizer.lr: expected a finite number that is not negative, '
                f'got {rate!r}.'
            )
    seed = value_at(config, 'randomness.seed')
    if seed is not None:
        check_whole_number('randomness.seed', seed, 0)
    for key in ('work_dir', 'load_from'):
        if config.get(key) is not None and not isinstance(config[key], str):
            raise ConfigError(f'{key}: expected a path as text, got {config[key]!r}.')


# --------------------------------------------------------------------------------- what is built


def _check_section(section: str, value: Any, scope: str) -> None:
    """Check everything that mmengine builds from one top-level key."""
    if isinstance(value, str | int | float):
        raise ConfigError(f'{section}: expected a dict, got {value!r}.')
    kinds = _KINDS_OF_SECTION.get(section, _ANY)
    if not isinstance(value, dict):
        _check_modules(value, section, kinds, scope, need_type=True)
    elif section in _LOADERS:
        _check_children(value, section, kinds, scope)
    elif section == 'default_hooks' or _has_several(section, value):
        for name, item in value.items():
            _check_modules(item, f'{section}.{name}', kinds, scope, need_type=True)
    else:
        _check_modules(_with_default_type(section, value), section, kinds, scope, need_type=True)
    constructor = value.get('constructor') if section == 'optim_wrapper' and value else None
    if constructor is not None:
        kinds = (roots.OPTIM_WRAPPER_CONSTRUCTORS,)
        _find_module(constructor, 'optim_wrapper.constructor', kinds, scope)


def _has_several(section: str, value: dict) -> bool:
    """Whether a section is one entry for each of several optimizers, by the optimizers' names."""
    if section == 'optim_wrapper':
        return 'constructor' in value and not {'type', 'optimizer'} & value.keys()
    is_schedules = section == 'param_scheduler' and bool(value)
    return is_schedules and all(isinstance(item, list) for item in value.values())


def _check_ends(config: Config, scope: str) -> None:
    """What goes once through its data must have a sampler with an end."""
    train_cfg = config.get('train_cfg')
    is_by_epochs = isinstance(train_cfg, dict) and _is_kind(
        _loop_of(train_cfg), 'train_cfg.type', roots.LOOPS, scope, (EpochBasedTrainLoop,)
    )
    for loader in _LOADERS:
        sampler = value_at(config, f'{loader}.sampler')
        if not isinstance(sampler, dict) or (loader == 'train_dataloader' and not is_by_epochs):
            continue
        where, scope_of_it = f'{loader}.sampler.type', sampler.get('_scope_', scope)
        if _is_kind(sampler['type'], where, roots.DATA_SAMPLERS, scope_of_it, ENDLESS_SAMPLERS):
            what = 'the first epoch' if loader == 'train_dataloader' else 'the evaluation'
            raise ConfigError(
                f'{where}: expected a sampler with an end, such as DefaultSampler, got '
                f'{sampler["type"]}: {what} would never end.'
            )


def _is_kind(
    name: Any, where: str, registry_of_it: Registry, scope: str, kinds: tuple[type, ...]
) -> bool:
    module, _ = _find_module(name, where, (registry_of_it,), scope)
    return inspect.isclass(module) and issubclass(module, kinds)


def _with_default_type(section: str, value: dict) -> dict:
    """``value`` with the type that mmengine takes where a section needs none."""
    if 'type' in value:
        return value
    if section == 'train_cfg':
        loop = {key: option for key, option in value.items() if key != 'by_epoch'}
        return {**loop, 'type': _loop_of(value)}
    defaults: dict[str, type] = {
        'val_cfg': DefaultValLoop,
        'test_cfg': DefaultTestLoop,
        'log_processor': LogProcessor,
        'optim_wrapper': OptimWrapper,
    }
    if section.endswith('_evaluator') and 'metrics' in value:
        return {**value, 'type': Evaluator}
    return {**value, 'type': defaults[section]} if section in defaults else value


def _check_modules(
    value: Any, where: str, kinds: _Kinds, scope: str, need_type: bool = False
) -> None:
    """Check the configs of modules in ``value`` and below it.

    Args:
        value: from a config; what is neither dict nor list is passed over.
        where: dotted key.
        kinds: mmengine's registries, one of which knows the type.
        scope: in which names are looked up, unless a dict's ``_scope_`` says otherwise.
        need_type: whether the dict, or each dict of the list, must have a ``type``.
    """
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_modules(item, f'{where}.{index}', kinds, scope, need_type)
    elif isinstance(value, dict):
        scope = value.get('_scope_', scope)
        if 'type' in value:
            module, kind = _find_module(value['type'], f'{where}.type', kinds, scope)
            _check_options(value, where, module, kind)
            if getattr(module, '__name__', '') == 'Albu':
                return  # albumentations has names of its own
            if module is BoxPromptDataset:
                _check_own_dicts(value, where)
                value = {k: child for k, child in value.items() if k not in _OWN_DICTS}
        elif need_type:
            near = nearest('type', map(str, value))
            got = f'{near}, which is almost that' if near else ', '.join(map(str, value))
            raise ConfigError(f'{where}: expected a key type, got {got or "none"}.')
        _check_children(value, where, kinds, scope)


def _check_children(value: dict, where: str, kinds: _Kinds, scope: str) -> None:
    for key, child in value.items():
        if key in _OWN_TYPES:
            continue
        need_type = False
        if kinds is not _MODEL_PARTS:
            child_kinds = _KINDS_OF_KEY.get(key, _ANY)
            need_type = key in _NEED_TYPE
        else:
            child_kinds = kinds
        _check_modules(child, f'{where}.{key}', child_kinds, scope, need_type)


_OWN_DICTS = ('reader', 'split', 'tiling')
"""Options of BoxPromptDataset that are dicts without a registered type."""


def _check_own_dicts(dataset: Mapping, where: str) -> None:
    """They check their options themselves; none reads a file before it must."""
    root = dataset.get('data_root', '')
    builders = (lambda given: build_reader(given, root), build_split, build_tiling)
    for key, build in zip(_OWN_DICTS, builders, strict=True):
        if dataset.get(key) is not None:
            try:
                build(dataset[key])
            except (ConfigError, TypeError) as error:
                raise ConfigError(f'{where}.{key}: {error}') from error


def _check_options(value: dict, where: str, module: Callable, kind: Registry | None) -> None:
    """The keys of a module's config are parameters of its constructor."""
    allowed = _options_of(module)
    if allowed is not None:
        extra = ('requires_grad',) if where.endswith('norm_cfg') else ()
        if kind is not None:
            extra = (*extra, *_TAKEN_BY_THE_BUILDER.get(kind, ()))
        name = getattr(module, '__name__', str(module))
        _check_keys(value, where, {*allowed, *extra}, name)
    if 'interval' in value and inspect.isclass(module):
        if issubclass(module, CheckpointHook):
            check_whole_number(f'{where}.interval', value['interval'], 1, never=-1)
        elif issubclass(module, LoggerHook):
            check_whole_number(f'{where}.interval', value['interval'], 1)
    _check_kinds_of_values(value, where, module)


def _check_kinds_of_values(value: dict, where: str, module: Callable) -> None:
    """What a constructor of mmsam annotates as a plain number, switch or text is one.

    Values of types that are not Python's own, such as numpy's numbers and paths, pass.
    """
    init = next(_constructors(module), None)
    if init is None or not str(getattr(init, '__module__', '')).startswith('mmsam.'):
        return
    for name, parameter in inspect.signature(init).parameters.items():
        annotation, words = _without_literals(parameter.annotation)
        if name not in value or annotation not in _VALUES_OF or value[name] in words:
            continue
        given = value[name]
        what, types = _VALUES_OF[annotation]
        what = ' or '.join([what, *map(repr, words)])
        is_right = isinstance(given, types) and (bool in types or not isinstance(given, bool))
        is_plain = isinstance(given, str | int | float | list | tuple | dict | NoneType)
        if is_plain and not is_right:
            raise ConfigError(f'{where}.{name}: expected {what}, got {given!r}.')


def _without_literals(annotation: Any) -> tuple[Any, list]:
    """``bool`` and ``['global']`` of ``bool | Literal['global']``; others as they are."""
    literals = [part for part in get_args(annotation) if get_origin(part) is Literal]
    others = [part for part in get_args(annotation) if part not in literals]
    if not literals or len(others) != 1:
        return annotation, []
    return others[0], [word for literal in literals for word in get_args(literal)]


def _options_of(module: Callable) -> set[str] | None:
    """Names that a class or function takes; None where it takes any.

    ``**kwargs`` of a constructor stand for the parameters of the next one up.
    """
    # it hands what it does not know to the runner's save_checkpoint, which takes none of it
    closed = inspect.isclass(module) and issubclass(module, CheckpointHook)
    names: set[str] = set()
    any_name = False
    for init in _constructors(module):
        # a decorator that renames old options does not say which
        if hasattr(init, '__wrapped__'):
            return None
        try:
            parameters = inspect.signature(init).parameters.values()
        except (TypeError, ValueError):  # written in C
            return None
        names.update(
            p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        )
        any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not any_name:
            break
    return None if any_name and not closed else names - {'self'}


def _constructors(module: Callable) -> Iterator[Callable]:
    """A function itself, or the ``__init__`` of a class and its bases in the order of calls."""
    if not inspect.isclass(module):
        yield module
        return
    for base in module.__mro__[:-1]:
        for name in ('__init__', '__new__'):
            if name in vars(base) and base.__module__ != 'typing':
                yield vars(base)[name]
                break


# --------------------------------------------------------------------------------------- registries


def _find_module(
    name: Any, where: str, kinds: _Kinds, scope: str
) -> tuple[Callable, Registry | None]:
    """The module of a ``type`` and mmengine's registry of its kind; None for a class as type.

    Raises:
        ConfigError: no registry of these kinds knows the name.
    """
    if not isinstance(name, str):
        if not callable(name):
            raise ConfigError(f'{where}: expected a name or a class, got {name!r}.')
        return name, kinds[0] if len(kinds) == 1 else None
    for kind in kinds:
        module = _look_up(name, _node(kind, scope))
        if module is not None:
            return module, kind
    for kind in kinds:
        if _look_up(name, _node(kind, registry.SCOPE)) is not None:
            raise ConfigError(
                f'{where}: {name!r} is not found in the scope {scope!r}; '
                f'set default_scope={registry.SCOPE!r}, or write '
                f'{registry.SCOPE}.{name.split(".")[-1]}.'
            )
    what = f'no {kinds[0].name}' if kinds is not _ANY else 'nothing'
    names = {known for kind in kinds for known in _names(_node(kind, scope))}
    near = nearest(name, names)
    hint = f'did you mean {near}?' if near else 'custom_imports makes names of your own known.'
    raise ConfigError(f'{where}: {what} is called {name!r}; {hint}')


def _look_up(name: str, node: Registry) -> Callable | None:
    """As mmengine finds a name from a registry's node; None where it does not."""
    if '.' not in name:
        found = [
            ancestor.module_dict[name]
            for ancestor in _upwards(node)
            if name in ancestor.module_dict
        ]
        return found[0] if found else None
    try:
        module = node.get(name)
    except Exception:  # whatever importing the package in front raises
        return None
    return module if callable(module) else None


def _names(node: Registry) -> Iterator[str]:
    """The names that can be written in a node's scope."""
    for ancestor in _upwards(node):
        yield from ancestor.module_dict
    for scope, child in node.children.items():
        child.import_from_location()
        yield from (f'{scope}.{name}' for name in child.module_dict)


def _upwards(node: Registry) -> Iterator[Registry]:
    """A node and those above it, its modules imported."""
    node.import_from_location()
    current: Registry | None = node
    while current is not None:
        yield current
        current = current.parent


def _node(root: Registry, scope: str) -> Registry:
    """The node of a root's tree in which names of ``scope`` are looked up."""
    nodes = {node.scope: node for node in _tree(root)}
    if scope == registry.SCOPE and scope not in nodes:
        scope = 'mmseg'  # a kind that mmsam adds nothing to
    return nodes.get(scope, root)


def _tree(root: Registry) -> Iterator[Registry]:
    yield root
    for child in root.children.values():
        yield from _tree(child)


def _check_scope(scope: Any) -> None:
    if isinstance(scope, str):
        try:
            import_module(f'{scope}.registry')
        except ImportError:
            pass  # registries may also come by custom_imports
    scopes = {node.scope for root in _ANY for node in _tree(root)}
    if scope not in scopes:
        near = nearest(str(scope), scopes)
        hint = f'did you mean {near}?' if near else f'known are: {", ".join(sorted(scopes))}.'
        raise ConfigError(f'default_scope: no registry has the scope {scope!r}; {hint}')
