"""A campaign's coverage as a picture: an SVG, or a page with the picture, the reasons and what was missed.

Both stand alone: nothing is loaded from elsewhere. They follow the reader's choice of a light or a dark screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from chimney.sim import coverage
from chimney.sim.coverage import EVENT_GROUPS, EVENTS, PHASES, STATES, UNREACHABLE, unreachable
from chimney.sim.outcome import Cell

_CELL, _ROW = 19, 22
_GAP = 10  # between states, and between groups of events
_LEFT, _TOP, _RIGHT, _BELOW = 246, 176, 20, 74
# Visits, one class of colour per power of ten.
_DECADES = ("1", "10", "100", "1,000", "10,000", "100,000", "1,000,000")
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"

# Light: from pale to deep. Dark: from dim to bright. Both get their contrast from lightness, for those who see no hue.
_LIGHT = ("#d3ece6", "#aaddd1", "#7cc8b8", "#4dab9b", "#268a7c", "#0f685e", "#053d37")
_DARK = ("#173f3b", "#1c5751", "#22736a", "#2c9184", "#43b0a0", "#79cfbf", "#bdeee2")


def _theme(
    paper: str, ink: str, faint: str, line: str, hatch: str, missed: str, wrong: str, ramp: tuple[str, ...]
) -> str:
    rules = [
        f".paper{{fill:{paper}}}",
        f".ink{{fill:{ink}}}",
        f".faint{{fill:{faint}}}",
        f".line{{stroke:{line}}}",
        f".stripe{{stroke:{hatch}}}",
        f".missed{{fill:{paper};stroke:{missed}}}",
        f".wrong{{fill:{wrong}}}",
    ]
    return "".join(rules + [f".v{step}{{fill:{colour}}}" for step, colour in enumerate(ramp)])


_STYLE = (
    f"text{{font-family:{_FONT}}}.missed{{stroke-width:1.6}}.cell:hover{{stroke:#f0a202;stroke-width:2}}"
    + _theme("#ffffff", "#1f2933", "#66727f", "#d5dbe1", "#cdd4db", "#d9480f", "#d6204e", _LIGHT)
    + "@media (prefers-color-scheme:dark){"
    + _theme("#14191f", "#e6eaee", "#96a3b0", "#36404a", "#3a444e", "#ff9d4d", "#ff5c7f", _DARK)
    + "}"
)


def svg(seen: Mapping[Cell, int], title: str = "What the simulator has visited") -> str:
    """The heat map: a row for each event, a column for each phase of a hand-over within each state. Hovering over a
    cell tells its visits, or why it cannot be reached.
    """
    states, rows = len(STATES), len(EVENTS)
    width = _LEFT + states * len(PHASES) * _CELL + (states - 1) * _GAP + _RIGHT
    bottom = _TOP + rows * _ROW + (len(EVENT_GROUPS) - 1) * _GAP
    height = bottom + _BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<line class="stripe" x1="0" y1="0" x2="0" y2="5" stroke-width="2"/></pattern></defs>',
        f'<rect class="paper" width="{width}" height="{height}"/>',
        _text(24, 38, title, size=22, bold=True),
        _text(24, 62, str(coverage.totals(seen)), size=13, kind="faint"),
        _text(_LEFT, 96, "state of the connection, and within it the phase of the hand-over", size=12, kind="faint"),
        _text(24, _TOP - 12, "what happened to it", size=12, kind="faint"),
        *_columns(bottom),
        *_rows(seen),
        *_key(bottom + 24),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _left_of(state: int) -> int:
    return _LEFT + state * (len(PHASES) * _CELL + _GAP)


def _columns(bottom: int) -> Iterator[str]:
    for index, (state, meaning) in enumerate(STATES.items()):
        left = _left_of(index)
        middle = left + len(PHASES) * _CELL / 2
        yield _text(middle, 116, state, size=12, bold=True, anchor="middle", tip=meaning)
        for phase_index, (phase, phase_meaning) in enumerate(PHASES.items()):
            x = left + phase_index * _CELL + _CELL / 2 + 4
            yield _text(x, _TOP - 6, phase, size=9.5, kind="faint", turn=-60, tip=phase_meaning)
        if index:
            x = left - _GAP / 2
            yield f'<line class="line" x1="{x:g}" y1="{_TOP}" x2="{x:g}" y2="{bottom}"/>'


def _rows(seen: Mapping[Cell, int]) -> Iterator[str]:
    top = _TOP
    for group, events in EVENT_GROUPS.items():
        height = len(events) * _ROW
        middle = top + height / 2
        yield _text(32, middle, group, size=10.5, kind="faint", turn=-90, anchor="middle")
        yield f'<line class="line" x1="40" y1="{top + 2}" x2="40" y2="{top + height - 2}"/>'
        for event, meaning in events.items():
            yield _text(_LEFT - 10, top + 15, event, size=12, anchor="end", tip=meaning)
            for index, state in enumerate(STATES):
                for phase_index, phase in enumerate(PHASES):
                    cell = Cell(state, event, phase)
                    yield _square(_left_of(index) + phase_index * _CELL, top, cell, seen.get(cell, 0))
            top += _ROW
        top += _GAP


def _square(x: float, y: float, cell: Cell, count: int) -> str:
    reason = unreachable(cell)
    if reason is not None:
        kind = 'class="cell wrong"' if count else 'class="cell" fill="url(#hatch)"'
        says = f"cannot be: {reason}" + (f"\nVisited all the same: {count:,}" if count else "")
    elif count:
        kind, says = f'class="cell v{_decade(count)}"', f"{count:,} visits"
    else:
        kind, says = 'class="cell missed"', "not visited"
    where = f"{cell.event} in {cell.state}, phase {cell.phase}"
    return _box(x, y, kind, f"{where}\n{says}")


def _box(x: float, y: float, kind: str, tip: str = "") -> str:
    shape = f'<rect {kind} x="{x + 1:g}" y="{y + 1:g}" width="{_CELL - 2}" height="{_ROW - 2}" rx="2.5"'
    return f"{shape}><title>{escape(tip)}</title></rect>" if tip else f"{shape}/>"


def _decade(count: int) -> int:
    return min(len(str(count)), len(_DECADES)) - 1


def _key(top: int) -> Iterator[str]:
    """The legend."""
    x = float(_LEFT)
    yield _text(_LEFT - 10, top + 15, "visits, at least", size=12, kind="faint", anchor="end")
    for step, least in enumerate(_DECADES):
        yield _box(x, top, f'class="v{step}"')
        yield _text(x + _CELL + 3, top + 15, least, size=11, kind="faint")
        x += _CELL + 16 + 6.6 * len(least)
    for kind, says in (
        ('class="missed"', "not visited"),
        ('fill="url(#hatch)"', "cannot be reached"),
        ('class="wrong"', "visited all the same: a finding"),
    ):
        x += 14
        yield _box(x, top, kind)
        yield _text(x + _CELL + 3, top + 15, says, size=11, kind="faint")
        x += _CELL + 6.2 * len(says)
    yield _text(
        _LEFT, top + 38, "Point at a cell, a state, a phase or an event to read what it means.", size=11, kind="faint"
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: float,
    kind: str = "ink",
    bold: bool = False,
    anchor: str = "",
    turn: int = 0,
    tip: str = "",
) -> str:
    attributes = f'class="{kind}" x="{x:g}" y="{y:g}" font-size="{size:g}"'
    if bold:
        attributes += ' font-weight="600"'
    if anchor:
        attributes += f' text-anchor="{anchor}"'
    if turn:
        attributes += f' transform="rotate({turn} {x:g} {y:g})"'
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return f"<text {attributes}>{escape(words)}{title}</text>"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0 auto; padding: 1.5rem; max-width: 82rem; font: 15px/1.5 {font}; color: #1f2933; background: #fff; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }}
.map {{ overflow-x: auto; }}
.figures {{ display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; margin: 0 1.5rem 1rem; }}
.figures dt {{ color: #66727f; font-size: .85rem; }}
.figures dd {{ margin: 0; font-size: 1.3rem; font-weight: 600; }}
table {{ border-collapse: collapse; }}
td, th {{ text-align: left; vertical-align: top; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid #d5dbe1; }}
td.count {{ text-align: right; font-variant-numeric: tabular-nums; }}
@media (prefers-color-scheme: dark) {{
body {{ color: #e6eaee; background: #14191f; }}
.figures dt {{ color: #96a3b0; }}
td, th {{ border-color: #36404a; }}
}}
</style>
</head>
<body>
{figures}
<div class="map">
{picture}</div>
<h2>What cannot be reached, and why</h2>
<table><tr><th>cells</th><th>which</th><th>reason</th></tr>
{reasons}
</table>
<h2>What can be reached and was not</h2>
{missed}
</body>
</html>
"""


def page(
    seen: Mapping[Cell, int],
    title: str = "What the simulator has visited",
    figures: Mapping[str, str] | None = None,
) -> str:
    """The heat map as an HTML page, with every reason and every missed cell below it; ``figures`` of the campaign (a
    name, and what to show) stand above.
    """
    shown = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}</dd></div>" for n, v in (figures or {}).items())
    return _PAGE.format(
        title=escape(title),
        font=_FONT,
        figures=f'<dl class="figures">{shown}</dl>' if shown else "",
        picture=svg(seen, title),
        reasons="\n".join(_reasons()),
        missed=_missed(seen),
    )


def _reasons() -> Iterator[str]:
    for group in UNREACHABLE:
        count = sum(unreachable(cell) == group.reason for cell in coverage.cells())
        which = "; ".join(
            (
                _some(group.events, EVENTS, "events"),
                _some(group.states, STATES, "states"),
                _some(group.phases, PHASES, "phases"),
            )
        )
        yield f'<tr><td class="count">{count}</td><td>{escape(which)}</td><td>{escape(group.reason)}</td></tr>'


def _some(names: frozenset[str], among: Mapping[str, str], what: str) -> str:
    """A set of names in words, in the table's order, and by what is not in it if that is shorter."""
    left_out = [name for name in among if name not in names]
    if not left_out:
        return f"all {what}"
    if len(left_out) < len(names):
        return f"all {what} but {', '.join(left_out)}"
    return ", ".join(name for name in among if name in names)


def _missed(seen: Mapping[Cell, int]) -> str:
    by_event: dict[str, list[str]] = {}
    for cell in coverage.missed(seen):
        by_event.setdefault(cell.event, []).append(f"{cell.state} ({cell.phase})")
    if not by_event:
        return "<p>Nothing: every cell that can be reached was visited.</p>"
    rows = (f"<tr><td>{escape(event)}</td><td>{', '.join(cells)}</td></tr>" for event, cells in by_event.items())
    return f"<table><tr><th>event</th><th>states and phases</th></tr>\n{''.join(rows)}</table>"


def write(
    path: Path,
    seen: Mapping[Cell, int],
    title: str = "What the simulator has visited",
    figures: Mapping[str, str] | None = None,
) -> None:
    """Write `svg` or `page`, as the path's ending says (.svg, .html). Raises ValueError for another one, OSError."""
    if path.suffix == ".svg":
        content = svg(seen, title)
    elif path.suffix in (".html", ".htm"):
        content = page(seen, title, figures)
    else:
        raise ValueError(f"{path}: a heat map is written as .svg or .html")
    path.write_text(content, encoding="utf-8")
