"""The figures of a benchmark: best and median times, ratios to `cp`, and seconds per gigabyte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import linear_regression, median
from typing import Any

from .process_measure import Sample

COPY = "cp -r"
OWN = "surgeon"


@dataclass
class TimedCell:
    """All runs of one tool with one method at one size.

    Attributes:
        nbytes: bytes of the output's tensors, which are those of each donor too.
        method: the merge method.
        tool: `COPY`, `OWN`, or the peer's name.
        samples: the runs, in order.
        failure: the sentence of the error that ended the runs; empty without one.
    """

    nbytes: int
    method: str
    tool: str
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    @property
    def best(self) -> float:
        """The shortest wall time, in seconds."""
        return min(sample.wall for sample in self.samples)

    @property
    def median(self) -> float:
        """The median wall time, in seconds."""
        return median(sample.wall for sample in self.samples)

    def middle(self, name: str) -> float:
        """The median of the attribute `name` of the samples."""
        return float(median(getattr(sample, name) for sample in self.samples))

    @property
    def peak(self) -> int:
        """The highest peak memory of any run, in bytes."""
        return max(sample.peak for sample in self.samples)

    @property
    def anonymous(self) -> int:
        """The highest anonymous memory of any run, in bytes."""
        return max(sample.anonymous for sample in self.samples)

    def to_dict(self) -> dict[str, Any]:
        """The cell for JSON, with all samples."""
        return {
            "bytes": self.nbytes,
            "method": self.method,
            "tool": self.tool,
            "runs": [asdict(sample) for sample in self.samples],
            "failure": self.failure or None,
        }


@dataclass(frozen=True)
class Ratio:
    """A tool's time divided by that of the copy: of the best times and of the medians."""

    best: float
    median: float


def ratio(cell: TimedCell, cells: Sequence[TimedCell]) -> Ratio | None:
    """The ratio of a cell to the copy with the same method and size; None if either has no samples."""
    for other in cells:
        same = (other.nbytes, other.method, other.tool) == (cell.nbytes, cell.method, COPY)
        if same and other.samples and cell.samples:
            return Ratio(cell.best / other.best, cell.median / other.median)
    return None


@dataclass(frozen=True)
class Slope:
    """A straight line fitted to the best times over sizes: seconds per gigabyte (1e9 bytes), and seconds at size 0."""

    method: str
    tool: str
    per_gb: float
    fixed: float


def slopes(cells: Sequence[TimedCell]) -> Iterator[Slope]:
    """The slope of each method and tool with at least two sizes, by least squares."""
    for method, tool in dict.fromkeys((cell.method, cell.tool) for cell in cells):
        same = [cell for cell in cells if (cell.method, cell.tool) == (method, tool) and cell.samples]
        if len({cell.nbytes for cell in same}) > 1:
            line = linear_regression([cell.nbytes / 1e9 for cell in same], [cell.best for cell in same])
            yield Slope(method, tool, line.slope, line.intercept)
