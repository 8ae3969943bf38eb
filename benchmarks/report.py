"""The results as a table, as JSON, as a picture and in docs/benchmarks.md."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from prettytable import PrettyTable

from .machine import multiplies_bfloat16_fast
from .peers import ROOT
from .rows import Measurement, Row

RESULTS = ROOT / 'benchmarks' / 'results.json'
DOCUMENT = ROOT / 'docs' / 'benchmarks.md'
PICTURE = ROOT / 'docs' / 'images' / 'benchmarks.png'
BEGIN = '<!-- written by python -m benchmarks: begin -->'
END = '<!-- written by python -m benchmarks: end -->'

Result = dict[str, Any]
"""A row of ``results.json``; docs/benchmarks.md says what its keys are."""


def result_of(row: Row, measured: Measurement, machine: str) -> Result:
    """The record of a row that was measured."""
    wrong = row.max_error is not None and not (measured.error or 0.0) <= row.max_error
    met = None
    if row.required is not None:
        enough = measured.ratio <= row.required if row.at_most else measured.ratio >= row.required
        met = enough and not wrong
    return _rounded(
        {
            **_about(row, machine),
            'ratio': measured.ratio,
            'spread': list(measured.spread),
            'error': measured.error,
            'met': met,
            'wrong': wrong,
            'unit': measured.unit,
            'ours': measured.ours,
            'theirs': measured.theirs,
            'wall_ratio': measured.wall_ratio,
            'wall_spread': measured.wall_spread and list(measured.wall_spread),
            **measured.facts,
        }
    )


def left_out(row: Row, reason: str, machine: str) -> Result:
    """The record of a row that could not be measured."""
    return {**_about(row, machine), 'ratio': None, 'met': None, 'wrong': False, 'left_out': reason}


def _about(row: Row, machine: str) -> Result:
    required_here = row.required is not None and (
        not row.needs_fast_bf16 or multiplies_bfloat16_fast()
    )
    return {
        'row': row.name,
        'text': row.text,
        'required': row.required,
        'at_most': row.at_most,
        'required_here': required_here,
        'max_error': row.max_error,
        'error_of': row.error_of,
        'machine': machine,
        'date': date.today().isoformat(),
    }


def _rounded(value: Any) -> Any:
    """Numbers with four digits: more would only be noise."""
    if isinstance(value, float):
        return float(f'{value:.4g}')
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


def table(results: Sequence[Result]) -> PrettyTable:
    """For the screen."""
    header, rows = _cells(results)
    shown = PrettyTable(header)
    shown.align = 'l'
    shown.add_rows(rows)
    return shown


def _cells(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    header = ['row', 'ratio', 'spread', 'wall', 'required', 'met', 'error', 'ours', 'theirs']
    rows = []
    for result in results:
        if result['ratio'] is None:
            rows.append([result['text'], f'left out: {result["left_out"]}', *[''] * 7])
            continue
        rows.append(
            [
                result['text'],
                f'{result["ratio"]:.3g}',
                _range(result['spread']),
                '' if result['wall_ratio'] is None else f'{result["wall_ratio"]:.3g}',
                _requirement(result),
                _verdict(result),
                '' if result['error'] is None else f'{result["error"]:.1e} ({result["error_of"]})',
                f'{result["ours"]:.3g} {result["unit"]}',
                f'{result["theirs"]:.3g} {result["unit"]}',
            ]
        )
    return header, rows


def _range(spread: Sequence[float]) -> str:
    return '' if spread[0] == spread[1] else f'{spread[0]:.3g} to {spread[1]:.3g}'


def _requirement(result: Result) -> str:
    if result['required'] is None:
        return ''
    return f'{"<=" if result["at_most"] else ">="} {result["required"]:g}'


def _verdict(result: Result) -> str:
    if result['wrong']:
        return f'WRONG: error above {result["max_error"]:g}'
    if result['met'] is None:
        return ''
    if result['met']:
        return 'yes'
    return 'no' if result['required_here'] else 'no; required with amx_bf16'


def read_results() -> list[Result]:
    """What was measured before; nothing if there is none."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def merged(old: Sequence[Result], new: Sequence[Result], order: Sequence[str]) -> list[Result]:
    """The new results, and the old ones of other rows that still exist, in the given order."""
    by_name = {result['row']: result for result in [*old, *new]}
    return [by_name[name] for name in order if name in by_name]


def write(
    results: Sequence[Result],
    results_path: Path = RESULTS,
    document: Path = DOCUMENT,
    picture: Path = PICTURE,
) -> None:
    """Write the JSON, the picture, and the part of the document between its two markers.

    Raises:
        ValueError: the document lacks a marker.
    """
    results_path.write_text(json.dumps(results, indent=1) + '\n')
    draw(results, picture)
    text = document.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f'{document}: expected {BEGIN} and {END} once each')
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    document.write_text(f'{before}{BEGIN}\n{markdown(results)}{END}{after}')


def markdown(results: Sequence[Result]) -> str:
    """The table, a part for each machine and day on which rows were measured."""
    parts = []
    for place in dict.fromkeys((result['machine'], result['date']) for result in results):
        header, rows = _cells([r for r in results if (r['machine'], r['date']) == place])
        lines = [header, ['---'] * len(header), *rows]
        parts.append(f'{place[0]}; {place[1]}.\n\n')
        parts.append(''.join(f'| {" | ".join(line)} |\n' for line in lines) + '\n')
    return '\n' + ''.join(parts)


def draw(results: Sequence[Result], path: Path) -> None:
    """Each ratio as a bar with its spread and a mark at what is required; logarithmic.

    Ratios that have to be small (memory, overhead) are drawn as their reciprocals, so that longer
    is better in every bar.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    shown = [result for result in results if result['ratio'] is not None][::-1]
    figure, axis = plt.subplots(figsize=(9.5, 0.32 * len(shown) + 1.2), layout='constrained')
    for place, result in enumerate(shown):
        ratio = _gain(result, result['ratio'])
        ends = sorted(_gain(result, value) for value in result['spread'])
        axis.barh(place, ratio, color=_COLOURS[_state(result)], height=0.7)
        axis.plot(ends, [place, place], color='black', linewidth=1)
        if result['required'] is not None:
            axis.plot(_gain(result, result['required']), place, '|', color='black', markersize=14)
    axis.set_xscale('log')
    axis.axvline(1, color='gray', linewidth=0.8)
    axis.set_yticks(range(len(shown)), [result['text'] for result in shown], fontsize=8)
    axis.set_xlabel('times faster than the peer, or times less memory; |: required', fontsize=8)
    axis.margins(y=0.01)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


_COLOURS = {'met': '#3b7a57', 'missed': '#b5482a', 'not required': '#8aa0b0'}


def _state(result: Mapping[str, Any]) -> str:
    if result['met']:
        return 'met'
    if result['wrong'] or result['required_here']:
        return 'missed'
    return 'not required'


def _gain(result: Mapping[str, Any], ratio: float) -> float:
    return 1 / max(ratio, 1e-9) if result['at_most'] else ratio
