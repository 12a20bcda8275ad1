"""The two kinds of errors. Each is a sentence that says what, where, why, and the remedy."""

from __future__ import annotations

from .text import safe


class SurgeonError(Exception):
    """surgeon failed while working (exit code 1).

    Attributes:
        what: the failure, as a clause without a full stop.
        where: the file, recipe line, layer or tensor of the failure; may be empty.
        why: the reason; may be empty.
        remedy: what the user can do; may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "") -> None:
        self.what, self.where, self.why, self.remedy = (safe(part) for part in (what, where, why, remedy))
        super().__init__(self.sentence())

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle an error by its parts, because subclasses have other constructor arguments."""
        return _rebuilt, (type(self), self.what, self.where, self.why, self.remedy)

    def sentence(self) -> str:
        """The error as one or two sentences, safe to print on a terminal."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.why:
            text += f", because {self.why}"
        text += "."
        if self.remedy:
            text += f" {self.remedy[0].upper()}{self.remedy[1:]}."
        return text


def _rebuilt(kind: type[SurgeonError], what: str, where: str, why: str, remedy: str) -> SurgeonError:
    error = kind.__new__(kind)
    SurgeonError.__init__(error, what, where=where, why=why, remedy=remedy)
    return error


class InputError(SurgeonError):
    """The input is wrong: a file, a recipe, an argument (exit code 2)."""

    exit_code = 2
