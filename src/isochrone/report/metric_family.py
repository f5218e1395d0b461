"""One metric over a status."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from isochrone.report.models import StatusReport

Sample = tuple[tuple[str, ...], float | None]
"""Label values, and the value; None when it was not measured."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: how it is called, what it means, and where a status holds it."""

    name: str
    text: str
    labels: tuple[str, ...]
    samples: Callable[[StatusReport], Iterable[Sample]]

    def metric(self, status: StatusReport) -> Metric:
        """Return the family with its present samples; a name that ends with `_total` is a counter."""
        family: CounterMetricFamily | GaugeMetricFamily
        if self.name.endswith("_total"):
            family = CounterMetricFamily(self.name.removesuffix("_total"), self.text, labels=self.labels)
        else:
            family = GaugeMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in self.samples(status):
            if value is not None:
                family.add_metric(labels, value)
        return family
