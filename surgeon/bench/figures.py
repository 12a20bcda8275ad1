"""What was measured, and what follows from it: best and median times, ratios, and what a gigabyte costs."""

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
    """Every run of one tool for one method at one size.

    Attributes:
        nbytes: of the output's tensors, and of each donor's.
        method: the merge method.
        tool: `COPY`, `OWN`, or the peer's name.
        samples: the runs in order.
        failure: why there are none (more), as a sentence; empty where all is well.
    """

    nbytes: int
    method: str
    tool: str
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    @property
    def best(self) -> float:
        """The shortest wall time."""
        return min(sample.wall for sample in self.samples)

    @property
    def median(self) -> float:
        """The median wall time."""
        return median(sample.wall for sample in self.samples)

    def middle(self, name: str) -> float:
        """The median of another figure of the samples."""
        return float(median(getattr(sample, name) for sample in self.samples))

    @property
    def peak(self) -> int:
        """The most memory of any run."""
        return max(sample.peak for sample in self.samples)

    @property
    def anonymous(self) -> int:
        """The most anonymous memory of any run."""
        return max(sample.anonymous for sample in self.samples)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with every raw figure."""
        return {
            "bytes": self.nbytes,
            "method": self.method,
            "tool": self.tool,
            "runs": [asdict(sample) for sample in self.samples],
            "failure": self.failure or None,
        }


@dataclass(frozen=True)
class Ratio:
    """How many times as long as the copy a tool took: best by best and median by median."""

    best: float
    median: float


def ratio(cell: TimedCell, cells: Sequence[TimedCell]) -> Ratio | None:
    """A cell against the copy measured in turn with it; None where either has no samples."""
    for other in cells:
        same = (other.nbytes, other.method, other.tool) == (cell.nbytes, cell.method, COPY)
        if same and other.samples and cell.samples:
            return Ratio(cell.best / other.best, cell.median / other.median)
    return None


@dataclass(frozen=True)
class Slope:
    """A line through the best times over sizes: seconds per gigabyte, and seconds that no size explains."""

    method: str
    tool: str
    per_gb: float
    fixed: float


def slopes(cells: Sequence[TimedCell]) -> Iterator[Slope]:
    """One for every method and tool that has at least two sizes."""
    for method, tool in dict.fromkeys((cell.method, cell.tool) for cell in cells):
        same = [cell for cell in cells if (cell.method, cell.tool) == (method, tool) and cell.samples]
        if len({cell.nbytes for cell in same}) > 1:
            line = linear_regression([cell.nbytes / 1e9 for cell in same], [cell.best for cell in same])
            yield Slope(method, tool, line.slope, line.intercept)
