"""The verdict in a terminal. Colour is never the only sign, and `NO_COLOR` is respected by rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpaudit.record import AuditRecord, GateResult
from dpaudit.reports import tables, view, words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDE = 110
_STYLES = {
    "REFUTED": "bold red",
    "FAIL": "bold red",
    "NOT CAUGHT": "bold red",
    "NOT REFUTED": "bold blue",
    "CAUGHT": "bold blue",
    "PASS": "bold blue",
}


def verdict_table(record: AuditRecord, *, reasons: bool = True) -> Table:
    """One row per target: status, claim, best lower bound, ceiling, what decided, and why.

    Args:
        record: the audit.
        reasons: False leaves the last column out, for narrow terminals.
    """
    numeric = ("Claim ε", "Lower bound", "Ceiling")
    table = _table(
        ("Status", "Target", *numeric, "Decided by", *(("Reason",) if reasons else ())), numeric=numeric
    )
    for row in view.verdict_rows(record):
        cells = (row.target, row.claim, row.epsilon_lower, row.ceiling, row.decided_by)
        table.add_row(_status(row.status), *map(_plain, (*cells, row.reason) if reasons else cells))
    return table


def gate_table(result: GateResult, *, reasons: bool = True) -> Table:
    """One row per gate, those that stop the release first.

    Args:
        result: what a policy said.
        reasons: False leaves the last column out, for narrow terminals.
    """
    rows = tables.gates(result)
    names = [name for name, _ in rows.columns if reasons or name != "Why"]
    table = _table(tuple(names), numeric=("Measured", "Limit"))
    for row in rows.rows:
        table.add_row(
            *(
                _status(text) if name == "Status" else _plain(text)
                for name, text in zip(names, row, strict=False)
            )
        )
    return table


def print_summary(record: AuditRecord, console: Console, gate: GateResult | None = None) -> None:
    """Print the verdict, the table, what it does not say, and the gates where a policy was given."""

    def say(text: str, style: str = "") -> None:
        console.print(_plain(text), style=style)

    say(f"{record.status}: {words.headline(record)}", _STYLES.get(record.status, "bold yellow"))
    wide = console.width >= WIDE
    console.print(verdict_table(record, reasons=wide))
    for row in () if wide else view.verdict_rows(record):
        say(f"{row.target}: {row.reason}")
    say(words.control_sentence(record))
    say(f"{words.not_said(record)[0]}", "dim")
    if missing := words.trials_sentence(record):
        say(missing, "bold yellow")
    if gate is not None:
        console.print(gate_table(gate, reasons=wide))
        if not wide:
            for why in tables.gates(gate).rows:
                if why[6] != "PASS":
                    say(f"{why[0]} of {why[1]}: {why[7]}")
        say(
            f"Gate: {gate.status} (exit {gate.exit_code}). {gate.reason}",
            _STYLES.get(gate.status, "bold yellow"),
        )


def printable(text: str) -> str:
    """Replace what a terminal would obey rather than show."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _status(status: str) -> Text:
    from rich.text import Text

    return Text(status, style=_STYLES.get(status, "bold yellow"))


def _plain(text: str) -> Text:
    """Text that is shown as it is: names from a record are no markup."""
    from rich.text import Text

    return Text(printable(text))


def _table(names: tuple[str, ...], *, numeric: tuple[str, ...]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(
            name,
            justify="right" if name in numeric else "left",
            no_wrap=name in ("Status", *numeric),
            overflow="fold",
        )
    return table
