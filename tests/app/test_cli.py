"""The command line: one JSON document, exit codes, and messages that name what to do."""

import json
import re
import sqlite3
from pathlib import Path

import pytest

from app.output import show
from kb.catalog import Catalog
from kb.chunking import chunk
from kb.embedding import FakeEmbedder
from kb.feed import Feed
from kb.layout import DATABASE, lexical_of
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.records import Parsed
from kb.store import Store
from tests.app.commands import Vademecum

TEXT = "The pharmacy opens at 8:15 on weekdays."


@pytest.fixture
def vademecum(tmp_path: Path) -> Vademecum:
    return Vademecum(tmp_path / "home", tmp_path)


@pytest.fixture
def handbook(vademecum: Vademecum) -> Path:
    """Knowledge base `handbook` with one document; its folder."""
    embedder = FakeEmbedder(64)
    one = Catalog(vademecum.home).add("handbook", embedder.name, 1)
    store = Store(one.folder / DATABASE)
    file = Ledger(store).changed("/docs", "hours.md")
    pieces = chunk(TEXT, 160)
    vectors = embedder.passages([piece.text for piece in pieces])
    store.put_document(file.id, "sha", Parsed(TEXT, "Hours"), pieces, vectors)
    Ledger(store).completed(file, size=len(TEXT), mtime_ns=0)
    index = LexicalIndex(lexical_of(store), readonly=False)
    index.catch_up(Feed(store).changes(0))
    index.close()
    store.close()
    return one.folder


def test_a_knowledge_base_is_made_listed_and_removed(vademecum: Vademecum, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    made = vademecum.json("kb", "add", "law", "--watch", "papers")
    assert made["name"] == "law"
    assert made["watched"] == [str(tmp_path / "papers")]
    assert vademecum.json("kb", "list") == [made]
    assert vademecum.json("kb", "remove", "law") == made
    assert vademecum.json("kb", "list") == []
    assert (tmp_path / "papers").is_dir()


def test_a_made_knowledge_base_fits_the_embedder_it_was_made_for(vademecum: Vademecum) -> None:
    vademecum.json("kb", "add", "law")
    assert vademecum.json("kb", "search", "law", "anything") == {"generation": 0, "hits": []}


def test_search_shows_passages_with_their_place(vademecum: Vademecum, handbook: Path) -> None:
    found = vademecum.json("kb", "search", "handbook", "When does it open?", "-k", "3")
    (hit,) = found["hits"]
    assert TEXT[hit["start"] : hit["end"]] == hit["text"]
    assert (found["generation"], hit["filename"]) == (1, "hours.md")
    assert "hours.md\n" + TEXT in vademecum("kb", "search", "handbook", "opens").stdout


def test_stats_count_what_is_there(vademecum: Vademecum, handbook: Path) -> None:
    stats = vademecum.json("kb", "stats", "handbook")
    assert (stats["documents"], stats["chunks"], stats["generation"]) == (1, 1, 1)
    assert stats["files"] == {"completed": 1}
    assert stats["lexical_generation"] == 1


def test_verify_says_clean_or_what_is_wrong_with_exit_code_1(
    vademecum: Vademecum, handbook: Path
) -> None:
    assert vademecum.json("kb", "verify", "handbook") == {"clean": True, "problems": []}
    with sqlite3.connect(handbook / DATABASE) as database:
        database.execute("UPDATE chunks SET text = 'The owl opens at night.'")
    database.close()
    done = vademecum("kb", "verify", "handbook", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["clean"] is False


def test_rebuild_repairs_an_index_that_verify_complains_about(
    vademecum: Vademecum, handbook: Path
) -> None:
    for file in handbook.glob("lexical*/*"):
        file.unlink()
    assert "behind the database's 1" in vademecum("kb", "verify", "handbook").stdout
    assert vademecum.json("kb", "rebuild", "handbook") == {"generation": 2}
    assert vademecum("kb", "verify", "handbook").stdout == "clean\n"


def test_rebuild_after_another_embedder_was_set_makes_all_anew(
    vademecum: Vademecum, handbook: Path
) -> None:
    other = {"VADEMECUM_KB__EMBEDDER": "fake:32"}

    def ask() -> tuple[str, int]:
        done = vademecum("kb", "search", "handbook", "opens", "--json", **other)
        found = json.loads(done.stdout)
        return found["hits"][0]["filename"], found["generation"]

    assert ask() == ("hours.md", 1)
    assert json.loads(vademecum("kb", "rebuild", "handbook", "--json", **other).stdout) == {
        "generation": 2
    }
    stats = vademecum.json("kb", "stats", "handbook")
    assert (stats["embedder"], stats["lexical_generation"], stats["remaking"]) == (
        *("fake-32", 2, None),
    )
    assert ask() == ("hours.md", 2)
    assert vademecum("kb", "verify", "handbook").stdout == "clean\n"


def test_stats_tell_what_is_dead_and_compact_removes_it(
    vademecum: Vademecum, handbook: Path
) -> None:
    store = Store(handbook / DATABASE)
    (file,) = Ledger(store).all()
    Ledger(store).forget(file)
    store.close()
    dead = {"dead_documents": 1, "dead_chunks": 1, "dead_bytes": 2 * len(TEXT) + 2 * 64}
    assert dead.items() <= vademecum.json("kb", "stats", "handbook").items()
    assert dead.items() <= vademecum.json("kb", "compact", "handbook").items()
    stats = vademecum.json("kb", "stats", "handbook")
    assert (stats["dead_chunks"], stats["dead_bytes"], stats["emptied_chunks"]) == (0, 0, 1)
    assert TEXT.encode() not in (handbook / DATABASE).read_bytes()
    assert vademecum("kb", "verify", "handbook").stdout == "clean\n"


@pytest.mark.parametrize("command", [["stats"], ["verify"], ["rebuild"], ["compact"], ["remove"]])
def test_an_unknown_knowledge_base_gets_the_nearest_name(
    vademecum: Vademecum, handbook: Path, command: list[str]
) -> None:
    done = vademecum("kb", *command, "handbok", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no knowledge base 'handbok'; did you mean handbook?\n"


def test_a_wrong_key_in_the_configuration_ends_with_3_and_the_nearest_key(
    vademecum: Vademecum, tmp_path: Path
) -> None:
    (tmp_path / "vademecum.toml").write_text("[kb]\nembeder = 'x'\n")
    done = vademecum.process("kb", "add", "law", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "vademecum.toml" in done.stderr and "did you mean embedder?" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args", [["kb", "ad"], ["keys", "create", "x", "--scope", "boss"], ["up", "--prot", "1"]]
)
def test_a_wrong_command_line_ends_with_3(vademecum: Vademecum, args: list[str]) -> None:
    done = vademecum(*args)
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr


def test_a_key_is_shown_once_bound_by_id_and_can_be_revoked(
    vademecum: Vademecum, handbook: Path
) -> None:
    made = vademecum.json("keys", "create", "ward", "--scope", "chat", "--kb", "handbook")
    assert made["kb"] == [Catalog(vademecum.home).get("handbook").id]
    listed = vademecum("keys", "list", "--json").stdout
    assert made["key"] not in listed
    assert json.loads(listed)[0]["name"] == "ward"
    vademecum.json("keys", "revoke", "ward")
    assert vademecum.json("keys", "list") == []
    again = vademecum("keys", "revoke", "ward")
    assert again.returncode == 3


def test_only_the_key_itself_goes_to_standard_output(vademecum: Vademecum) -> None:
    done = vademecum("keys", "create", "ward", "--scope", "admin")
    assert re.fullmatch(r"vk-\S+\n", done.stdout)
    assert "not shown again" in done.stderr


def test_models_say_whether_they_are_unpacked(vademecum: Vademecum) -> None:
    names = {model["name"]: model for model in vademecum.json("models")}
    assert names["bundled:multilingual-e5-small"]["unpacked"] is False


def test_asking_without_a_server_says_how_to_start_one(vademecum: Vademecum) -> None:
    done = vademecum("ask", "When?", "--json", VADEMECUM_APP__PORT="9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "vademecum up" in done.stderr


def test_rows_stand_under_their_heads(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"name": "a", "open": True}, {"name": "long", "open": False}], False)
    assert capsys.readouterr().out == "name  open\na     yes\nlong  no\n"
