"""The official client works unchanged, over a real connection."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.app.serving import HOURS, QUESTION, Home, listening

Asked = list[Any]  # the client's own types are unions of dicts
ASKED: Asked = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def client(home: Home) -> Iterator[openai.OpenAI]:
    with (
        listening(home.app()) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as one,
    ):
        yield one


def test_chat_plain(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="vademecum", messages=ASKED, extra_body={"knowledge": {"top_k": 2}}
    )
    message = reply.choices[0].message
    assert message.content and "opens at 8:15" in message.content
    (note,) = message.model_dump()["annotations"]
    assert note["filename"] == "hours.md" and note["quote"] in HOURS
    assert reply.model_dump()["knowledge"]["grounded"]


def test_chat_streamed(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="vademecum", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    text, notes, knowledge, usage = "", None, None, None
    for chunk in stream:
        raw = chunk.model_dump()
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            notes = raw["choices"][0]["delta"].get("annotations") or notes
        knowledge = raw.get("knowledge") or knowledge
        usage = chunk.usage or usage
    assert "opens at 8:15" in text and usage is not None and usage.total_tokens > 0
    assert notes and notes[0]["verified"] and knowledge and knowledge["grounded"]


def test_models_and_embeddings(client: openai.OpenAI, home: Home) -> None:
    assert [model.id for model in client.models.list()] == ["vademecum", "fake"]
    reply = client.embeddings.create(model="vademecum", input=["owls", "mills"])
    assert [len(row.embedding) for row in reply.data] == [64, 64]


def test_files_into_a_store_and_found(client: openai.OpenAI, home: Home) -> None:
    file = client.files.create(file=("owls.md", b"Owls fly over the mill."), purpose="assistants")
    assert file.filename == "owls.md" and file.bytes == 23
    attached = client.vector_stores.files.create(home.handbook, file_id=file.id)
    assert attached.status == "in_progress"
    home.take_in()
    polled = client.vector_stores.files.poll(file.id, vector_store_id=home.handbook)
    assert polled.status == "completed" and polled.last_error is None
    found = client.vector_stores.search(home.handbook, query="owls mill", max_num_results=1)
    (hit,) = found.data
    assert hit.filename == "owls.md" and "Owls" in hit.content[0].text
    assert client.files.content(file.id).read() == b"Owls fly over the mill."
    assert {f.filename for f in client.files.list()} == {"owls.md", "hours.md"}
    listed = client.vector_stores.files.list(home.handbook, limit=1)
    assert len({one.id for one in listed}) == 2  # the client turns the pages
    assert client.vector_stores.files.delete(file.id, vector_store_id=home.handbook).deleted


def test_a_batch_of_files(client: openai.OpenAI, home: Home) -> None:
    names = ("a.md", "b.md")
    ids = [client.files.create(file=(n, n.encode()), purpose="assistants").id for n in names]
    batch = client.vector_stores.file_batches.create(home.handbook, file_ids=ids)
    assert batch.status == "in_progress" and batch.file_counts.in_progress == 2
    home.take_in()
    polled = client.vector_stores.file_batches.poll(batch.id, vector_store_id=home.handbook)
    assert polled.status == "completed" and polled.file_counts.completed == 2
    listed = client.vector_stores.file_batches.list_files(
        batch.id, vector_store_id=home.handbook, filter="completed"
    )
    assert {one.id for one in listed} == set(ids)
    later = client.files.create(file=("c.md", b"c"), purpose="assistants")
    second = client.vector_stores.file_batches.create(home.handbook, file_ids=[later.id])
    gone = client.vector_stores.file_batches.cancel(second.id, vector_store_id=home.handbook)
    assert gone.status == "cancelled" and gone.file_counts.cancelled == 1
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.file_batches.retrieve("vsfb_x", vector_store_id=home.handbook)


def test_stores(client: openai.OpenAI) -> None:
    made = client.vector_stores.create(name="second")
    assert made.file_counts.total == 0 and made.status == "completed"
    assert {one.name for one in client.vector_stores.list()} == {"handbook", "second"}
    assert client.vector_stores.retrieve(made.id).name == "second"
    assert client.vector_stores.delete(made.id).deleted


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=ASKED)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="vademecum", messages=ASKED, temperature=9)
    assert wrong.value.param == "temperature"
