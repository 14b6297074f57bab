"""Writes texts into real files of every kind that can be read back."""

from __future__ import annotations

import csv
import html
import io
import json
from pathlib import Path
from typing import Any

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "iso-8859-1", "windows-1251", "shift_jis", "utf-8")


def write_pdf(path: Path, pages: list[str], title: str | None = None) -> None:
    """One text a page, in lines of at most 90 characters, in a font of the PDF standard (Latin only)."""
    from reportlab.lib.pagesizes import A4
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    if title:
        canvas.setTitle(title)
    for page in pages:
        lines = canvas.beginText(40, 800)
        lines.setFont("Helvetica", 9)
        line = ""
        for word in page.split():
            if len(line) + len(word) > 90:
                lines.textLine(line)
                line = ""
            line += word + " "
        lines.textLine(line)
        canvas.drawText(lines)
        canvas.showPage()
    canvas.save()


def write_docx(path: Path, heading: str, paragraphs: list[str], table: list[list[str]] | None = None) -> None:
    """A heading, paragraphs under it, and a table."""
    import docx

    document = docx.Document()
    document.add_heading(heading, level=1)
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if table:
        grid = document.add_table(rows=0, cols=len(table[0]))
        for row in table:
            for cell, text in zip(grid.add_row().cells, row, strict=True):
                cell.text = text
    document.save(str(path))


def write_html(path: Path, title: str, paragraphs: list[str], encoding: str = "utf-8") -> None:
    """A page with a title, a heading, paragraphs, and a script and navigation that nobody should find."""
    body = "".join(f"<p>{html.escape(paragraph)}</p>\n" for paragraph in paragraphs)
    text = (
        f'<!doctype html><html><head><meta charset="{encoding}"><title>{html.escape(title)}</title>'
        "<script>var unseen = 'scriptword';</script></head>"
        f"<body><nav>navword</nav><h1>{html.escape(title)}</h1>\n{body}</body></html>"
    )
    path.write_bytes(text.encode(encoding, "xmlcharrefreplace"))


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> None:
    """Rows under the names of their columns."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8", newline="")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_broken_pdf(path: Path) -> None:
    """A pdf that ends in the middle of its first object."""
    path.write_bytes(b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0")


def write_binary(path: Path) -> None:
    """Bytes that are no text in any encoding."""
    path.write_bytes(bytes(range(256)) * 64)
