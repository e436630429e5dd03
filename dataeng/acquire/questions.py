"""Questions with their accepted answers: Stack Exchange's Posts.xml, and JSONL.

Posts.xml has one ``<row …/>`` a line. Each line is parsed by itself, so there is no document type, no entity
of one, and no state that grows; questions wait for their answers in a temporary file.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from lxml import etree
from resiliparse.extract.html2text import extract_plain_text

from dataeng.acquire.ready import Place, dropped, kept, lines
from dataeng.sources import Row

if TYPE_CHECKING:
    from dataeng.acquire.ingest import Config

_ROW = re.compile(rb"\s*<row\s")
_TAGS = re.compile(r"[<|]([^<>|]+)(?=[>|])")
_HTML_CHARACTERS = 1 << 20
_TABLE = "CREATE TABLE waiting (answer TEXT PRIMARY KEY, question TEXT, start INT, length INT) WITHOUT ROWID"


def plain(html: str) -> str:
    """The text of a post's HTML, its paragraphs, lists and code blocks on lines of their own."""
    return str(extract_plain_text(html[:_HTML_CHARACTERS], preserve_formatting=True, main_content=False))


def _post(line: bytes) -> dict[str, str] | None:
    """The attributes of one ``<row …/>``; None where it is damaged."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return {str(key): str(value) for key, value in etree.fromstring(line.strip(), parser).attrib.items()}
    except (etree.LxmlError, ValueError):
        return None


def _pair(config: Config, place: Place, question: Mapping[str, str], answer: Mapping[str, str]) -> Row:
    own_id = question["Id"]
    title = question.get("Title", "")
    text = "\n\n".join([title, plain(question.get("Body", "")), plain(answer.get("Body", ""))])
    metadata = {
        "title": title,
        "tags": ", ".join(_TAGS.findall(question.get("Tags", ""))),
        "score": question.get("Score"),
        "answer_score": answer.get("Score"),
        "answer_id": answer.get("Id"),
        "licence": answer.get("ContentLicense") or question.get("ContentLicense"),
    }
    url = config.question_url.replace("{id}", own_id) if config.question_url else None
    return kept(config, place, text, own_id, metadata, url=url, date=question.get("CreationDate"))


def post_rows(path: str, name: str, config: Config) -> Iterator[Row]:
    """The questions of a Posts.xml: kept with the accepted answer, else dropped (``no_accepted_answer``).

    Other posts are part of no row. An answer that stands before its question counts as missing.
    """
    with tempfile.NamedTemporaryFile(prefix="millrace-posts-") as file, closing(sqlite3.connect(file.name)) as waiting:
        waiting.execute("PRAGMA journal_mode=OFF")
        waiting.execute(_TABLE)
        for offset, length, line in lines(path, config.line_bytes):
            if line is not None and not _ROW.match(line):
                continue
            post = _post(line) if line is not None else None
            place = Place(name, offset, length)
            if post is None or not post.get("Id"):
                yield dropped("damaged", config, place)
            elif post.get("PostTypeId") == "1" and not post.get("AcceptedAnswerId"):
                yield dropped("no_accepted_answer", config, place, post["Id"])
            elif post.get("PostTypeId") == "1":
                values = (post["AcceptedAnswerId"], json.dumps(post), offset, length)
                if not waiting.execute("INSERT OR IGNORE INTO waiting VALUES (?, ?, ?, ?)", values).rowcount:
                    yield dropped("no_accepted_answer", config, place, post["Id"])
            elif post.get("PostTypeId") == "2":
                found = waiting.execute("SELECT question, start, length FROM waiting WHERE answer = ?", (post["Id"],))
                if row := found.fetchone():
                    waiting.execute("DELETE FROM waiting WHERE answer = ?", (post["Id"],))
                    yield _pair(config, Place(name, row[1], row[2]), json.loads(row[0]), post)
        for question, start, length in waiting.execute("SELECT question, start, length FROM waiting ORDER BY start"):
            yield dropped("no_accepted_answer", config, Place(name, start, length), json.loads(question)["Id"])


def _text(value: Any) -> str:
    """The text of a question or answer: a string, or an object with ``text``, ``body`` or ``title`` and ``body``."""
    if isinstance(value, Mapping):
        return "\n\n".join(str(value[key]) for key in ("title", "text", "body") if value.get(key))
    return value if isinstance(value, str) else ""


def accepted_of(record: Mapping[str, Any], config: Config) -> Any:
    """The accepted answer of a record, or None.

    It is the one marked ``accepted``, or the one that the record's own field ``accepted`` names by its id or its
    place in the list; without a list of answers, that field is the answer itself.
    """
    answers, named = record.get(config.answers_field), record.get(config.accepted_field)
    if not isinstance(answers, list):
        return named if isinstance(named, str | Mapping) else answers
    for answer in answers:
        if isinstance(answer, Mapping) and (
            answer.get("accepted") is True or (named is not None and answer.get("id") == named)
        ):
            return answer
    if isinstance(named, int) and not isinstance(named, bool) and 0 <= named < len(answers):
        return None if isinstance(answers[named], Mapping) and "id" in answers[named] else answers[named]
    return named if isinstance(named, str) and named in answers else None


def question_row(record: Any, config: Config, place: Place) -> Row:
    """The row of one JSON record."""
    if not isinstance(record, Mapping):
        return dropped("damaged", config, place)
    own_id = record.get(config.id_field)
    own_id = None if own_id is None else str(own_id)
    question, answer = _text(record.get(config.question_field)), _text(accepted_of(record, config))
    if not question or not answer:
        return dropped("no_accepted_answer" if question else "no_text", config, place, own_id)
    metadata = {key: record.get(key) for key in config.metadata_fields}
    metadata["licence"] = metadata.get("licence") or record.get("license")
    more = {"url": record.get(config.url_field), "date": record.get(config.date_field)}
    return kept(config, place, f"{question}\n\n{answer}", own_id, metadata, **more)
