"""A document's way: every stage that saw it, why it was dropped, what it duplicates, where it went."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import synthetic
from moto.server import ThreadedMotoServer

from dataeng import runs, s3, storage
from dataeng.cli import UserError
from dataeng.document import Document, Verdict, digest, to_dropped, to_row
from dataeng.why import why

Root = tuple[Path, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    path = tmp_path_factory.mktemp("run")
    return path, synthetic.data(path)


def test_stages_stand_in_the_order_of_the_work(root: Root) -> None:
    names = [stage.name for stage in runs.published(str(root[0]))]
    assert names == ["extract", "filter", "decontaminate", "dedup", "publish"]


def test_every_document_ends_where_its_last_row_stands(root: Root) -> None:
    path, rows = root
    last: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, own in rows.items():
        last |= {row["id"]: (name, row) for row in own}
    seen = set()
    for identifier, (name, row) in list(last.items())[::9]:
        lines = [line for line in why(str(path), identifier).split("For comparison")[0].splitlines() if line]
        final = next(line for line in reversed(lines) if line.startswith("  ") and line[2] != " ")
        assert final.split()[0] == name
        assert final.split()[1] == ("DROPPED" if row["table"] == "dropped" else row["table"])
        seen.add((name, row["table"]))
    assert {("extract", "dropped"), ("filter", "dropped"), ("publish", "train")} <= seen


def test_a_drop_says_rule_score_threshold_and_bound(root: Root) -> None:
    path, rows = root
    row = next(r for r in rows["filter"] if r["rule"] == "gopher.words.min")
    text = why(str(path), row["url"])
    assert f"gopher.words.min; scored {row['score']:g}, below the minimum of 50" in text
    assert text.index("extract") < text.index("filter")
    assert "publish" not in text


def test_a_duplicate_names_its_survivor_and_shows_its_way_too(root: Root) -> None:
    path, rows = root
    row = next(r for r in rows["dedup"] if r["duplicate_of"] and r["matched"] != r["duplicate_of"])
    urls = {r["id"]: r["url"] for r in rows["extract"]}
    folded = " ".join(why(str(path), row["id"]).split())
    assert f"duplicate of {row['duplicate_of']} ({urls[row['duplicate_of']]})" in folded
    assert f"matched {row['matched']} ({urls[row['matched']]})" in folded
    assert f"similarity {row['similarity']:.4f}" in folded
    assert folded.split("For comparison")[1].count(" extract kept") == 2


def test_text_that_extraction_kept_is_never_shown(root: Root) -> None:
    path, rows = root
    assert synthetic.SECRET not in why(str(path), rows["publish"][0]["id"])


def test_each_capture_of_an_address_has_its_own_way(tmp_path: Path) -> None:
    url = "https://docs.example.org/twice"
    documents = [Document(digest(str(n)), "text", url, "crawl", file="a.warc.gz", offset=n * 10) for n in range(2)]
    synthetic.publish(tmp_path, "extract", [to_row(d) for d in documents])
    drop = to_dropped(documents[1], "filter", Verdict(False, "language.score.min", 0.2, 0.65, "min"))
    synthetic.publish(tmp_path, "filter", [to_row(documents[0]), drop], ("extract",))
    text = why(str(tmp_path), url)
    assert text.startswith("2 documents of this address")
    assert text.index(documents[0].id) < text.index(documents[1].id) < text.index("DROPPED")


def test_a_stage_that_ran_before_the_document_came_says_so(tmp_path: Path) -> None:
    documents = [Document(digest(str(n)), "text", f"https://e.org/{n}") for n in range(2)]
    synthetic.publish(tmp_path, "extract", [to_row(d) for d in documents])
    synthetic.publish(tmp_path, "filter", [to_row(documents[0])], ("extract",))
    assert "run `filter` again" in " ".join(why(str(tmp_path), documents[1].id).split())


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_what_is_not_there_is_one_line_and_status_2(root: Root, place: str) -> None:
    command = [sys.executable, "-m", "dataeng.why", str(root[0] / place), "https://example.org/unknown"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_an_address_cannot_steer_the_terminal(tmp_path: Path) -> None:
    evil = Document(digest("evil"), "text", "https://e.org/\x1b[2J\x07")
    synthetic.publish(tmp_path, "extract", [to_row(evil)])
    assert "\x1b" not in why(str(tmp_path), evil.id)


def test_a_root_without_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stage with documents"):
        why(str(tmp_path), "anything")


def test_a_root_on_s3_tells_the_same(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rows = root
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3._client.cache_clear()
    try:
        s3.client().create_bucket(Bucket="bucket")
        for entry in storage.list_files(str(path)):
            storage.upload(entry.path, entry.path.replace(str(path), "s3://bucket/run"))
        row = next(r for r in rows["dedup"] if r["duplicate_of"])
        assert why("s3://bucket/run", row["url"]) == why(str(path), row["url"])
        with pytest.raises(UserError, match="no such"):
            why("s3://bucket/elsewhere", row["url"])
    finally:
        server.stop()
        s3._client.cache_clear()
