"""Files that are read and parsed ahead, in threads, while others are embedded.

Two lanes with threads and children of their own: a scan in a bulk load keeps no file waiting that
came alone. Knows nothing of which files come next.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ingest.parse import Parser
from ingest.pipeline import Draft, Pipeline
from ingest.settings import IngestSettings
from kb.ledger import File

Version = tuple[str, float]


def version(file: File) -> Version:
    """What tells this work from other work, also on the same file."""
    return file.id, file.changed_at


class Ahead:
    """`begin` and `done` are for one thread. `notify` is called, from others, when a file is read;
    `close` when done."""

    def __init__(
        self, pipeline: Pipeline, settings: IngestSettings, notify: Callable[[], None]
    ) -> None:
        self._pipeline = pipeline
        self._notify = notify
        self._lanes = {bulk: _Lane(settings, bulk) for bulk in (False, True)}
        self._under_way: dict[Version, tuple[File, Future[Draft]]] = {}
        # The first file that a person saves shall not wait for a child to start.
        self._lanes[False].threads.submit(lambda: self._lanes[False].parser().start())

    def __contains__(self, file: File) -> bool:
        return version(file) in self._under_way

    def count(self, *, bulk: bool) -> int:
        return sum(1 for file, _ in self._under_way.values() if file.bulk is bulk)

    def begin(self, file: File) -> None:
        lane = self._lanes[file.bulk]
        future = lane.threads.submit(lambda: self._pipeline.begin(file, lane.parser()))
        self._under_way[version(file)] = (file, future)
        future.add_done_callback(lambda _: self._notify())

    def done(self, patience: float) -> list[tuple[File, Draft | BaseException]]:
        """Those that are read, or why they are not. For one that came alone so many seconds are
        waited: it is better embedded in this turn than in the next."""
        wait([future for file, future in self._under_way.values() if not file.bulk], patience)
        out: list[tuple[File, Draft | BaseException]] = []
        for key, (file, future) in list(self._under_way.items()):
            if future.done():
                del self._under_way[key]
                out.append((file, future.exception() or future.result()))
        return out

    def close(self) -> None:
        """End all reading, whatever it is doing."""
        for lane in self._lanes.values():
            lane.close()


class _Lane:
    def __init__(self, settings: IngestSettings, bulk: bool) -> None:
        self._settings = settings
        self._bulk = bulk
        self._mine = threading.local()
        self._parsers: list[Parser] = []
        self._is_closed = False
        name = "parse-bulk" if bulk else "parse"
        self.threads = ThreadPoolExecutor(settings.parse_at_once, name)

    def parser(self) -> Parser:
        """This thread's own."""
        if not hasattr(self._mine, "parser"):
            self._mine.parser = Parser(self._settings, patient=self._bulk)
            self._parsers.append(self._mine.parser)
            if self._is_closed:  # looked at after it can be seen, as `close` may have gone by
                self._mine.parser.close()
        made: Parser = self._mine.parser
        return made

    def close(self) -> None:
        # A thread that waits for its child sees it end; one that would start a child may not.
        self.threads.shutdown(wait=False, cancel_futures=True)
        self._is_closed = True
        for parser in list(self._parsers):
            parser.close()
        self.threads.shutdown()
