"""A table of text, as every renderer draws it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: its head.
        short: its head where the page is narrow; empty for the same.
        number: whether cells are set flush right.
        minor: whether it may go where the page is narrow.
    """

    title: str
    number: bool = False
    minor: bool = False
    short: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        key: short name.
        title: heading.
        note: a sentence below it; may be empty.
        columns: from left to right.
        rows: as many cells in each as there are columns.
    """

    key: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
