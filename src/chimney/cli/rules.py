"""`chimney rules`: the catalogue of what the documents demand, listed, filtered, explained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from chimney.verifier import Rule, catalogue
from chimney.verifier.checks import all_checks

_WIDE = 200


class Binds(StrEnum):
    """Who is at fault if a rule is broken."""

    host_stack = "host_stack"
    ndis = "ndis"
    intermediate = "intermediate"
    target = "target"


class Level(StrEnum):
    """How strong a rule is; what one may do, the others have to tolerate."""

    must = "must"
    should = "should"
    may = "may"


def rules(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RULE]...", help="Ids, or the beginning of ids: send.complete")
    ] = None,
    binds: Annotated[Binds | None, typer.Option(help="Only the rules for this part.")] = None,
    level: Annotated[Level | None, typer.Option(help="Only the rules of this strength.")] = None,
    operation: Annotated[str, typer.Option(help="Only the rules of this operation: send, initiate, ...")] = "",
    seed: Annotated[bool, typer.Option("--seed", help="Only the rules of the five documents begun with.")] = False,
    unobservable: Annotated[bool, typer.Option("--unobservable", help="Only what no observer can see.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The rules as JSON.")] = False,
) -> None:
    """List the rules of the interface, filter them, or explain one.

    Succeeds if there is any such rule.
    """
    found = [
        rule
        for rule in _named(names or [])
        if (binds is None or rule.binds == binds.value)
        and (level is None or rule.level == level.value)
        and (not operation or rule.operation == operation)
        and (not seed or rule.seed)
        and (not unobservable or rule.unobservable)
    ]
    if not found:
        typer.echo("chimney rules: no rule matches all of this; `chimney rules` lists them all", err=True)
        raise typer.Exit(1)
    checks = _checks()
    if as_json:
        typer.echo(json.dumps(_as_json(found, checks), indent=2))
    elif len(found) == 1:
        _explain(found[0], checks)
    else:
        wide_console().print(_table(found, checks))


def _named(names: Sequence[str]) -> list[Rule]:
    """The rules of these ids; of those that begin so, where there is no such id."""
    known = catalogue()
    if not names:
        return list(known.values())
    wanted: set[str] = set()
    for name in names:
        # Shells and people write dots for "and so on".
        stem = name.rstrip(".")
        meant = {stem} if stem in known else {rule for rule in known if rule.startswith(stem)}
        if not meant:
            typer.echo(
                f"chimney rules: no rule is called {name}, or begins so; `chimney rules` lists them all", err=True
            )
            raise typer.Exit(1)
        wanted |= meant
    return [rule for rule in known.values() if rule.id in wanted]


def wide_console() -> Console:
    """Standard output; if that is no terminal, lines are as long as they have to be, for other programs to read."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def id_column(found: Iterable[Rule]) -> Column:
    """The first column of a table of rules: ids stay whole, whatever else has to give way."""
    return Column("rule", no_wrap=True, min_width=max(len(rule.id) for rule in found))


def _checks() -> dict[str, list[str]]:
    """Which classes check a rule: rule id -> their dotted names."""
    found: dict[str, list[str]] = {}
    for kind in all_checks():
        for rule in kind.RULES:
            found.setdefault(rule, []).append(f"{kind.__module__}.{kind.__name__}")
    return found


def _as_json(found: Sequence[Rule], checks: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "rules": [
            asdict(rule)
            | {"checked": rule.id in checks, "checks": checks.get(rule.id, [])}
            | {"unobservable": rule.unobservable or None}
            for rule in found
        ],
        "count": len(found),
        "checked": sum(rule.id in checks for rule in found),
        "unobservable": sum(bool(rule.unobservable) for rule in found),
    }


def _explain(rule: Rule, checks: dict[str, list[str]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = [
        ("rule", rule.id),
        ("title", rule.title),
        ("binds", f"{rule.binds} ({rule.level})"),
        ("operation", rule.operation),
        ("demands", rule.rule),
        ("observable", rule.observable),
        ("source", rule.source + (" (one of the five documents begun with)" if rule.seed else "")),
    ]
    if rule.unobservable:
        rows.append(("not checked", rule.unobservable))
    rows += [("checked by", name) for name in checks.get(rule.id, [])]
    for name, text in rows:
        table.add_row(name, text)
    Console().print(table)


def _table(found: Sequence[Rule], checks: dict[str, list[str]]) -> Table:
    caption = f"{len(found)} rules; give an id for the whole of one"
    table = Table(id_column(found), box=None, caption=caption, caption_justify="left")
    for name in ("binds", "level", "checked"):
        table.add_column(name, no_wrap=True)
    table.add_column("title", no_wrap=True, overflow="ellipsis")
    for rule in found:
        state = "yes" if rule.id in checks else "cannot be" if rule.unobservable else "no"
        table.add_row(rule.id, rule.binds, rule.level, state, rule.title)
    return table
