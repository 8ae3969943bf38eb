"""Reads YAML as data: tags that run code and aliases that unfold without end are refused."""

from typing import IO, Any

import yaml
from mmengine.fileio.handlers import YamlHandler, file_handlers
from yaml.nodes import MappingNode, Node, ScalarNode

from mmsam.errors import ConfigError

_MOST_VALUES = 100_000


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe one, and tuples, which mmengine writes where a config has them."""


_PlainLoader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class _PlainYamlHandler(YamlHandler):
    """mmengine's, which would run what a tag names."""

    def load_from_fileobj(self, file: IO[str], **kwargs: Any) -> Any:
        """The content of a YAML file.

        Raises:
            ConfigError: it is no YAML, has a tag beyond plain data, or unfolds to too many values.
        """
        text = file.read()
        try:
            root = yaml.compose(text, Loader=_PlainLoader)
            if root is not None and _unfolded(root, {}) > _MOST_VALUES:
                raise ConfigError(
                    f'its aliases unfold to more than {_MOST_VALUES} values, which no config needs.'
                )
            return yaml.load(text, Loader=_PlainLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f' in line {mark.line + 1}' if mark else ''
            raise ConfigError(f'expected plain YAML{where}: {error.problem}.') from None
        except yaml.YAMLError as error:
            raise ConfigError(f'expected plain YAML: {" ".join(str(error).split())}.') from None
        except RecursionError:
            raise ConfigError('expected plain YAML: it is nested too deeply.') from None


def _unfolded(node: Node, known: dict[int, int]) -> int:
    """Values that a node stands for when its aliases are unfolded, as a config unfolds them."""
    if isinstance(node, ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1  # should it contain itself
        is_mapping = isinstance(node, MappingNode)
        children = [value for _, value in node.value] if is_mapping else node.value
        known[id(node)] = 1 + sum(_unfolded(child, known) for child in children)
    return known[id(node)]


def read_yaml_as_data() -> None:
    """Let mmengine read all YAML so, also what a config inherits."""
    for suffix in ('yaml', 'yml'):
        file_handlers[suffix] = _PlainYamlHandler()
