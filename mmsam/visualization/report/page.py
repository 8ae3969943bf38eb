"""A training as one HTML file that needs nothing else: curves, tables and pictures."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from mmsam.atomic_file import write_text_atomically
from mmsam.errors import DataError
from mmsam.score_comparison import (
    ScoreRow,
    format_gain,
    format_score,
    score_rows,
    split_scores,
)

from .line_chart import Line, line_chart
from .picture_data import masks_as_data
from .run_record import RunRecord, Scalars, Start, read_run
from .score_groups import NOISE_AXIS, is_better, score_groups
from .style import STYLE

REPORT_FILE = 'report.html'
EXAMPLES = 3
"""Pictures of the best, of the median and of the worst images."""
WORSE_SHOWN = 50
"""Images that became worse in the table; ``results.json`` has all."""
_TIMES = ('time', 'data_time', 'step')
"""What is logged beside the scores of a validation."""


def write_report(work_dir: Path) -> Path:
    """Write ``report.html`` into a work dir, from the files that are there.

    Returns:
        The file.

    Raises:
        StorageError: it cannot be written.
    """
    path = work_dir / REPORT_FILE
    page = report_page(read_run(work_dir))
    # a file name that is no UTF-8 is shown with escapes
    write_text_atomically(path, page.encode('utf-8', 'backslashreplace').decode('utf-8'))
    return path


def report_page(run: RunRecord) -> str:
    """The report as HTML text."""
    title = _name_of(run)
    rows = _score_rows(run)
    content = ''.join(
        (
            f'<h1>{escape(title)}</h1>{_state(run)}',
            _summary(run, rows),
            _section('Curves', _curves(run)),
            _section('Scores', _score_tables(rows)),
            _section('Pictures', _pictures(run)),
            _section('Images that became worse', _worse_images(run)),
            _section('How to reproduce', _reproduction(run)),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head>'
        f'<body>{content}</body></html>\n'
    )


def _section(title: str, content: str) -> str:
    return f'<section><h2>{escape(title)}</h2>{content}</section>' if content else ''


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _name_of(run: RunRecord) -> str:
    configs = [start.config for start in run.starts if start.config]
    return Path(configs[-1]).stem if configs else run.work_dir.resolve().name


def _state(run: RunRecord) -> str:
    """Date and how far the run has come."""
    dates = [_date(start.timestamp) for start in run.starts]
    when = f'Run of {dates[0]}' if dates else 'Run of an unknown date'
    if len(dates) > 1:
        when += f', gone on {", ".join(dates[1:])}'
    return f'<p class="soft">{escape(when)}. {escape(_progress(run))}</p>'


def _date(timestamp: str) -> str:
    try:
        return datetime.strptime(timestamp, '%Y%m%d_%H%M%S').strftime('%Y-%m-%d %H:%M')
    except ValueError:
        return timestamp


def _progress(run: RunRecord) -> str:
    logged = [int(record['iter']) for record in run.training]
    done = max([*logged, *(start.iterations or 0 for start in run.starts[-1:])], default=0)
    planned = next((s.max_iterations for s in reversed(run.starts) if s.max_iterations), None)
    if planned is None:
        return f'{done} iterations logged.'
    if done >= planned:
        return f'{done} iterations, complete.'
    return f'{done} of {planned} iterations logged: it was stopped, or still runs.'


def _score_rows(run: RunRecord) -> list[ScoreRow]:
    """Scores before and after; of a run without ``results.json`` from what it logged."""
    if run.results is not None:
        return score_rows(run.results.before, run.results.after, run.results.box_fill)
    if not run.validation:
        return []
    scores, box_fill = _scores_of(run.validation[-1])
    if run.training:
        return score_rows({}, scores, box_fill)
    return score_rows(scores, {}, box_fill)


def _scores_of(record: Scalars) -> tuple[dict[str, float], dict[str, float]]:
    return split_scores({name: value for name, value in record.items() if name not in _TIMES})


def _summary(run: RunRecord, rows: Sequence[ScoreRow]) -> str:
    if not rows:
        return _note('No validation so far: there are no scores.')
    parts = []
    if all(row.after is None for row in rows):
        parts.append(
            _note(
                'Not yet validated since the training began: the scores are those of the weights '
                'that it started from.'
            )
        )
    elif all(row.before is None for row in rows):
        parts.append(_note('The weights before the training were not validated.'))
    tiles = [_tile(row) for row in rows[:2]]
    if run.results is not None and run.results.before and run.results.after:
        worse, count = len(run.results.images_worse), len(run.results.images)
        if count:
            tiles.append(
                f'<div class="tile">Images that became worse<b>{worse} of {count}</b>'
                f'after {run.results.iteration} iterations</div>'
            )
    return f'{"".join(parts)}<div class="tiles">{"".join(tiles)}</div>'


def _tile(row: ScoreRow) -> str:
    scores = [format_score(score) for score in (row.before, row.after) if score is not None]
    notes = []
    if row.gain is not None:
        notes.append(f'<span class="{_judgement(row)}">{format_gain(row.gain)}</span>')
    if row.box_fill is not None:
        notes.append(f'filled box {format_score(row.box_fill)}')
    return (
        f'<div class="tile">{escape(row.name)}<b>{" → ".join(scores)}</b>{" · ".join(notes)}</div>'
    )


def _judgement(row: ScoreRow) -> str:
    return {True: 'good', False: 'bad', None: ''}[is_better(row)]


def _curves(run: RunRecord) -> str:
    losses = _lines(run.training, _matching(run.training, r'(.*\.)?loss.*'))
    rates = _lines(run.training, _matching(run.training, r'lr'))
    charts = [
        line_chart('Loss', losses, 'iteration', may_be_log=True),
        line_chart('Learning rate', rates, 'iteration'),
    ]
    # a run by epoch logs the epoch as the step of its validations
    step = 'epoch' if any('epoch' in record for record in run.training) else 'iteration'
    records = [{**_scores_of(record)[0], 'step': record['step']} for record in run.validation]
    rows = _score_rows(run)
    for group in score_groups(rows):
        if group.axis is not None:
            drawn = [row for row in rows if row.name in group.drawn]
            if group.axis == NOISE_AXIS:  # mIoU itself is that of exact boxes
                drawn = [row for row in rows if row.name in ('mIoU', 'sam/mIoU')] + drawn
            charts.append(line_chart(group.title, _before_and_after(drawn), group.axis))
            continue
        lines = _lines(records, group.drawn)
        if lines:
            ends = lines[0].points[0][0], lines[0].points[-1][0]
            lines += [
                Line(f'{row.name} of the filled box', [(x, row.box_fill) for x in ends], True)
                for row in group.rows[:1]
                if row.box_fill is not None
            ]
            charts.append(line_chart(f'Validation: {group.title}', lines, step))
    return f'<div class="charts">{"".join(charts)}</div>'


def _before_and_after(rows: Sequence[ScoreRow]) -> list[Line]:
    """Scores over the numbers in their names, 0 without one."""
    places = [float(re.sub(r'\D+', '', row.name, count=1) or 0) for row in rows]
    stages = {
        'mIoU before': [row.before for row in rows],
        'mIoU after': [row.after for row in rows],
    }
    return [
        Line(name, [(x, y) for x, y in zip(places, scores, strict=True) if y is not None])
        for name, scores in stages.items()
    ]


def _matching(records: Iterable[Scalars], pattern: str) -> list[str]:
    names = dict.fromkeys(name for record in records for name in record)
    return [name for name in names if re.fullmatch(pattern, name)]


def _lines(records: Sequence[Scalars], names: Iterable[str]) -> list[Line]:
    """A curve of each score that was logged."""
    lines = [
        Line(name, [(record['step'], record[name]) for record in records if name in record])
        for name in names
    ]
    return [line for line in lines if line.points]


def _score_tables(rows: Sequence[ScoreRow]) -> str:
    tables = []
    for group in score_groups(rows):
        has_baseline = any(row.box_fill is not None for row in group.rows)
        heading = ['score', *['filled box'] * has_baseline, 'before', 'after', 'gain']
        cells = []
        for row in group.rows:
            scores = [*[row.box_fill] * has_baseline, row.before, row.after]
            numbers = ''.join(_number(format_score(score)) for score in scores)
            gain = _number(format_gain(row.gain), _judgement(row))
            cells.append(f'<tr><td>{escape(row.name)}</td>{numbers}{gain}</tr>')
        explanation = _note(group.explanation) if group.explanation else ''
        tables.append(
            f'<div><h3>{escape(group.title)}</h3>{explanation}{_table(heading, cells)}</div>'
        )
    return f'<div class="tables">{"".join(tables)}</div>' if tables else ''


def _table(heading: Sequence[str], rows: Iterable[str]) -> str:
    """A table whose first column is text and whose others are numbers."""
    cells = [f'<th>{heading[0]}</th>', *(f'<th class="number">{cell}</th>' for cell in heading[1:])]
    return f'<div class="scroll"><table><tr>{"".join(cells)}</tr>{"".join(rows)}</table></div>'


def _number(text: str, judgement: str = '') -> str:
    return f'<td class="number {judgement}">{text}</td>'


def _pictures(run: RunRecord) -> str:
    if not run.images:
        return ''
    stage = (
        'after' if any('after' in scores for scores in _image_scores(run).values()) else 'before'
    )
    scores = {path: each[stage] for path, each in _image_scores(run).items() if stage in each}
    paths = sorted((path for path in scores if path in run.images), key=scores.__getitem__)
    middle = max(0, (len(paths) - EXAMPLES) // 2)
    parts = []
    shown: set[str] = set()
    for title, chosen in (
        ('Best', paths[::-1][:EXAMPLES]),
        ('Median', paths[middle : middle + EXAMPLES]),
        ('Worst', paths[:EXAMPLES]),
    ):
        new = [path for path in chosen if path not in shown]
        shown.update(new)
        if new:
            parts.append(f'<h3>{title}</h3>' + ''.join(_example(run, path) for path in new))
    if not parts:
        return ''
    when = 'last validation' if stage == 'after' else 'validation before the training'
    return _note(f'Chosen by the mean IoU of their objects in the {when}.') + ''.join(parts)


def _image_scores(run: RunRecord) -> dict[str, dict[str, float]]:
    return run.results.images if run.results is not None else {}


def _example(run: RunRecord, path: str) -> str:
    image, scores = run.images[path], _image_scores(run)[path]
    count = len(image.truth)
    panels = [(f'truth, {count} object{"s" * (count != 1)}', image.truth)]
    if image.before:
        panels.append((f'before, IoU {format_score(scores.get("before"))}', image.before))
    if image.after:
        panels.append((f'after, IoU {format_score(scores.get("after"))}', image.after))
    try:
        pictures = masks_as_data(image, [masks for _, masks in panels])
    except DataError as error:
        return f'<div class="example">{_note(str(error))}</div>'
    figures = ''.join(
        f'<figure><img src="{picture}" alt="{escape(caption)}">'
        f'<figcaption>{escape(caption)}</figcaption></figure>'
        for picture, (caption, _) in zip(pictures, panels, strict=True)
    )
    return f'<div class="example"><div class="trio">{figures}</div><p>{escape(path)}</p></div>'


def _worse_images(run: RunRecord) -> str:
    if run.results is None or not (run.results.before and run.results.after):
        return ''
    worse = run.results.images_worse
    if not worse:
        return _note('None.') if run.results.images else ''
    rows = [
        f'<tr><td>{escape(entry["image"])}</td>{_number(format_score(entry["before"]))}'
        f'{_number(format_score(entry["after"]))}'
        f'{_number(format_gain(entry["after"] - entry["before"]), "bad")}</tr>'
        for entry in worse[:WORSE_SHOWN]
    ]
    more = len(worse) - len(rows)
    rest = _note(f'... and {more} more, in results.json.') if more else ''
    return _table(('image', 'before', 'after', 'change'), rows) + rest


def _reproduction(run: RunRecord) -> str:
    parts = []
    for start in run.starts:
        parts.append(f'<h3>Started {escape(_date(start.timestamp))}</h3>{_start(start)}')
    patterns = ('best_*.pth', 'iter_*.pth', 'epoch_*.pth', 'sam_*tuned.pth')
    names = sorted(path.name for pattern in patterns for path in run.work_dir.glob(pattern))
    weights = _facts([('work dir', str(run.work_dir)), ('checkpoints', ', '.join(names) or 'none')])
    return ''.join(parts) + f'<h3>Result</h3>{weights}'


def _start(start: Start) -> str:
    if start.command is None:
        return _note('How this start was made is not recorded.')
    versions = ', '.join(f'{name} {version}' for name, version in (start.versions or {}).items())
    facts = [
        ('from weights', start.weights or 'none'),
        ('seed', str(start.seed)),
        ('processes', str(start.processes)),
        ('versions', versions),
    ]
    note = ''
    if ' --launcher' in start.command:
        note = _note('With this each process was started; what the user typed is not recorded.')
    return f'<pre>{escape(start.command)}</pre>{note}{_facts(facts)}'


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    entries = [f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in facts]
    return f'<dl>{"".join(entries)}</dl>'
