"""What Prometheus reads at /metrics. Labels are routes, statuses and names of known tenants; never text of a client."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from rankwise.serve.engine import Engine
from rankwise.serve.residents import Residents

TENANTS = 100  # that have a label of their own; the others share `other`
_INSIDE = (0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.5)
_WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The numbers of one gateway, in a registry of their own.

    Attributes:
        inside: seconds within the gateway, by part: `submit` from the first byte of a request to the engine, without
            waiting for a slow client's body or for an adapter; `deliver` from a token to the socket, mean of a request;
            `both` their sum.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: set[str] = set()
        self._requests = self._counter("rankwise_requests", "Requests.", "tenant", "route", "status")
        self._tokens = self._counter("rankwise_tokens", "Tokens fed and answered.", "tenant", "kind")
        self.inside = self._histogram("rankwise_gateway_seconds", "Seconds inside the gateway.", _INSIDE, "part")
        self.first_token = self._histogram("rankwise_first_token_seconds", "Request to first token.", _WAITS)
        self.whole = self._histogram("rankwise_request_seconds", "Request to last byte.", _WAITS, "route")
        self.loads = self._histogram("rankwise_adapter_load_seconds", "Loading an adapter, canary included.", _WAITS)
        self.resumed = self._counter("rankwise_answers_resumed", "Answers taken up again after the engine died.")
        self.lost = self._counter("rankwise_answers_failed", "Accepted requests that ended with an error.", "code")
        self.refused = self._counter("rankwise_versions_refused", "Adapter versions that are not served.", "reason")
        self.polls_failed = self._counter("rankwise_registry_failures", "Looks at the registry that failed.")
        self.open = Gauge("rankwise_open_requests", "Requests being answered or waiting.", registry=self.registry)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, labels, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, words, labels, buckets=buckets, registry=self.registry)

    def label(self, tenant: str | None) -> str:
        """The label of a tenant; `none` where nobody was recognised."""
        if tenant is None:
            return "none"
        if tenant not in self._known and len(self._known) >= TENANTS:
            return "other"
        self._known.add(tenant)
        return tenant

    def request(self, tenant: str | None, route: str, status: int) -> None:
        self._requests.labels(self.label(tenant), route, str(status)).inc()

    def tokens(self, tenant: str, prompt: int, answer: int) -> None:
        self._tokens.labels(self.label(tenant), "prompt").inc(prompt)
        self._tokens.labels(self.label(tenant), "answer").inc(answer)

    def watch(self, engine: Engine, residents: Residents, planned: Callable[[], float | None]) -> None:
        """Add what engine and adapters say of themselves whenever the numbers are read."""
        self.registry.register(_State(engine, residents, planned))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _State:
    """Numbers that are looked up when they are read.

    Args:
        planned: the hit rate that the slots were planned with; None: nothing was planned.
    """

    def __init__(self, engine: Engine, residents: Residents, planned: Callable[[], float | None]):
        self._engine, self._residents, self._planned = engine, residents, planned

    def collect(self) -> Iterator[Metric]:
        yield from self._of_engine()
        yield from self._of_adapters()

    def _of_engine(self) -> Iterator[Metric]:
        state = self._engine.state()
        yield _gauge("rankwise_engine_alive", "Does the engine's process answer?", float(state.alive))
        yield _gauge("rankwise_engine_starts", "Starts of the engine's process.", state.starts)
        yield _gauge("rankwise_engine_running", "Requests in the batch.", state.running)
        yield _gauge("rankwise_engine_waiting", "Requests before the batch.", state.waiting)
        if state.resident_bytes is not None:
            yield _gauge("rankwise_engine_resident_bytes", "Memory of the engine's process.", state.resident_bytes)

    def _of_adapters(self) -> Iterator[Metric]:
        counts, resident = self._residents.counts, self._residents.resident()
        yield _gauge("rankwise_adapter_slots", "Adapters that may be loaded at once.", self._residents.slots)
        yield _gauge("rankwise_adapters_resident", "Adapters that are loaded.", len(resident))
        yield _gauge("rankwise_adapter_bytes", "Bytes of their files.", sum(files.bytes for files in resident))
        yield _count("rankwise_adapter_hits", "Requests whose adapter was loaded already.", counts.hits)
        yield _count("rankwise_adapter_misses", "Requests that waited for their adapter.", counts.misses)
        yield _count("rankwise_adapter_evictions", "Adapters that made room for others.", counts.evictions)
        if asked := counts.hits + counts.misses:
            yield _gauge("rankwise_adapter_hit_rate", "Share of hits so far.", counts.hits / asked)
        if (planned := self._planned()) is not None:
            yield _gauge(
                "rankwise_adapter_hit_rate_planned", "Share of hits that the slots were planned with.", planned
            )


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value)


def _count(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(name, words, value)
