"""Numbers as Prometheus' families: what the collectors of this room are written with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.registry import Collector

Labels = tuple[str, ...]


def gauge(
    name: str,
    told: str,
    values: float | Mapping[Labels, float],
    labels: Sequence[str] = (),
) -> GaugeMetricFamily:
    """A number that goes up and down; one for each combination of labels."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, told, labels=labels)
    for key, value in _each(values):
        family.add_metric(key, value)
    return family


def counter(
    name: str,
    told: str,
    values: float | Mapping[Labels, float],
    labels: Sequence[str] = (),
) -> CounterMetricFamily:
    """A number that grows (`_total` is added to the name)."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, told, labels=labels)
    for key, value in _each(values):
        family.add_metric(key, value)
    return family


def histogram(
    name: str,
    told: str,
    bounds: Sequence[float],
    values: Mapping[Labels, tuple[Sequence[int], float]],
    labels: Sequence[str] = (),
) -> HistogramMetricFamily:
    """`values`: how many were at most each of `bounds` (not cumulative, one more for those above
    all), and their sum."""
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, told, labels=labels)
    names = [f"{bound:g}" for bound in bounds] + ["+Inf"]
    for key, (counts, total) in values.items():
        family.add_metric(
            key, list(zip(names, map(float, accumulate(counts)), strict=True)), sum_value=total
        )
    return family


def once(families: Iterable[object]) -> Collector:
    """A collector of exactly these."""
    from prometheus_client.registry import Collector

    known = list(families)

    class Once(Collector):
        def collect(self) -> Iterator[object]:  # type: ignore[override]  # they are metrics
            return iter(known)

    return Once()


def _each(values: float | Mapping[Labels, float]) -> Iterator[tuple[Labels, float]]:
    if isinstance(values, Mapping):
        yield from sorted(values.items())
    else:
        yield (), values
