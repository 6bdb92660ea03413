"""What the server counts, for Prometheus. A registry of its own, so that two servers in one process
(tests) do not meet. Knows no route."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.answer import Event, Finished, Text

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

    def text(self, generations: Mapping[str, int]) -> bytes:
        """The exposition format; `generations` are those of the knowledge bases that the reader
        may see, by name."""
        seen = CollectorRegistry()
        gauge = Gauge(
            "vademecum_generation",
            "Last committed change of a knowledge base",
            ["knowledge_base"],
            registry=seen,
        )
        for name, generation in generations.items():
            gauge.labels(name).set(generation)
        return generate_latest(self._registry) + generate_latest(seen)
