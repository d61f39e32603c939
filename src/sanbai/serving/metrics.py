"""What the server counts and times, for Prometheus; names as vLLM's behind `sanbai_`, so that its dashboards fit.

Numbers only: no text, no account, no address.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
MODEL = ("model_name",)
#: Seconds, from a token of a small model to an answer of a large one.
BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Metrics:
    """One server's figures; may be written from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._of_model: dict[str, ModelMetrics] = {}
        self.num_running = self._gauge("num_requests_running", "Answers in work.")
        self.num_waiting = self._gauge("num_requests_waiting", "Answers that wait.")
        self.cache_usage = self._gauge("kv_cache_usage_perc", "Share of the cache's blocks in use, 1 is all.", MODEL)
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.", MODEL)
        self.generation_tokens = self._counter("generation_tokens", "Tokens drawn.", MODEL)
        self.answers = self._counter("request_success", "Answers, by how they ended.", (*MODEL, "finished_reason"))
        self.preemptions = self._counter("num_preemptions", "Answers sent back to wait.", MODEL)
        self.prefix_hits = self._counter("prefix_cache_hits", "Tokens of prompts found in the cache.", MODEL)
        self.first_token = self._histogram("time_to_first_token_seconds", "From the order to its first token.")
        self.between_tokens = self._histogram("inter_token_latency_seconds", "From a token to the next.")
        self.whole = self._histogram("e2e_request_latency_seconds", "From the order to its last answer's end.")

    def of(self, model: str) -> ModelMetrics:
        """Return one model's figures, looked up once: that takes longer than counting."""
        if model not in self._of_model:
            self._of_model[model] = ModelMetrics(self, model)
        return self._of_model[model]

    def page(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(_Figures(self._registry))

    def _gauge(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"sanbai_{name}", meaning, labels, registry=self._registry)

    def _counter(self, name: str, meaning: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"sanbai_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(f"sanbai_{name}", meaning, MODEL, buckets=BUCKETS, registry=self._registry)


class ModelMetrics:
    """What is counted of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._answers, self._model = metrics.answers, model
        self.cache_usage = metrics.cache_usage.labels(model)
        self.prompt_tokens = metrics.prompt_tokens.labels(model)
        self.generation_tokens = metrics.generation_tokens.labels(model)
        self.preemptions = metrics.preemptions.labels(model)
        self.prefix_hits = metrics.prefix_hits.labels(model)
        self.first_token = metrics.first_token.labels(model)
        self.between_tokens = metrics.between_tokens.labels(model)
        self.whole = metrics.whole.labels(model)

    def count_end(self, reason: str) -> None:
        """Count an answer that has ended."""
        self._answers.labels(self._model, reason).inc()


class _Figures(Collector):
    """A registry's figures without the times at which each began, which the library adds and no dashboard reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield each figure's samples."""
        for figure in self._registry.collect():
            figure.samples = [sample for sample in figure.samples if not sample.name.endswith("_created")]
            yield figure
