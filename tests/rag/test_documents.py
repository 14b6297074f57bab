"""Files of every kind become documents; those that cannot are told apart from each other."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from vectordb import errors
from vectordb_client.rag import Document, Section
from vectordb_client.rag.documents import SUFFIXES, Unreadable, find_sources, parse_file
from vectordb_client.rag.documents.text import decode

GERMAN = "Die Straße führt über die Brücke; schöne Grüße aus Köln und Zürich, größtenteils für Übungszwecke."
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. Широкая электрификация южных губерний даст толчок."
JAPANESE = "これは日本語の文章です。東京は日本の首都であり、世界で最も人口の多い都市の一つです。"


def _read(path: Path) -> list[Document]:
    return parse_file(path, path.name, path.read_bytes())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "iso-8859-1", "cp1252"])
def test_german_in_every_encoding(encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    assert decode((mark + GERMAN).encode(encoding)).lstrip("\ufeff") == GERMAN


@pytest.mark.parametrize(("text", "encoding"), [(RUSSIAN, "windows-1251"), (JAPANESE * 3, "shift_jis")])
def test_other_scripts_in_old_encodings(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_line_ends_become_one_kind() -> None:
    assert decode(b"one\r\ntwo\rthree\n") == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (bytes(range(256)) * 20, "is binary"),
        (b"\x7fELF\x02\x01\x01" + b"\x00" * 200 + b"text", "is binary"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_what_is_no_text_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(data)


def test_markdown_keeps_its_text_and_knows_its_headings(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    text = "Before.\n\n# Top\n\nOne.\n\n```sh\n# no heading\n```\n\n## Sub ##\n\nTwo.\n\n# Next\nThree."
    path.write_text(text)
    (document,) = _read(path)
    assert document.text == text
    assert [(text[s.start :].partition("\n")[0], s.metadata) for s in document.sections] == [
        ("# Top", {"heading": "Top"}),
        ("## Sub ##", {"heading": "Top > Sub"}),
        ("# Next", {"heading": "Next"}),
    ]


def test_html_is_what_a_reader_sees(tmp_path: Path, files: ModuleType) -> None:
    path = tmp_path / "a.html"
    files.write_html(path, "Köln & more", ["First <b> paragraph.", "Second\n   one."], "iso-8859-1")
    (document,) = _read(path)
    assert document.text == "Köln & more\n\nFirst <b> paragraph.\n\nSecond one."
    assert document.metadata == {"source": "a.html", "title": "Köln & more"}
    assert document.sections == (Section(0, {"heading": "Köln & more"}),)
    path.write_text(
        "<h2>T</h2><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2<br>3</td></tr></table><pre>x\n y</pre>"
    )
    assert _read(path)[0].text == "T\n\na | b\n\n1 | 2 3\n\nx\n y"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_html_may_declare_its_encoding_as_xml_does(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<html><body><h1>Köln</h1><p>Grüße</p></body></html>'
    (document,) = parse_file(Path("page.xhtml"), "page.xhtml", text.encode(encoding))
    assert document.text == "Köln\n\nGrüße"


def test_html_that_is_nested_deeply_is_read_whole_or_not_at_all() -> None:
    def nested(levels: int) -> str:
        text = f"<p>before</p>{'<div>in ' * levels}{'</div>' * levels}<p>after</p>"
        return parse_file(Path("page.html"), "page.html", text.encode())[0].text

    assert nested(400).split() == ["before", *["in"] * 400, "after"]
    for levels in (1200, 5000):
        with pytest.raises(Unreadable, match="nested too deeply"):
            nested(levels)


def test_pdf_has_pages(tmp_path: Path, files: ModuleType) -> None:
    path = tmp_path / "a.pdf"
    files.write_pdf(path, ["The first page tells of rivers.", "The second page tells of bridges."], title="Two pages")
    (document,) = _read(path)
    assert document.metadata == {"source": "a.pdf", "title": "Two pages"}
    first, second = document.sections
    assert (first.metadata, second.metadata) == ({"page": 1}, {"page": 2})
    assert "rivers" in document.text[: second.start]
    assert document.text[second.start :].startswith("The second page")


def test_docx_has_headings_and_tables(tmp_path: Path, files: ModuleType) -> None:
    path = tmp_path / "a.docx"
    files.write_docx(path, "Bridges", ["Old ones.", GERMAN], [["name", "year"], ["Ponte", "1591"]])
    (document,) = _read(path)
    assert document.text == f"Bridges\n\nOld ones.\n\n{GERMAN}\n\nname | year\nPonte | 1591"
    assert document.sections == (Section(0, {"heading": "Bridges"}),)


def test_rows_of_csv_are_documents(tmp_path: Path, files: ModuleType) -> None:
    path = tmp_path / "a.csv"
    rows = [{"id": "x1", "name": "Rhine", "a.b": "two\nlines"}, {"id": "x2", "name": 'the "Elbe"; big', "a.b": ""}]
    for delimiter in ",;\t":
        files.write_csv(path, rows, delimiter)
        first, second = _read(path)
        assert (first.id, first.text) == ("a.csv#x1", "name: Rhine\na.b: two\nlines")
        assert first.metadata == {"source": "a.csv", "name": "Rhine", "a_b": "two\nlines"}
        assert second.text == 'name: the "Elbe"; big'
    path.write_text("name,year\nRhine,1\nElbe,2\n")
    assert [(d.id, d.metadata["row"]) for d in _read(path)] == [("a.csv#row@1", 1), ("a.csv#row@2", 2)]


def test_columns_of_one_name_and_rows_of_separators() -> None:
    found = parse_file(Path("t.csv"), "t.csv", b"name,tag,tag,tag (2)\nA,x,y,z\n,,,\nB,,w,\n")
    assert [(document.id, document.text) for document in found] == [
        ("t.csv#row@1", "name: A\ntag: x\ntag (2): y\ntag (2) (2): z"),
        ("t.csv#row@3", "name: B\ntag (2): w"),
    ]
    with pytest.raises(Unreadable, match="has no rows"):
        parse_file(Path("t.csv"), "t.csv", b"name,tag\n,\n")


def test_rows_of_jsonl_are_documents(tmp_path: Path, files: ModuleType) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"_id": "7", "title": "Rivers", "text": "They flow.", "metadata": {"lang": "en", "n": 3}},
        {"_id": "7", "name": "no text", "tags": ["a", "b"], "deep": {"x": {"y": 1}}},
    ]
    files.write_jsonl(path, rows)
    first, second = _read(path)
    assert (first.id, first.text) == ("a.jsonl#7", "Rivers\nThey flow.")
    assert first.metadata == {"title": "Rivers", "lang": "en", "n": 3, "source": "a.jsonl"}
    assert second.id == "a.jsonl#7@2"
    assert second.text == 'name: no text\ntags: ["a", "b"]\ndeep: {"x": {"y": 1}}'
    assert second.metadata["tags"] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdf", b"%PDF-1.7\n1 0 obj\n<< /Type", "cannot be read"),
        ("a.pdf", b"not a pdf at all", "cannot be read"),
        ("a.docx", b"PK\x03\x04 broken", "cannot be read"),
        ("a.html", b"no tags here", "is no HTML"),
        ("a.html", b"<html><script>x</script></html>", "has no text"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": ', "line 2 is no JSON"),
        ("a.jsonl", b"[1, 2]\n", "line 1 is no JSON object"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "row at line 3 has more values"),
        ("a.csv", b"a,b\n", "has no rows"),
        ("a.txt", b"", "is empty"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse_file(tmp_path / name, name, content)


def test_an_encrypted_pdf_is_named(tmp_path: Path, files: ModuleType) -> None:
    import pypdf

    files.write_pdf(tmp_path / "a.pdf", ["Secret."])
    writer = pypdf.PdfWriter(tmp_path / "a.pdf")
    writer.encrypt("password", algorithm="RC4-128")
    writer.write(tmp_path / "b.pdf")
    with pytest.raises(Unreadable, match="encrypted"):
        _read(tmp_path / "b.pdf")


def test_folders_are_walked(tmp_path: Path) -> None:
    for name in ("b.txt", "sub/deep/a.md", ".git/config.txt", "sub/.hidden.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    document = Document("own", "text")
    found = find_sources([tmp_path, str(tmp_path / "b.txt"), document, "nowhere.txt"])
    assert [file.id for file in found.files] == ["b.txt", "sub/deep/a.md"]
    assert (found.skipped, found.missing, found.documents) == (["picture.png"], ["nowhere.txt"], [document])
    assert [file.id for file in find_sources(tmp_path / "sub" / "deep" / "a.md").files] == ["a.md"]
    assert ".pdf" in SUFFIXES


def test_names_that_are_no_utf8_are_found(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    (file,) = find_sources(tmp_path).files
    assert file.id == "caf?.txt"
    assert file.path.read_text() == "text"


@pytest.mark.parametrize("wrong", [3, [3], [None]])
def test_sources_of_other_types_are_refused(wrong: object) -> None:
    with pytest.raises(errors.InvalidArgument, match="Document"):
        find_sources(wrong)


def test_a_missing_parser_is_named_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pypdf", None)
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(errors.FailedPrecondition, match=r"pip install 'vectordb-engine\[documents\]'") as raised:
        find_sources(tmp_path)
    assert raised.value.missing == "pypdf"
