"""The child process that reads documents: requests on standard input, replies on standard output.

A request is a line of JSON (`name`, `size`, `ocr`) and then `size` bytes; a reply is a line of
JSON, before which a line `{"page": true}` may tell that a scanned page is done. The child ends when
its input ends, also in the middle of a document: it never outlives its parent. Knows nothing of
time limits; the parent kills it.
"""

import json
import os
import queue
import resource
import sys
import threading
from typing import Any, BinaryIO

Request = tuple[str, bytes, dict[str, Any]]


def main(memory_mb: int, text_mb: int, nice: int) -> None:
    """Serve until end of input. `memory_mb` limits this process's own memory, `text_mb` a reply's
    text, which the parent has to hold; `nice` is how far it steps back behind others."""
    os.nice(nice)
    limit = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Native libraries print; what they print must not fall between replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Imported under the memory limit, and after the parent may already write.
    from ingest.formats import read
    from ingest.scans import Ocr
    from kb.errors import Unreadable

    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()

    def page_done() -> None:
        _send(replies, {"page": True})

    _send(replies, {"ready": True})
    while True:
        name, data, ocr = requests.get()
        try:
            parsed = read(name, data, ocr=Ocr(**ocr), progress=page_done)
            if (size := len(parsed.text.encode(errors="replace"))) > text_mb * 2**20:
                said = f"{name} holds {size / 2**20:.0f} MB of text; at most {text_mb} are taken"
                raise Unreadable("too_large", said)
            reply: dict[str, object] = {
                "text": parsed.text,
                "title": parsed.title,
                "pages": parsed.pages,
            }
        except Unreadable as error:
            reply = {"code": error.code, "message": str(error)}
        except MemoryError:
            message = f"{name} needs more than {memory_mb} MB of memory to be read"
            reply = {"code": "too_large", "message": message}
        _send(replies, reply)


def _receive(source: BinaryIO, requests: "queue.SimpleQueue[Request]") -> None:
    while line := source.readline():
        head = json.loads(line)
        data = source.read(head["size"])
        if len(data) < head["size"]:
            break
        requests.put((head["name"], data, head["ocr"]))
    # The parent is gone or wants no more; a native call in the main thread must not delay that.
    os._exit(0)


def _send(replies: BinaryIO, reply: dict[str, object]) -> None:
    try:
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()
    except BrokenPipeError:
        os._exit(0)  # the parent is gone; there is nobody to tell


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
