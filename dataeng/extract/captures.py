"""One capture file to rows: kept, dropped with the reason, and one row of counts. No engine needed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dataeng import stage, storage, warc
from dataeng.cli import UserError
from dataeng.document import Document, Verdict, capture_id, to_dropped, to_row
from dataeng.extract import Config
from dataeng.extract.engines import check_counts
from dataeng.extract.limits import Failed, Limited, Raised, kept
from dataeng.extract.page import Page, Task
from dataeng.extract.payload import Message, TooLarge, body_of, message_of, payload_digest
from dataeng.filter import url as url_rule
from dataeng.recipe import Recipe
from dataeng.sources import Row, counts_row, entries
from dataeng.warc import Capture, Damage

ENDINGS = tuple(kind + packed for kind in (".warc", ".arc", ".wet") for packed in ("", ".gz", ".zst"))
_WORK = "dataeng.extract.page:work"
_BINARY = bytes(
    b for b in range(32) if b not in b"\t\n\x0c\r\x1b"
)  # https://mimesniff.spec.whatwg.org/#binary-data-byte
_SNIFFED = 4096
_MAGIC = (b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"%PDF-", b"PK\x03\x04", b"\x1f\x8b\x08", b"RIFF", b"wOF", b"\x7fELF")
_REMEMBERED_BYTES = 64 << 20


class Part(NamedTuple):
    """A capture's part among those of equal contents: where their rows meet, and whether it is the one extracted."""

    route: str
    leads: bool


Shared = Mapping[tuple[int, int], Part]  # by offset and index within one file


class _Memory:
    """Results of pages already seen in this process, by their bytes: a pure function need not run twice."""

    def __init__(self) -> None:
        self.pages: dict[bytes, Page] = {}
        self.size = 0

    def put(self, key: bytes, page: Page) -> None:
        """Remember a page; all are forgotten when they take too much room."""
        size = len(page.text or "") + 500
        if self.size + size > _REMEMBERED_BYTES:
            self.pages, self.size = {}, 0
        self.pages[key] = page
        self.size += size


_memory = _Memory()


def _is_binary(body: bytes) -> bool:
    """Whether bytes served as a page are none: another format's magic, or many control bytes (UTF-16 apart)."""
    head = body[:_SNIFFED]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    control = len(head) - len(head.translate(None, _BINARY))
    return head.startswith(_MAGIC) or control > max(2, len(head) // 100)


def _refusal(message: Message, config: Config) -> Page | None:
    """The verdict that needs no look at the page itself."""
    if message.status is not None and message.status != 200:
        return Page(None, {}, "http_status", message.status, 200, "max" if message.status > 200 else "min")
    kind = message.content_type
    if message.status is None or (kind and kind not in config.content_types):
        return Page(None, {"content_type": kind or ""}, "content_type")
    return None


def _blocked(capture: Capture, config: Config) -> Page | None:
    """The verdict of the address alone, where the recipe has rules for it."""
    if config.url is None or (verdict := url_rule.verdict(capture.url, config.url)).keep:
        return None
    says = {"url_blocked": url_rule.says(url_rule.reasons(capture.url, config.url))}
    return Page(None, says, verdict.rule, verdict.score, verdict.threshold, verdict.bound)


def _digest(task: Task) -> bytes:
    """What a page's result depends on, hashed."""
    state = hashlib.blake2b(repr(task[1:]).encode(), digest_size=16)
    state.update(task.body)
    return state.digest()


def key_of(capture: Capture, config: Config) -> str | None:
    """What a capture's extraction depends on, hashed (BLAKE2b-128): its decoded bytes, charset and caps.

    A digest that the record names has no say. None where nothing is extracted, and for the pages that are
    compared with plain trafilatura, which count in their own file.
    """
    found = _wanted(capture, config)
    if isinstance(found, Page) or found.check:
        return None
    return _digest(found).hex() + ("c" if capture.type == "conversion" else "")


def own_metadata(capture: Capture) -> dict[str, str]:
    """What a capture's metadata says besides its page's: of captures of equal contents each has its own (OWN)."""
    if capture.type != "conversion":
        return payload_digest(capture, message_of(capture))
    languages = capture.headers.get("warc-identified-content-language")
    return {"extract_path": "wet"} | ({"identified_language": languages} if languages else {})


OWN = ("payload_digest", "payload_digest_named", "identified_language")


def page_of(capture: Capture, config: Config, worker: Limited) -> Page:
    """A capture's main text, or the rule that drops it; cheap rules first."""
    found = _wanted(capture, config)
    if isinstance(found, Page):
        return found
    page = _remembered(worker, found)
    return page._replace(metadata=page.metadata | own_metadata(capture))


def _wanted(capture: Capture, config: Config) -> Page | Task:
    """What is to be extracted, or the verdict that needs no extraction."""
    if capture.type == "conversion":
        return _ready(capture, config)
    if blocked := _blocked(capture, config):
        return blocked
    message = message_of(capture)
    if refused := _refusal(message, config):
        return refused
    try:
        body = body_of(message, config.page_bytes)
    except TooLarge:
        return Page(None, {"too_large": "bytes"}, "too_large", None, config.page_bytes, "max")
    if not body.strip():
        return Page(None, {}, "empty", 0, config.minimum_characters, "min")
    content_type = message.headers.get("content-type", "")
    utf16 = "utf-16" in content_type.lower()
    if (not utf16 and _is_binary(body)) or (message.content_type is None and b"<" not in body[:_SNIFFED]):
        return Page(None, {"content_type": message.content_type or "", "bytes": "binary"}, "content_type")
    check = int(id_of(capture)[:8], 16) < config.check_share * 2**32
    url = capture.url or "" if ":" in config.engine else ""
    caps = (config.nodes, config.depth, config.minimum_characters)
    wanted = (config.wanted(), config.language_least, config.model_path())
    return Task(body, content_type, *caps, config.engine, check, url, *wanted)


def _ready(capture: Capture, config: Config) -> Page | Task:
    """The text of a conversion record, as WET files hold it: text already, and in UTF-8."""
    kind = capture.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "text/plain"):
        return Page(None, {"content_type": kind}, "content_type")
    if len(capture.block) > config.page_bytes:
        return Page(None, {"too_large": "bytes"}, "too_large", None, config.page_bytes, "max")
    return Task(capture.block, "text/plain; charset=utf-8", config.nodes, config.depth, config.minimum_characters)


def _remembered(worker: Limited, task: Task) -> Page:
    """The result of a task, from memory where an equal page was seen before."""
    key = _digest(task)
    if (page := _memory.pages.get(key)) is None:
        page = _run(worker, task)
        if page.rule not in stage.NONDETERMINISTIC:
            _memory.put(key, page)
    return page


def _run(worker: Limited, task: Task) -> Page:
    try:
        return Page(*worker.call(task))
    except Failed as failed:
        return Page(None, {}, failed.reason)
    except Raised as raised:
        return Page(None, {"error": str(raised)}, "error")


def id_of(item: Capture | Damage) -> str:
    """The id of a capture's document or of a damaged region's row."""
    own_id = item.record_id if isinstance(item, Capture) else None
    if item.index and not own_id:
        own_id = f"{item.file}#{item.offset}.{item.index}"
    return capture_id(own_id, item.file, item.offset)


def row_of(capture: Capture, page: Page, source: str) -> Row:
    """The row of a capture of which ``page`` came."""
    document = Document(
        id_of(capture),
        page.text,
        url=capture.url,
        source=source,
        date=capture.date,
        metadata=dict(page.metadata),
        file=capture.file,
        offset=capture.offset,
        length=capture.length,
    )
    if page.rule is None:
        return to_row(document)
    return to_dropped(document, "extract", Verdict(False, *page[2:]))  # type: ignore[arg-type]


def _damaged_row(damage: Damage, source: str) -> Row:
    document = Document(
        id_of(damage),
        None,
        source=source,
        metadata={"damage": damage.reason},
        file=damage.file,
        offset=damage.offset,
        length=damage.length,
    )
    return to_dropped(document, "extract", Verdict(False, "damaged"))


def extract_file(
    path: str, name: str, config: Config, worker: Limited | None = None, shared: Shared | None = None
) -> Iterator[Row]:
    """The rows of one capture file, ``name`` being its ``file``; last comes its row of table ``captures``.

    A capture that ``shared`` leaves to another one gives a row without text, to be filled from that one's
    (``repeats.fill``); its part there stands in the row's ``route`` and ``leads``.
    """
    worker = worker or kept(_WORK, config.cpu_seconds, config.memory_bytes)
    counts = Counter({"captures": 0, "damaged": 0, "skipped": 0})
    agreements: list[float] = []
    for item in warc.read(path, name, config.record_bytes):
        if isinstance(item, Capture):
            counts["captures"] += 1
            part = shared.get((item.offset, item.index)) if shared else None
            page = Page(None, own_metadata(item)) if part and not part.leads else page_of(item, config, worker)
            agreements += [float(page.metadata["extract_agreement"])] if "extract_agreement" in page.metadata else []
            row = row_of(item, page, config.source)
            yield row | part._asdict() if part else row
        elif isinstance(item, Damage):
            counts["damaged"] += 1
            yield _damaged_row(item, config.source)
        else:
            counts["skipped"] += 1
    check = check_counts(agreements)
    yield counts_row(name, config.source, counts["captures"], counts["damaged"], counts["skipped"], check)


def input_files(recipe: Recipe, config: Config) -> list[dict[str, Any]]:
    """The capture files that ``input`` names, each once: path to open, ``file`` (relative name), size, tag.

    A name without a slash that is a table of the recipe stands for what that step published.
    Raises UserError for what is missing or empty, and where two files would bear one relative name.
    """
    return entries("extract", [item for name in config.input for item in _named(recipe, name)])


def _named(recipe: Recipe, name: str) -> list[tuple[str, storage.Entry]]:
    if "/" not in name and name in recipe:
        folder = stage.folder_of(recipe.root, name)
        manifest = stage.need_manifest(recipe.root, name, "extract")
        paths = [path for table in manifest.tables for path in stage.table_paths(folder, manifest, table)]
        files = [(f"{name}/{path.rpartition('/')[2]}", storage.stat(path), path) for path in paths]
        for _, entry, path in files:
            if entry is None:
                raise UserError(f"{path}: is missing though {name} published it: run `{name}` again")
        return [(file, entry) for file, entry, _ in files if entry]
    return storage.expand(name, ENDINGS)


def input_entries(recipe: Recipe, config: Config, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What enters the fingerprint: hashes of steps that published captures; else relative path, size and tag."""
    steps = [name for name in config.input if "/" not in name and name in recipe]
    found: list[dict[str, Any]] = []
    for step in steps:
        found += stage.stage_inputs(recipe.root, step, "extract", "captures")
    raw = [item for item in files if not any(item["file"].startswith(f"{step}/") for step in steps)]
    return found + [{"path": item["file"], "size": item["size"], "tag": item["tag"]} for item in raw]
