"""`finetune data`: from files and a live knowledge base to a whole set with an honest account."""

import json
import re
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from finetune import cli, cli_data, trainset
from finetune.bases import Bases
from finetune.dataset import MANIFEST, prepare
from finetune.mix import family
from finetune.rows import Row, read, write
from finetune.settings import TrainSettings, load
from kb import shipped
from kb.errors import BadConfiguration, BadData, TrainingStopped, UnknownKnowledgeBase
from kb.judging import markers
from kb.prompt import REFUSAL, set_aside, split_aside
from kb.settings import KbSettings
from tests.finetune.handbook import NAME, SETTINGS, TEXTS, bases, fill
from tests.finetune.shared import shared

ITEMS = [
    {"question": f"What is the colour of door {n}?", "answers": [f"shade {n}"], "gold": ["g"],
     "passages": [{"id": "g", "text": f"Door {n} of the house was painted in shade {n} long ago."},
                  {"id": "d", "text": f"Window {n} has no colour at all, as far as is known."}]}
    for n in range(12)
]  # fmt: skip
ALPACA = [
    {"instruction": f"Say {n}.", "output": f"Here it is: the number {n}, twice {n}."}
    for n in range(9)
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill(tmp_path).close()
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, ITEMS)), encoding="utf-8")
    (tmp_path / "alpaca.json").write_text(json.dumps(ALPACA), encoding="utf-8")
    asked = {
        "question": "When does the pharmacy close on Saturdays?",
        "answers": ["13:15"],
        "gold": ["pharmacy.md"],
    }
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked), encoding="utf-8")
    return tmp_path


def settings(home: Path, **data: Any) -> TrainSettings:
    document = {
        "model_name_or_path": "bundled:smollm2-135m-instruct",
        "output_dir": "run",
        "data": data,
    }
    file = home / "run.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load(file)


def run(home: Path, dry_run: bool = False, **data: Any) -> dict[str, Any]:
    return prepare(settings(home, **data), bases(home), lambda message: None, dry_run=dry_run)


WHOLE: dict[str, Any] = {
    "sources": [{"path": "alpaca.json", "role": "general", "licence": "CC0"}],
    "knowledge": [
        {"kb": NAME, "questions": "asked.jsonl", "copies": 3, "licence": "ours"},
        {"collection": "items.jsonl", "copies": 2},
        {"kb": NAME, "ask": "rules"},
    ],
    "val_size": 0.2,
}


def test_what_is_written_is_what_the_account_says(home: Path) -> None:
    account = run(home, **WHOLE)
    folder = home / "run" / "data"
    train, val = list(read(folder / "train.jsonl")), list(read(folder / "val.jsonl"))
    assert account["rows"] == {"train": len(train), "val": len(val)}
    assert account == json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert not {family(r) for r in train} & {family(r) for r in val} and val
    by_name = {s["name"]: s for s in account["sources"]}
    alpaca = by_name[f"{home.name}/alpaca.json"]
    assert alpaca["licence"] == "CC0" and len(alpaca["sha256"]) == 64
    assert by_name[NAME]["generation"] == len(TEXTS)
    assert f"{NAME} (2)" in by_name
    hashes = [s["sha256"] for s in account["sources"]]
    assert all(len(one) == 64 for one in hashes) and len(set(hashes)) == len(hashes)
    assert {r.role for r in (*train, *val)} == {"domain", "general"}
    assert account["retrieval"] == bases(home).retrieval
    assert account["retrieval"]["embedder"] == SETTINGS.embedder_identity


def test_rows_teach_to_set_aside_where_that_is_on(home: Path) -> None:
    for knowledge in ({"kb": NAME, "ask": "rules"}, {"collection": "items.jsonl"}):
        run(home, knowledge=[knowledge | {"copies": 3, "set_aside": True}], val_size=0)
        rows = list(read(home / "run" / "data" / "train.jsonl"))
        assert {row.ability for row in rows} == {"grounding", "refusal"}
        for row in rows:
            shown = {int(n) for n in re.findall(r"^\[(\d+)\]", row.prompt[-1].content, re.M)}
            aside, answer = split_aside(row.reply)
            if row.ability == "refusal":
                assert row.reply == REFUSAL["en"]
            else:
                assert shown == {*aside, *markers(answer)} and answer != REFUSAL["en"]
                assert row.reply == set_aside(aside, "en") + answer


def test_what_a_stage_cannot_train_on_is_counted_and_left_out(home: Path) -> None:
    answers = ("It opens at nine in the morning.", "It opens at eight, or so they say.")
    rated = [
        {"prompt": "When does it open?", "completion": answers[0], "rating": "up"},
        {"prompt": "When does it open?", "completion": answers[1], "rating": "down"},
        {"prompt": "Who is it that opens it?", "completion": "The porter does.", "rating": "up"},
    ]
    (home / "rated.jsonl").write_text("\n".join(map(json.dumps, rated)), encoding="utf-8")
    sources = [{"path": "rated.jsonl"}, {"path": "alpaca.json", "role": "general"}]
    wanted = settings(home, sources=sources, val_size=0).model_copy(update={"stage": "dpo"})
    account = prepare(wanted, bases(home), lambda message: None)
    (row,) = read(home / "run" / "data" / "train.jsonl")
    assert (row.reply, row.rejected) == answers
    (dropped,) = (d for why, d in account["dropped"].items() if "`rejected`" in why)
    assert dropped["count"] == 2 + len(ALPACA)
    assert load(home / "run.yaml").stage == "sft" and run(home, sources=sources, val_size=0)


def test_people_are_told_when_nothing_of_the_field_is_held_out(home: Path) -> None:
    account = run(home, **WHOLE)
    val = read(home / "run" / "data" / "val.jsonl")
    assert account["field_held_out"] == sum(row.role == "domain" for row in val) > 0
    said = "none of the field held out"
    assert said not in cli_data.told(account)
    assert said in cli_data.told(run(home, **WHOLE | {"val_size": 0}))
    assert said not in cli_data.told(run(home, sources=WHOLE["sources"]))


def test_the_same_configuration_gives_the_same_bytes(home: Path) -> None:
    first = run(home, **WHOLE)
    assert run(home, **WHOLE)["files"] == first["files"]


def test_a_sources_hash_is_that_of_what_was_read(home: Path) -> None:
    def hashes() -> list[str]:
        return [s["sha256"] for s in run(home, dry_run=True, **WHOLE)["sources"]]

    before = hashes()
    changed = [{**ITEMS[0], "question": "Which shade has door 0?"}, *ITEMS[1:]]
    changed[3] = {**ITEMS[3], "passages": ITEMS[4]["passages"]}
    (home / "items.jsonl").write_text("\n".join(map(json.dumps, changed)), encoding="utf-8")
    assert [a == b for a, b in zip(before, hashes(), strict=True)] == [True, True, False, True]
    asked = (home / "asked.jsonl").read_text(encoding="utf-8")
    (home / "asked.jsonl").write_text(asked.replace("close on", "shut on"), encoding="utf-8")
    assert hashes()[1] != before[1]


def test_a_dry_run_counts_and_writes_nothing(home: Path) -> None:
    account = run(home, dry_run=True, **WHOLE)
    assert account["rows"] == run(home, **WHOLE)["rows"]
    assert "files" not in account


def test_an_interrupted_run_leaves_no_manifest(home: Path) -> None:
    run(home, **WHOLE)
    (home / "run" / "data" / "train.jsonl").unlink()
    (home / "run" / "data" / "train.jsonl").mkdir()  # cannot be replaced
    with pytest.raises(TrainingStopped, match="could not be written"):
        run(home, **WHOLE)
    assert not (home / "run" / "data" / MANIFEST).exists()


@pytest.mark.parametrize("killed_at", ["train.jsonl", "val.jsonl"])
def test_an_interrupted_run_leaves_no_rows_beside_others_held_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    run(home, **WHOLE)

    def killed(rows: Any, file: Path) -> int:
        if file.name == killed_at:
            raise KeyboardInterrupt
        return write(rows, file)

    monkeypatch.setattr("finetune.dataset.write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(home, **WHOLE)
    with pytest.raises(BadData, match=r"train\.jsonl: is not there; run `finetune data`"):
        trainset.load(settings(home))


def test_rows_are_those_of_the_account_beside_them(home: Path) -> None:
    account = run(home, **WHOLE)
    folder = home / "run" / "data"
    assert trainset.load(settings(home)).account == account
    named = settings(home).model_copy(update={"dataset": folder})
    assert trainset.load(named).account == account
    (folder / "mine.jsonl").write_bytes((folder / "train.jsonl").read_bytes())
    mine = named.model_copy(update={"dataset": folder / "mine.jsonl"})
    assert trainset.load(mine).account is None
    changed = (folder / "train.jsonl").read_text(encoding="utf-8").split("\n", 1)[1]
    (folder / "train.jsonl").write_text(changed, encoding="utf-8")
    for chosen in (settings(home), named):
        with pytest.raises(BadData, match=r"run `finetune data` again, or delete data\.json"):
            trainset.load(chosen)
    (folder / MANIFEST).unlink()
    assert trainset.load(settings(home)).account is None


@pytest.mark.parametrize("other", ["[]", '{"instruction": "a"}', "no JSON"])
def test_a_folder_of_ones_own_may_hold_another_data_json(home: Path, other: str) -> None:
    run(home, **WHOLE)
    folder = (home / "run" / "data").rename(home / "mine")
    (folder / MANIFEST).write_text(other, encoding="utf-8")
    brought = settings(home).model_copy(update={"dataset": folder})
    assert trainset.load(brought).train and trainset.load(brought).account is None


def test_what_the_model_is_judged_on_is_in_no_row(home: Path) -> None:
    judged = home / "judged.jsonl"
    judged.write_text(json.dumps(ITEMS[3]) + "\n" + json.dumps(ITEMS[5]), encoding="utf-8")
    account = run(home, knowledge=WHOLE["knowledge"], eval_files=["judged.jsonl"])
    said = (home / "run" / "data" / "train.jsonl").read_text(encoding="utf-8")
    said += (home / "run" / "data" / "val.jsonl").read_text(encoding="utf-8")
    assert "Door 3 " not in said and "door 5?" not in said and "Door 4 " in said
    assert account["dropped"]["passages that the evaluation holds"]["count"] == 2


def test_rows_longer_than_asked_and_beyond_the_number_asked_are_not_taken(home: Path) -> None:
    source = {"path": "alpaca.json", "most": 4}
    assert sum(run(home, sources=[source])["rows"].values()) == 4
    long = [*ALPACA, {"instruction": "Say all.", "output": " ".join(map(str, range(99)))}]
    (home / "alpaca.json").write_text(json.dumps(long), encoding="utf-8")
    account = run(home, sources=[{"path": "alpaca.json", "longest": 60}])
    assert account["dropped"]["longer than asked"]["count"] == 1
    assert sum(account["rows"].values()) == len(ALPACA)


def test_a_row_of_two_sources_stays_with_the_first_and_is_on_one_side(home: Path) -> None:
    longer = [" ".join(f"word{n}x{i}" for i in range(40)) for n in range(30)]
    said = [{"instruction": f"Tell {n}.", "output": text} for n, text in enumerate(longer)]
    nearly = [one | {"output": f"{one['output']} more"} for one in said]
    for name, values in (("a", said), ("b", [*said, *ALPACA]), ("c", nearly)):
        (home / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    sources = [{"path": "b.json", "most": 20}, {"path": "a.json"}, {"path": "c.json"}]
    account = run(home, sources=sources, knowledge=[WHOLE["knowledge"][0]], val_size=0.3)
    folder = home / "run" / "data"
    both = [*read(folder / "train.jsonl"), *read(folder / "val.jsonl")]
    texts = sorted(r.reply.removesuffix(" more") for r in both if r.reply.startswith("word"))
    assert texts == sorted(longer)
    kept = {s["name"].removeprefix(f"{home.name}/"): s["kept"] for s in account["sources"]}
    assert kept["b.json"] == 20 and kept["a.json"] > 10 and kept["c.json"] == 0
    of_b = sum(r.origin.source.startswith("b.json") and "word" in r.reply for r in both)
    assert account["dropped"]["exact duplicates"]["count"] == of_b
    assert account["dropped"]["near duplicates"]["count"] == 30
    assert account["mix"]["sources"][f"{home.name}/a.json"]["had"] == kept["a.json"] == 30 - of_b


def test_nothing_left_is_an_error_that_says_why(home: Path) -> None:
    with pytest.raises(BadData, match="longer than asked"):
        run(home, sources=[{"path": "alpaca.json", "longest": 5}])
    with pytest.raises(UnknownKnowledgeBase, match="handbok"):
        run(home, knowledge=[{"kb": "handbok", "questions": "asked.jsonl"}])


def test_rows_that_the_base_finds_strange_are_dropped_and_counted(home: Path) -> None:
    seen: list[str] = []

    def third(rows: Sequence[Row]) -> list[int]:
        seen.extend(row.reply for row in rows)
        return [2]

    chosen = settings(home, sources=[{"path": "alpaca.json"}], val_size=0)
    account = prepare(chosen, bases(home), lambda message: None, outliers=third)
    rows = list(read(home / "run" / "data" / "train.jsonl"))
    assert sorted(row.reply for row in rows) == sorted([*seen[:2], *seen[3:]])
    (count,) = (d["count"] for why, d in account["dropped"].items() if "perplexity" in why)
    assert count == 1 and len(seen) == len(ALPACA)


def test_an_engine_asks_with_its_key_and_rows_are_made_of_what_its_passage_answers(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str | None, dict[str, Any]]] = []

    class Engine(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.headers["Authorization"], body))
            answers = body["messages"][-1]["content"].startswith("References:")
            said = "The Records Office was founded in 1987."
            said = said if answers else "When did the Records Office begin?"
            reply = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *arguments: Any) -> None:
            """Silent."""

    monkeypatch.setenv("VADEMECUM_ENGINE_KEY", "secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        wanted = {"kb": NAME, "ask": "engine", "engine_url": url, "engine_model": "large"}
        account = run(home, knowledge=[wanted | {"copies": 4}], val_size=0)
        server.shutdown()
    assert {key for key, _ in asked} == {"Bearer secret"}
    assert {body["model"] for _, body in asked} == {"large"}
    (unanswered,) = (d for why, d in account["dropped"].items() if "engine's question" in why)
    assert unanswered["count"] == len(TEXTS) - 1
    replies = {row.reply for row in read(home / "run" / "data" / "train.jsonl")}
    assert any(one.startswith("The Records Office was founded in 1987. [") for one in replies)


@pytest.mark.parametrize(
    ("knowledge", "said"),
    [
        ({"questions": "asked.jsonl"}, "needs either kb or collection"),
        ({"kb": NAME}, "questions: missing"),
        ({"kb": NAME, "ask": "engine"}, "engine_url: missing"),
        ({"kb": NAME, "ask": "rules", "cues": {"(": "x"}}, "is no pattern"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(home: Path, knowledge: Any, said: str) -> None:
    with pytest.raises(BadConfiguration, match=said):
        run(home, knowledge=[knowledge])


def test_the_environment_stands_in_paths(home: Path) -> None:
    file = home / "run.yaml"
    file.write_text(
        "model_name_or_path: m\noutput_dir: run\ndata: {sources: [{path: '${DATA}/a.json'}]}\n",
        encoding="utf-8",
    )
    assert load(file, environ={"DATA": "/d"}).data.sources[0].path == Path("/d/a.json")
    with pytest.raises(BadConfiguration, match=r"run\.yaml: \$\{DATA\}: no such environment"):
        load(file, environ={})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"question": "Why?"}, "neither answers nor gold"),
        ({"answers": ["x"]}, "question is missing"),
        (
            {
                "question": "Why?",
                "answers": ["x"],
                "gold": ["z"],
                "passages": [{"id": "a", "text": "b"}],
            },
            "gold names 'z'",
        ),
        ({"question": "Why?", "answers": ["x"], "passages": ["b"]}, "must be objects"),
        ({"question": "Why?", "answers": ["x"], "passages": 5}, "must be objects"),
    ],
)
def test_a_bad_item_is_refused_with_file_and_line(home: Path, line: Any, said: str) -> None:
    first = {"question": "Who?", "answers": ["x"], "passages": [{"id": "a", "text": "x"}]}
    (home / "bad.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(line)}", encoding="utf-8")
    with pytest.raises(BadData, match=rf"bad\.jsonl:2: .*{said}"):
        run(home, knowledge=[{"collection": "bad.jsonl"}])


def test_the_command_prints_one_document_and_the_right_exit_code(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(home, **WHOLE)
    monkeypatch.setenv("VADEMECUM_HOME", str(home))
    monkeypatch.setenv("VADEMECUM_KB__EMBEDDER", "fake:64")
    command = ["finetune", "data", str(home / "run.yaml"), "--dry-run"]
    monkeypatch.setattr("sys.argv", [*command, "--json"])
    assert cli.main() == 0
    assert json.loads(capsys.readouterr().out)["rows"]["train"] > 0
    monkeypatch.setattr("sys.argv", command)
    assert cli.main() == 0
    assert "rows to train on" in capsys.readouterr().out
    (home / "alpaca.json").write_text("{", encoding="utf-8")
    assert cli.main() == 3
    assert "alpaca.json:1: not JSON" in capsys.readouterr().err


def test_the_configuration_that_ships_is_sound() -> None:
    file = Path(__file__).parents[2] / "finetune" / "configs" / "bundled.yaml"
    settings = load(file, environ={"VADEMECUM_DATA": "/data"})
    wanted = settings.data
    # Else a run ends after its training, when it is to be judged.
    assert (shipped.FOLDER / settings.eval.against / "release.json").is_file()
    assert all(k.licence for k in wanted.knowledge) and all(s.licence for s in wanted.sources)
    assert wanted.eval_files


def test_paragraphs_of_the_evaluation_are_left_out_of_xquad(tmp_path: Path) -> None:
    xquad = shared("xquad_en_zh")
    account = run(
        tmp_path,
        knowledge=[
            {
                "collection": str(xquad / "en-en"),
                "questions": str(xquad / "qa.jsonl"),
                "language": "en",
                "most": 60,
            }
        ],
        eval_files=[str(shared("grounding_mix/items.jsonl"))],
        dry_run=True,
    )
    assert account["dropped"]["passages that the evaluation holds"]["count"] in (134, 135, 136)
    assert account["rows"]["train"] > 30


@pytest.mark.real
def test_rows_are_made_with_the_real_embedder(tmp_path: Path, models_home: Path) -> None:
    (tmp_path / "models").symlink_to(models_home / "models")
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, ITEMS)), encoding="utf-8")
    real = Bases(tmp_path, KbSettings(), lambda message: None)
    wanted = settings(tmp_path, knowledge=[{"collection": "items.jsonl", "distractors": 3}])
    account = prepare(wanted, real, lambda message: None)
    assert account["abilities"]["grounding"] >= 6
