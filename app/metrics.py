"""What the server counts, for Prometheus. A registry of its own, so that two servers in one process
(tests) do not meet. Knows no route."""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from app.answer import Event, Finished, Text
from kb import latency

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """`clock` gives seconds, of any origin."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "vademecum_answers", "Answers by outcome", ["outcome"], registry=self._registry
        )
        self._first = Histogram(
            "vademecum_first_text_seconds",
            "Seconds from the request to the answer's first text",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "vademecum_tokens", "Tokens of the engine", ["kind"], registry=self._registry
        )
        self.uploads = Counter("vademecum_uploads", "Uploaded files", registry=self._registry)
        self.under_way = Gauge(
            "vademecum_answers_under_way", "Answers being written", registry=self._registry
        )

    async def watch(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Hand an answer's events on, counting."""
        began, outcome, first = self._clock(), "broken", True
        self.under_way.inc()
        try:
            async with aclosing(events):
                async for event in events:
                    if first and isinstance(event, Text):
                        first = False
                        self._first.observe(self._clock() - began)
                    if isinstance(event, Finished):
                        outcome = "refused" if event.knowledge.get("refused") else "answered"
                        for kind in ("prompt_tokens", "completion_tokens"):
                            self._tokens.labels(kind).inc(event.usage.get(kind, 0))
                    yield event
        finally:
            self.under_way.dec()
            self._answers.labels(outcome).inc()

    def text(
        self,
        generations: Mapping[str, int],
        latencies: Mapping[str, Sequence[latency.Histogram]] | None = None,
        unwatched: Mapping[str, int] | None = None,
    ) -> bytes:
        """The exposition format; `generations`, `latencies` and `unwatched` (folders) are those of
        the knowledge bases that the reader may see, by name."""
        seen = CollectorRegistry()
        for metric, said, values in (
            ("generation", "Last committed change of a knowledge base", generations),
            ("unwatched_folders", "Folders whose changes the sweep finds", unwatched or {}),
        ):
            gauge = Gauge(f"vademecum_{metric}", said, ["knowledge_base"], registry=seen)
            for name, value in values.items():
                gauge.labels(name).set(value)
        seen.register(_Latencies(latencies or {}))
        return generate_latest(self._registry) + generate_latest(seen)


class _Latencies(Collector):
    """What ingest noted in the knowledge bases, as Prometheus' histograms."""

    _SAID: Mapping[latency.What, str] = {
        "searchable": "Seconds from a file's change to its being found",
        "gone": "Seconds from a file's deletion to its not being found",
    }

    def __init__(self, latencies: Mapping[str, Sequence[latency.Histogram]]) -> None:
        self._latencies = latencies

    def collect(self) -> Iterator[HistogramMetricFamily]:
        for what, said in self._SAID.items():
            family = HistogramMetricFamily(
                f"vademecum_file_{what}_seconds", said, labels=["knowledge_base", "lane"]
            )
            for name, several in self._latencies.items():
                for one in several:
                    if one.what == what:
                        lane = "bulk" if one.bulk else "fresh"
                        family.add_metric([name, lane], _cumulative(one.counts), one.seconds)
            yield family


def _cumulative(counts: Sequence[tuple[float, int]]) -> list[tuple[str, float]]:
    ends = ["+Inf" if end == float("inf") else str(end) for end, _ in counts]
    return list(zip(ends, accumulate(float(n) for _, n in counts), strict=True))
