"""The state of the current job in a few words, for the header of every screen."""

from __future__ import annotations

from ...jobs.job import Job
from ...text import duration
from .job_progress import JobProgress


class JobWatch:
    """Follows one job after the other.

    Attributes:
        job: the job that is followed; None before there is one.
    """

    def __init__(self) -> None:
        self.job: Job | None = None
        self._progress = JobProgress()
        self._looked_at = False

    def look_at(self) -> None:
        """The user sees the job's own screen: an end that is shown there need not be shown elsewhere."""
        self._looked_at = self._progress.finished is not None

    def words(self, job: Job | None) -> tuple[str, str]:
        """`writing 42 %, 1m 10s left`, or how the job ended until that was looked at; and its severity."""
        if job is None:
            return "", ""
        if self.job is None or job.folder != self.job.folder:
            # Its own reader: the run screen reads the events too.
            self.job, self._looked_at = Job(job.folder), False
            self._progress = JobProgress(self.job)
        progress = self._progress
        if not progress.finished:
            progress.poll(self.job)
        if progress.finished:
            return ("", "") if self._looked_at else self._ended(progress)
        if self.job.cancelled:
            return "cancelling", "warning"
        if progress.checking:
            return "checking that it loads", ""
        share = f"writing {100 * progress.done // progress.total} %" if progress.total else "starting"
        left = progress.latest.get("eta")
        return share + (f", {duration(left)} left" if progress.total and left is not None else ""), ""

    def _ended(self, progress: JobProgress) -> tuple[str, str]:
        kind = str((progress.finished or {}).get("event"))
        words = {"done": ("written", ""), "cancelled": ("writing was cancelled", "warning")}
        word, severity = words.get(kind, ("writing crashed" if kind == "crashed" else "writing failed", "error"))
        return f"{word}: :jobs shows it", severity
