"""Markdown of texts that may hold any letters, and of tables."""

from __future__ import annotations

import re

from wastelens.studies.report_tables import ReportTable


def table_text(shown: ReportTable) -> str:
    """Return a table; its marked cells are bold."""
    rows = [
        [
            f"**{one_line(text)}**" if (place, column) in shown.marks else one_line(text)
            for column, text in enumerate(row)
        ]
        for place, row in enumerate(shown.rows)
    ]
    rule = [":---", *["---:"] * (len(shown.columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(map(one_line, shown.columns)), rule, *rows])


def one_line(value: object) -> str:
    """Return text on one line in which no name starts a tag, a link, a column or emphasis, still readable."""
    escaped = re.sub(r"([\\|<>&`*~])|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", str(value)).replace("](", "]\\(")
    return " ".join(escaped.split())


def line_start(value: object) -> str:
    """Return text for the beginning of a line, where it starts no list, heading, rule or reference either."""
    return re.sub(r"^(?=[-+#=\[:])|(?<=^\d)(?=[.)])|(?<=^\d\d)(?=[.)])", r"\\", one_line(value))
