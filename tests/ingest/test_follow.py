"""A folder is followed while it changes: real inotify events, seen by a reader's searches."""

import shutil
import time
from pathlib import Path

import pytest

from tests.ingest.homes import Home, eventually, files_of, states

# Watchdog warns, in its own thread, when it meets a moved directory twice.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")


def test_a_new_file_is_found_and_an_edit_replaces_it(home: Home) -> None:
    kb = home.kb()
    with home.following():
        home.write("leave.md", "# Leave\nTwenty zebras of leave.")
        eventually(lambda: files_of(kb, "zebras") == ["leave.md"])
        home.write("leave.md", "# Leave\nThirty giraffes of leave.")
        eventually(lambda: files_of(kb, "giraffes") == ["leave.md"])
        assert files_of(kb, "zebras") == []


def test_a_deleted_file_is_never_found_again(home: Home) -> None:
    kb = home.kb()
    with home.following():
        file = home.write("a.md", "one okapi")
        eventually(lambda: files_of(kb, "okapi") == ["a.md"])
        file.unlink()
        eventually(lambda: files_of(kb, "okapi") == [])
        assert states(kb) == {}


def test_a_renamed_file_keeps_its_id_and_takes_its_new_name(home: Home) -> None:
    kb = home.kb()
    with home.following():
        file = home.write("old name.txt", "the quokka form")
        eventually(lambda: states(kb) == {"old name.txt": "completed"})
        (before,) = kb.ledger.all()
        file.rename(home.docs / "new name.txt")
        eventually(lambda: states(kb) == {"new name.txt": "completed"})
        (after,) = kb.ledger.all()
        assert after.id == before.id
        assert files_of(kb, "quokka") == ["new name.txt"]
        # The title came from the name, so passages are embedded under the new one.
        assert kb.search("quokka", 1).hits[0].title == "new name"


@pytest.mark.parametrize("draft", [".a.md.tmp", "a.md~", "sedXk2", "4913"])
def test_saving_by_rename_keeps_the_document(home: Home, draft: str) -> None:
    kb = home.kb()
    with home.following():
        home.write("a.md", "first ibex")
        eventually(lambda: states(kb) == {"a.md": "completed"})
        (before,) = kb.ledger.all()
        home.write(draft, "second lynx").replace(home.docs / "a.md")
        eventually(lambda: files_of(kb, "lynx") == ["a.md"])
        eventually(lambda: states(kb) == {"a.md": "completed"})
        assert kb.ledger.all()[0].id == before.id
        assert files_of(kb, "ibex") == []


def test_saving_after_a_backup_was_renamed_away_keeps_the_document(home: Home) -> None:
    kb = home.kb()
    with home.following():
        file = home.write("a.md", "first ibex")
        eventually(lambda: states(kb) == {"a.md": "completed"})
        (before,) = kb.ledger.all()
        file.rename(home.docs / "a.md~")
        home.write("a.md", "second lynx")
        eventually(lambda: files_of(kb, "lynx") == ["a.md"])
        assert kb.ledger.all()[0].id == before.id


def test_a_directory_that_moves_takes_its_files_along(home: Home, tmp_path: Path) -> None:
    kb = home.kb()
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "b.md").write_text("the tapir rule")
    with home.following():
        shutil.move(outside, home.docs / "in")
        eventually(lambda: files_of(kb, "tapir") == ["in/deep/b.md"])
        (before,) = kb.ledger.all()
        (home.docs / "in").rename(home.docs / "moved")
        eventually(lambda: files_of(kb, "tapir") == ["moved/deep/b.md"])
        assert kb.ledger.all()[0].id == before.id
        home.write("moved/deep/c.md", "watched under its new name: bongo")
        eventually(lambda: files_of(kb, "bongo") == ["moved/deep/c.md"])
        shutil.move(home.docs / "moved", outside)
        eventually(lambda: states(kb) == {})
        assert files_of(kb, "tapir") == []


def test_a_directory_that_was_just_made_is_followed_where_its_parent_moves(home: Home) -> None:
    """As unpackers do: all under a name of their own, and then the right one. Watchdog comes to
    watch the inner one when there is no such path any more."""
    kb = home.kb()
    with home.following():
        for n in range(20):
            draft = home.docs / f"unpacking{n}"
            draft.mkdir()
            home.write(f"unpacking{n}/a.md", f"okapi{n}")
            eventually(lambda name=f"unpacking{n}/a.md": name in states(kb))  # it is watched
            (draft / "inner").mkdir()
            draft.rename(home.docs / f"done{n}")
        eventually(lambda: len(states(kb)) == 20 and "done19/a.md" in states(kb))
        time.sleep(0.5)  # the sweep of the last move is over
        for n in range(20):
            home.write(f"done{n}/inner/b.md", f"zebra{n}")
        inside = {f"done{n}/inner/b.md" for n in range(20)}
        eventually(lambda: inside <= states(kb).keys())


def test_a_deleted_directory_takes_its_files_along(home: Home) -> None:
    kb = home.kb()
    with home.following():
        home.write("d/e/f.md", "a kudu")
        home.write("d/g.md", "an oryx")
        eventually(lambda: sorted(states(kb).values()) == ["completed"] * 2)
        shutil.rmtree(home.docs / "d")
        eventually(lambda: states(kb) == {})


def test_links_are_followed_inside_the_folder_and_never_out_of_it(
    home: Home, tmp_path: Path
) -> None:
    kb = home.kb()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "keys.md").write_text("the secret narwhal")
    with home.following():
        (home.docs / "link.md").symlink_to(secret / "keys.md")
        (home.docs / "dir").symlink_to(secret)
        home.write("plain.md", "a public narwhal")
        (home.docs / "alias.md").symlink_to("plain.md")
        eventually(lambda: sorted(states(kb)) == ["alias.md", "plain.md"])
        (secret / "new.md").write_text("another narwhal")
        home.write("last.md", "done")
        eventually(lambda: list(states(kb).values()) == ["completed"] * 3)
        assert sorted(files_of(kb, "narwhal")) == ["alias.md", "plain.md"]
        # A followed file that is replaced by a link out of the folder is gone.
        (home.docs / "plain.md").unlink()
        (home.docs / "plain.md").symlink_to(secret / "keys.md")
        eventually(lambda: "plain.md" not in states(kb))


def test_hidden_and_temporary_files_are_ignored(home: Home) -> None:
    kb = home.kb()
    with home.following():
        for name in (".h.md", ".git/x.md", "a.md~", "a.swp", "b.part", "~$c.docx", "#d#", "e.tmp"):
            home.write(name, "a walrus")
        home.write("f.md.part", "a walrus").rename(home.docs / "f.md")
        eventually(lambda: states(kb) == {"f.md": "completed"})
        assert files_of(kb, "walrus") == ["f.md"]


def test_nothing_is_deleted_while_the_folder_is_away(home: Home) -> None:
    kb = home.kb()
    home.settings = home.settings.model_copy(update={"sweep_seconds": 0.1})
    with home.following():
        home.write("a.md", "an axolotl")
        eventually(lambda: files_of(kb, "axolotl") == ["a.md"])
        away = home.docs.rename(home.path / "unmounted")
        (away / "a.md").touch()  # the old watch must not report this as ours
        time.sleep(1.5)  # longer than a worker waits before it looks again
        assert files_of(kb, "axolotl") == ["a.md"]
        away.rename(home.docs)
        home.write("b.md", "a pangolin, written where the folder is watched anew")
        eventually(lambda: files_of(kb, "pangolin") == ["b.md"])
        assert files_of(kb, "axolotl") == ["a.md"]


def test_an_upload_has_the_id_that_its_folder_names(home: Home) -> None:
    kb = home.kb()
    with home.following():
        folder = home.catalog.uploads("handbook") / "file-abc123"
        folder.mkdir()
        (folder / ".x.md.part").write_text("an uploaded manatee")
        (folder / ".x.md.part").replace(folder / "x.md")
        eventually(lambda: files_of(kb, "manatee") == ["file-abc123/x.md"])
        assert kb.ledger.get("file-abc123") is not None
        shutil.rmtree(folder)
        eventually(lambda: files_of(kb, "manatee") == [])


def test_knowledge_bases_come_and_go_while_running(home: Home) -> None:
    other = home.path / "other"
    other.mkdir()
    (other / "a.md").write_text("a wombat of another house")
    with home.following():
        home.catalog.add("second", home.embedder.name, 1, watch=other)
        kb = home.kb("second")
        eventually(lambda: files_of(kb, "wombat") == ["a.md"])
        home.catalog.remove("second")
        home.write("still.md", "a capybara")
        first = home.kb()
        eventually(lambda: files_of(first, "capybara") == ["still.md"])
