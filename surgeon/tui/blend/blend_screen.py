"""Which donors, method and base a range of layers is blended with."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from ...errors import InputError
from ...methods.catalogue import every
from ...methods.registry import Method
from ...plan.layers.blending import counted
from ...recipe import stack
from ...recipe.edits import BlendLayers, grammar
from ...recipe.edits.blend_text import span
from ...text import one_line
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..session import Session
from ..widgets.line import Line, Piece
from ..widgets.prompt import Prompt
from ..widgets.text_pane import TextPane, wrapped

Run = tuple[str, int, int]
FIRST = ("slerp", "linear", "ties", "task_arithmetic", "dare_ties", "nuslerp", "model_stock", "della")
"""The methods most recipes use, before the others."""

_BASES = {
    "none": "plays no part",
    "member": "is one more donor where it is among them",
    "start": "is where 0 is",
    "optional": "is subtracted from the donors where they have it",
    "required": "is subtracted from the donors",
}


class Choice:
    """What is being chosen, without a widget.

    Args:
        session: donors, recipe, register.
        start: the first output layer.
        stop: one past the last.
    """

    def __init__(self, session: Session, start: int, stop: int) -> None:
        self.session, self.start, self.stop = session, start, stop
        slices = session.recipe.explicit(session.donors.depth)
        self.sources = [cell.sources for cell in stack.cells(slices)][start:stop]
        self.blended = any(len(layer) > 1 for layer in self.sources)
        parts = stack.take(slices, start, stop)
        self.held_method = parts[0].merge_method or session.recipe.merge_method
        self.held_base = parts[0].base_model or session.recipe.base_model
        known = every()
        names = [name for name in FIRST if name in known]
        self.methods = [known[name] for name in (*names, *(n for n in known if n not in (*names, "passthrough")))]
        self.base: str | None = None
        self.runs: tuple[Run, ...] = self._first_runs()

    @property
    def count(self) -> int:
        """Number of layers."""
        return self.stop - self.start

    def _first_runs(self) -> tuple[Run, ...]:
        held = self.session.register
        if held and len(held.runs) == 1 and held.count == self.count and held.runs[0] not in self.present():
            return held.runs
        return () if self.blended else next(iter(self.offers()), ())

    def present(self) -> set[Run]:
        """The runs that the layers are of already, where they are runs."""
        firsts = self.sources[0] if self.sources else ()
        return {(ref, layer, layer + self.count) for ref, layer in firsts}

    def offers(self) -> list[tuple[Run, ...]]:
        """One further donor each: the layers of the same numbers, or the nearest that it has."""
        first = self.sources[0][0][1] if self.sources else self.start
        found: list[tuple[Run, ...]] = []
        for ref in self.session.models:
            checkpoint = self.session.checkpoint(ref)
            if checkpoint is None or checkpoint.depth < self.count:
                continue
            start = min(first, checkpoint.depth - self.count)
            if (ref, start, start + self.count) not in self.present():
                found.append(((ref, start, start + self.count),))
        return found

    def turn(self, step: int) -> None:
        """The next donor of those on offer; none too where the layers are blends already."""
        offers = [*([()] if self.blended else []), *self.offers()]
        if offers:
            index = offers.index(self.runs) + step if self.runs in offers else 0
            self.runs = offers[index % len(offers)]

    def bases(self, method: Method) -> list[str | None]:
        """What can be the base: None leaves it as it is."""
        if method.base == "none":
            return [None]
        inside = dict.fromkeys(ref for layer in self.sources for ref, _ in layer)
        members = list(dict.fromkeys([*inside, *(ref for ref, _, _ in self.runs)]))
        others = [] if method.base == "start" else [ref for ref in self.session.models if ref not in members]
        unsaid = [] if method.base == "required" and self.held_base is None else [None]
        return [*unsaid, *(ref for ref in (*members, *others) if ref != self.held_base)]

    def base_of(self, method: Method) -> str | None:
        """The base as it would be set: what was chosen if it can be, else the first that can."""
        options = self.bases(method)
        return self.base if self.base in options else options[0]

    def turn_base(self, method: Method) -> None:
        """The next base."""
        options = self.bases(method)
        self.base = options[(options.index(self.base_of(method)) + 1) % len(options)]

    def edit(self, method: Method) -> BlendLayers:
        """The edit, without parameters."""
        return BlendLayers(self.start, self.stop, self.runs, method.name, self.base_of(method))

    def misfit(self, method: Method) -> str:
        """Why a method does not take as many donors; empty where it does."""
        members = {ref for ref, _ in self.sources[0]} | {ref for ref, _, _ in self.runs}
        base = self.base_of(method) or self.held_base
        count = len(self.sources[0]) + len(self.runs) - (method.subtracts and base in members)
        if method.base == "start" and base is not None and base not in members and self.base_of(method) is not None:
            count += 1
        low, high = method.donors
        if count >= low and (high is None or count <= high):
            return ""
        return f"takes {counted(method.donors)}" + (" besides the base" if method.subtracts else "")


class BlendScreen(ActionScreen):
    """Gives the blend, without its parameters; None when it was left without."""

    kind: ClassVar[ScreenName] = "blend"
    DEFAULT_CSS = """
    BlendScreen #header, BlendScreen #footer { background: $panel; }
    BlendScreen #about { height: 4; }
    """

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.choice = choice

    def compose(self) -> ComposeResult:
        """Header, donors, base, methods, what the one under the cursor does, status, footer."""
        yield Line(id="header")
        yield Line(id="donors")
        yield Line(id="base")
        yield TextPane(pointed=True, id="methods")
        yield TextPane(id="about")
        yield Line(id="status")
        yield Prompt(id="prompt")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Begin at the method the layers have, if they are blends."""
        pane = self.query_one("#methods", TextPane)
        names = [method.name for method in self.choice.methods]
        pane.focus()
        self.fill()
        if self.choice.held_method in names:
            pane.move(names.index(self.choice.held_method))
        self.call_after_refresh(self.fill)

    def on_resize(self) -> None:
        """Wrap anew."""
        self.call_after_refresh(self.fill)

    @property
    def method(self) -> Method:
        """The one under the cursor."""
        return self.choice.methods[self.query_one("#methods", TextPane).cursor]

    def fill(self) -> None:
        """Show everything."""
        choice, letters = self.choice, self.session.letters
        first = "~".join(f"{letters[ref]}{layer:02d}" for ref, layer in choice.sources[0])
        last = "~".join(f"{letters[ref]}{layer:02d}" for ref, layer in choice.sources[-1])
        is_ = first if choice.count == 1 else f"{first} .. {last}"
        self.query_one("#header", Line).show(
            (f" BLEND {span(choice.start, choice.stop)}", theme.TITLE), (f"  now {is_}", theme.PLAIN)
        )
        with_: list[Piece] = [(" with   ", theme.DIM)]
        for ref, start, stop in choice.runs:
            with_.append((f"{letters.get(ref, '?')} {span(start, stop)} ", theme.hue(letters.get(ref, "A"))))
            with_.append((f"{one_line(ref)}  ", theme.DIM))
        if not choice.runs:
            with_.append(("no further donor" + (": another method" if choice.blended else ""), theme.PLAIN))
        self.query_one("#donors", Line).show(*with_)
        widest = max(len(method.name) for method in choice.methods)
        rows = []
        for method in choice.methods:
            why = choice.misfit(method)
            rows.append(
                [
                    (f" {method.name:<{widest}}  ", theme.DIM if why else theme.BOLD),
                    (why or method.summary, theme.DIM),
                ]
            )
        self.query_one("#methods", TextPane).show(rows)
        self.show_method()
        self.show_footer(self.query_one("#footer", Line))

    def show_method(self) -> None:
        """What the method under the cursor does and takes."""
        choice, method, letters = self.choice, self.method, self.session.letters
        base = choice.base_of(method)
        own = base or choice.held_base
        inside = {ref for ref, _ in choice.sources[0]} | {ref for ref, _, _ in choice.runs}
        if method.base == "start" and own not in inside:
            own = choice.sources[0][0][0]
        pieces: list[Piece] = [(" base   ", theme.DIM)]
        if method.base == "none":
            pieces.append((_BASES["none"], theme.DIM))
        else:
            letter = letters.get(own or "", "")
            pieces.append((f"{letter} " if letter else "none ", theme.hue(letter) if letter else theme.PLAIN))
            unsaid = " (the recipe's)" if base is None and own is not None and own == choice.held_base else ""
            pieces.append((f"{one_line(own) if own else ''}{unsaid}  {_BASES[method.base]}", theme.DIM))
        self.query_one("#base", Line).show(*pieces)
        about = self.query_one("#about", TextPane)
        width = max(20, about.size.width - 2)
        names = ", ".join(method.parameters) or "none"
        text = [*wrapped(method.summary, width), *wrapped(f"parameters: {names}", width)]
        about.show(
            [[(f" {line}", theme.PLAIN if number < len(text) - 1 else theme.DIM)] for number, line in enumerate(text)]
        )

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence on the status line."""
        self.query_one("#status", Line).show((f" {one_line(text)}", theme.SEVERITY.get(severity, theme.PLAIN)))

    def leave_input(self) -> None:
        """Escape was pressed in the line."""
        self.query_one(Prompt).close()

    def _step(self, step: int) -> None:
        self.query_one("#methods", TextPane).move(step)
        self.query_one("#status", Line).show()
        self.show_method()

    def do_down(self, count: int | None) -> None:
        """Next method."""
        self._step(1)

    def do_up(self, count: int | None) -> None:
        """Previous method."""
        self._step(-1)

    def do_half_down(self, count: int | None) -> None:
        """Half a page down."""
        self._step(max(1, self.query_one("#methods").size.height // 2))

    def do_half_up(self, count: int | None) -> None:
        """Half a page up."""
        self._step(-max(1, self.query_one("#methods").size.height // 2))

    def do_next_donor(self, count: int | None) -> None:
        """Another donor."""
        self._turn(1)

    def do_previous_donor(self, count: int | None) -> None:
        """The donor before."""
        self._turn(-1)

    def _turn(self, step: int) -> None:
        if not self.choice.offers():
            self.say("no other donor has as many layers: open one, or d types which", "warning")
            return
        self.choice.turn(step)
        self.fill()

    def do_donors(self, count: int | None) -> None:
        """Type donors' layers."""
        letters = self.session.letters
        text = " ".join(f"{letters.get(ref, ref)}:{span(start, stop)}" for ref, start, stop in self.choice.runs)
        self.query_one(Prompt).ask("further donors' layers:", text, self._typed)

    def _typed(self, text: str) -> None:
        choice = self.choice
        try:
            edit = grammar.parse(f"blend {span(choice.start, choice.stop)} {text}", self.session.models)
            assert isinstance(edit, BlendLayers)
            BlendLayers(choice.start, choice.stop, edit.runs, "linear").apply(
                self.session.recipe, self.session.donors.depth
            )
        except InputError as error:
            self.say(error.sentence(), "error")
            return
        choice.runs = edit.runs
        self.fill()

    def do_base(self, count: int | None) -> None:
        """Another base."""
        if self.method.base == "none":
            self.say(f"{self.method.name} has no base", "warning")
            return
        self.choice.turn_base(self.method)
        self.fill()

    def do_apply(self, count: int | None) -> None:
        """Go on."""
        choice, method = self.choice, self.method
        if why := choice.misfit(method):
            self.say(f"{method.name} {why}: ] changes the donor, d types several, b changes the base", "warning")
            return
        if not choice.runs and not choice.blended and method.base not in ("required", "start"):
            self.say("these layers have one donor: ] adds another", "warning")
            return
        edit = choice.edit(method)
        try:
            edit.apply(self.session.recipe, self.session.donors.depth)
        except InputError as error:
            self.say(error.sentence(), "error")
            return
        self.dismiss(edit)
