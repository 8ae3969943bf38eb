"""What was found in the data of one split, and how it is told."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmsam.datasets.readers import first_few
from mmsam.datasets.readers.problems import Problems
from mmsam.errors import MMSAMError

_SHOWN_ERRORS = 5
"""Errors of one kind that are shown in full; the others are counted."""


@dataclass(frozen=True)
class Suspect:
    """What a warning names: objects of an image, an image, or something else.

    Args:
        name: with its file.
        info: the image with its objects, as ``BoxPromptDataset`` lists them, for a picture.
        objects: indices of those that are meant.
    """

    name: str
    info: dict[str, Any] | None = None
    objects: tuple[int, ...] = ()


@dataclass
class Findings:
    """Errors stop a training, warnings are to be looked at.

    Args:
        errors: in the order of the data.
        warnings: what is suspicious, such as 'objects of 1 px', to all that is.
    """

    errors: list[MMSAMError] = field(default_factory=list)
    warnings: dict[str, list[Suspect]] = field(default_factory=dict)

    def warn(self, what: str, suspect: Suspect) -> None:
        self.warnings.setdefault(what, []).append(suspect)

    def add(self, problems: Problems) -> None:
        """Take over what the readers collected."""
        self.errors += problems.errors
        for where, remarks in problems.remarks:
            for what, names in remarks.items():
                for name in names:
                    self.warn(what, Suspect(name if where in name else f'{name} in {where}'))

    def lines(self) -> Iterator[str]:
        """A line for each error, for the first few of each kind, and for each kind of warning."""
        of_kind: dict[object, list[MMSAMError]] = {}
        for error in self.errors:
            of_kind.setdefault(_raised_at(error), []).append(error)
        for errors in of_kind.values():
            for error in errors[:_SHOWN_ERRORS]:
                yield f'ERROR    {error}'
            if len(errors) > _SHOWN_ERRORS:
                yield f'ERROR    ... and {len(errors) - _SHOWN_ERRORS} more of this kind.'
        for line in self.warning_lines():
            yield f'WARNING  {line}'

    def warning_lines(self) -> Iterator[str]:
        """A line for each kind of warning, with how many there are and the first few."""
        for what, suspects in self.warnings.items():
            names = [suspect.name for suspect in suspects]
            yield f'{len(names)} {what}: {first_few(names, few=3)}'


def name_objects(info: dict[str, Any], objects: tuple[int, ...], detail: str = '') -> Suspect:
    """Objects of an image, named as their annotation does."""
    names = ' and '.join(str(info['names'][index]) for index in objects[:2])
    if len(objects) > 2:
        names += ' ...'
    return Suspect(f'{names} of {info["img_path"]}{detail and f" ({detail})"}', info, objects)


def _raised_at(error: BaseException) -> object:
    """The line of code that raised an error: errors of one line are of one kind."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback and (traceback.tb_frame.f_code, traceback.tb_lineno)
