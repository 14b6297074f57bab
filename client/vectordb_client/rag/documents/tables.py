"""Files of rows: csv and jsonl. Each row is a document, so that an edit of one changes only that one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from vectordb.errors import InvalidArgument
from vectordb.validate import check_metadata
from vectordb_client.rag.documents.text import Unreadable, decode
from vectordb_client.rag.types import Document

_ID_FIELDS = ("_id", "id")
_TEXT_FIELDS = ("text", "content", "body")
_MAX_VALUE = 1000
"""Characters of a value that is kept as metadata too; longer ones are text only."""
_DELIMITERS = ",;\t|"
_SAMPLE = 50


def parse_csv(file_id: str, data: bytes) -> list[Document]:
    """A document a row, its text one line ``column: value`` a column; the first row names the columns.

    The delimiter is found out. Quoted values may span lines.

    Raises:
        Unreadable: There is no row, or a row has more values than there are columns.
    """
    text = decode(data)
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 24))
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows.fieldnames = _different(rows.fieldnames or ())
    documents = list(_documents(file_id, _csv_rows(rows)))
    if not documents:
        raise Unreadable("has no rows below its first line, which names the columns")
    return documents


def _different(names: Iterable[str]) -> list[str]:
    """The names of columns, those that came before numbered: of two columns of one name none is lost."""
    found: dict[str, None] = {}
    for name in names:
        number, one = 1, name
        while one in found:
            number += 1
            one = f"{name} ({number})"
        found[one] = None
    return list(found)


def _delimiter(text: str) -> str:
    """The one that cuts the first rows into the most columns, equally many in each; else the comma."""
    best, columns = ",", 1
    for delimiter in _DELIMITERS:
        try:
            rows = list(islice(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), _SAMPLE))
        except csv.Error:
            continue
        widths = {len(row) for row in rows if row}
        if len(widths) == 1 and (width := widths.pop()) > columns:
            best, columns = delimiter, width
    return best


def _csv_rows(rows: csv.DictReader[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if None in row:
            raise Unreadable(f"row at line {rows.line_num} has more values than the first line has columns")
        yield {name: value for name, value in row.items() if value not in (None, "")}


def parse_jsonl(file_id: str, data: bytes) -> list[Document]:
    """A document a line: its ``text`` (after its ``title``) where it has one, else all its fields.

    ``metadata`` and other short fields become the document's metadata.

    Raises:
        Unreadable: A line is no JSON object.
    """
    return list(_documents(file_id, _json_rows(decode(data))))


def _json_rows(text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise Unreadable(f"line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise Unreadable(f"line {number} is no JSON object but a {type(row).__name__}")
        yield row


def _documents(file_id: str, rows: Iterable[dict[str, Any]]) -> Iterator[Document]:
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        if not row:
            continue  # Spreadsheets are exported with rows of separators alone.
        own = next((str(row.pop(name)) for name in _ID_FIELDS if row.get(name) not in (None, "")), None)
        if own is None or own in seen:
            # Without an id of its own a row is known by its place, which changes when rows are put before it.
            key, place = f"{own or 'row'}@{number}", {"row": number}
        else:
            key, place = own, {}
        seen.add(key)
        yield Document(f"{file_id}#{key}", _text(row), _metadata(row) | {"source": file_id} | place)


def _text(row: Mapping[str, Any]) -> str:
    for name in _TEXT_FIELDS:
        if isinstance(row.get(name), str):
            title = row.get("title")
            return f"{title}\n{row[name]}" if isinstance(title, str) and title else str(row[name])
    return "\n".join(f"{name}: {_shown(value)}" for name, value in row.items())


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row can be filtered by: short values, under names that a filter can address."""
    flat = {name: value for name, value in row.items() if name not in (*_TEXT_FIELDS, "metadata")}
    nested = row.get("metadata")
    found: dict[str, Any] = {}
    for name, value in {**flat, **(nested if isinstance(nested, dict) else {})}.items():
        key = str(name).strip().replace(".", "_")[:100]
        if not key or key.startswith("_") or (isinstance(value, str) and len(value) > _MAX_VALUE):
            continue
        try:
            check_metadata({key: value})
        except InvalidArgument:
            continue  # Such as null beside numbers in a list: still part of the text.
        found[key] = value
    return found
