"""The screen that chooses donors, method and base of a blend."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from ...errors import InputError
from ...methods.registry import Method
from ...recipe.edits import BlendLayers, grammar
from ...recipe.edits.blend_text import span
from ...text import one_line
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..cells import short_name, shortened, wrapped
from ..widgets.line import Line, Piece
from ..widgets.prompt import Prompt
from ..widgets.status_line import StatusLine
from ..widgets.text_pane import TextPane
from .blend_choice import BlendChoice
from .further_donors import Offer

_BASES = {
    "none": "is not used",
    "member": "is one more donor if it is among the sources",
    "start": "is the donor at 0",
    "optional": "is subtracted from the donors if the slice has it",
    "required": "is subtracted from the donors",
}


MAX_OFFERS = 5
"""Lines of the list of donors; more of them scroll."""


class BlendScreen(ActionScreen):
    """Its result is the blend without its parameters; None when it was left without one."""

    kind: ClassVar[ScreenName] = "blend"
    DEFAULT_CSS = """
    BlendScreen #header, BlendScreen #footer { background: $panel; }
    BlendScreen #about { height: 4; }
    BlendScreen.-method #offers, BlendScreen.-method #donors { display: none; }
    """

    def __init__(self, choice: BlendChoice) -> None:
        super().__init__()
        self.choice = choice
        self.set_class(choice.only_method, "-method")

    def compose(self) -> ComposeResult:
        """Header, donors, base, methods, what the one under the cursor does, status, footer."""
        yield Line(id="header")
        yield TextPane(pointed=True, id="offers")
        yield Line(id="donors")
        yield Line(id="base")
        yield TextPane(pointed=True, id="methods")
        yield TextPane(id="about")
        yield StatusLine(id="status")
        yield Prompt(id="prompt")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Begin at the method the layers have, if they are blends."""
        self.query_one("#offers").styles.height = min(MAX_OFFERS, max(1, len(self.choice.offers)))
        pane = self.query_one("#methods", TextPane)
        names = [method.name for method in self.choice.methods]
        pane.focus()
        self.fill()
        if self.choice.current_method in names:
            pane.move(names.index(self.choice.current_method))
        self.call_after_refresh(self.fill)

    def on_resize(self) -> None:
        """Wrap texts to the new width."""
        self.call_after_refresh(self.fill)

    @property
    def method(self) -> Method:
        """The method under the cursor."""
        return self.choice.methods[self.query_one("#methods", TextPane).cursor]

    def fill(self) -> None:
        """Draw the screen."""
        choice, letters = self.choice, self.choice.session.letters
        first = "~".join(f"{letters[ref]}{layer:02d}" for ref, layer in choice.sources[0])
        last = "~".join(f"{letters[ref]}{layer:02d}" for ref, layer in choice.sources[-1])
        now = first if choice.count == 1 else f"{first} .. {last}"
        name = "METHOD" if choice.only_method else "BLEND"
        self.query_one("#header", Line).show(
            (f" {name} {span(choice.start, choice.stop)}", theme.TITLE), (f"  now {now}", theme.PLAIN)
        )
        self.query_one("#offers", TextPane).show([self._offer_row(offer) for offer in choice.offers])
        pieces: list[Piece] = [(" with   ", theme.DIM)]
        for ref, start, stop in choice.runs:
            pieces.append((f"{letters.get(ref, '?')} {span(start, stop)} ", theme.hue(letters.get(ref, "A"))))
            pieces.append((f"{shortened(one_line(ref), 40)}  ", theme.DIM))
        if not choice.runs:
            pieces.append(("no further donor" + (": change the method" if choice.blended else ""), theme.PLAIN))
        self.query_one("#donors", Line).show(*pieces)
        widest = max(len(method.name) for method in choice.methods)
        rows = []
        for method in choice.methods:
            why = choice.why_unsuitable(method)
            rows.append(
                [
                    (f" {method.name:<{widest}}  ", theme.DIM if why else theme.BOLD),
                    (why or method.summary, theme.DIM),
                ]
            )
        self.query_one("#methods", TextPane).show(rows)
        self.show_method()
        self.show_footer(self.query_one("#footer", Line))

    def _offer_row(self, offer: Offer) -> list[Piece]:
        """A donor that can be chosen, or why it cannot."""
        ref, start, stop = offer.run
        letter = self.choice.session.letters.get(ref, "?")
        chosen = offer.run in self.choice.runs
        name = short_name(ref, 24)
        row: list[Piece] = [(" [x] " if chosen else " [ ] ", theme.BOLD if chosen else theme.DIM)]
        row.append((f"{letter} {span(start, stop)} ", theme.DIM if offer.why_not else theme.hue(letter)))
        return [*row, (f"{name}  {offer.why_not}", theme.PLAIN if chosen else theme.DIM)]

    def show_method(self) -> None:
        """Show what the method under the cursor does, its base and its parameters."""
        choice, method, letters = self.choice, self.method, self.choice.session.letters
        base = choice.base_of(method)
        own = base or choice.current_base
        inside = {ref for ref, _ in choice.sources[0]} | {ref for ref, _, _ in choice.runs}
        if method.base == "start" and own not in inside:
            own = choice.sources[0][0][0]
        pieces: list[Piece] = [(" base   ", theme.DIM)]
        if method.base == "none":
            pieces.append((_BASES["none"], theme.DIM))
        else:
            letter = letters.get(own or "", "")
            pieces.append((f"{letter} " if letter else "none ", theme.hue(letter) if letter else theme.PLAIN))
            unsaid = " (the recipe's)" if base is None and own is not None and own == choice.current_base else ""
            pieces.append((f"{shortened(one_line(own), 30) if own else ''}{unsaid}  {_BASES[method.base]}", theme.DIM))
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
        self.query_one("#status", StatusLine).say(text, severity)

    def leave_input(self) -> None:
        """Escape was pressed in the line."""
        self.query_one(Prompt).close()

    @property
    def _active(self) -> TextPane:
        """The list that the cursor keys move in."""
        offers = self.query_one("#offers", TextPane)
        return offers if offers.has_focus else self.query_one("#methods", TextPane)

    def _step(self, step: int) -> None:
        self._active.move(step)
        self.query_one("#status", StatusLine).show()
        self.show_method()

    def do_other_list(self, count: int | None) -> None:
        """Go to the donors, or back to the methods."""
        if self.choice.only_method or not self.choice.offers:
            self.say("there is no list of donors here", "warning")
            return
        self.query_one("#methods" if self._active.id == "offers" else "#offers").focus()

    def do_toggle(self, count: int | None) -> None:
        """Choose the donor under the cursor, or no longer."""
        pane, offers = self.query_one("#offers", TextPane), self.choice.offers
        if not offers:
            self.say("there is no donor to choose", "warning")
            return
        try:
            self.choice.toggle(offers[pane.cursor])
        except InputError as error:
            self.say(error.sentence(), "warning")
            return
        self.query_one("#status", StatusLine).show()
        self.fill()

    def do_down(self, count: int | None) -> None:
        """Go to the next method or donor."""
        self._step(1)

    def do_up(self, count: int | None) -> None:
        """Go to the previous method or donor."""
        self._step(-1)

    def do_half_down(self, count: int | None) -> None:
        """Go half a page down."""
        self._step(max(1, self._active.size.height // 2))

    def do_half_up(self, count: int | None) -> None:
        """Go half a page up."""
        self._step(-max(1, self._active.size.height // 2))

    def do_next_donor(self, count: int | None) -> None:
        """Blend with the next donor alone."""
        self._turn(1)

    def do_previous_donor(self, count: int | None) -> None:
        """Blend with the previous donor alone."""
        self._turn(-1)

    def _turn(self, step: int) -> None:
        if all(offer.why_not for offer in self.choice.offers):
            self.say("there is no other donor to choose", "warning")
            return
        self.choice.next_donor(step)
        pane, offers = self.query_one("#offers", TextPane), self.choice.offers
        place = next((index for index, offer in enumerate(offers) if offer.run in self.choice.runs), 0)
        pane.move(place - pane.cursor)
        self.fill()

    def do_donors(self, count: int | None) -> None:
        """Let the user type donors' layers."""
        if self.choice.only_method:
            self.say("only the method is chosen here: b on the stack adds donors", "warning")
            return
        letters = self.choice.session.letters
        text = " ".join(f"{letters.get(ref, ref)}:{span(start, stop)}" for ref, start, stop in self.choice.runs)
        self.query_one(Prompt).ask("further donors' layers:", text, self._typed)

    def _typed(self, text: str) -> None:
        choice = self.choice
        try:
            edit = grammar.parse(f"blend {span(choice.start, choice.stop)} {text}", self.choice.session.models)
            assert isinstance(edit, BlendLayers)
            BlendLayers(choice.start, choice.stop, edit.runs, "linear").apply(
                self.choice.session.recipe, self.choice.session.donors.depth
            )
        except InputError as error:
            self.say(error.sentence(), "error")
            return
        choice.type(edit.runs)
        self.query_one("#offers").styles.height = min(MAX_OFFERS, max(1, len(choice.offers)))
        self.fill()
        if wrong := next((offer.why_not for offer in choice.offers if offer.run in edit.runs and offer.why_not), ""):
            self.say(f"these cannot be blended: {wrong}", "warning")

    def do_base(self, count: int | None) -> None:
        """Take the next base."""
        if self.method.base == "none":
            self.say(f"{self.method.name} has no base", "warning")
            return
        self.choice.next_base(self.method)
        self.fill()

    def do_apply(self, count: int | None) -> None:
        """Leave with the blend as it is chosen."""
        choice, method = self.choice, self.method
        if why := choice.why_unsuitable(method):
            self.say(f"{method.name} {why}: space adds or removes donors, b changes the base", "warning")
            return
        if not choice.runs and not choice.blended and method.base not in ("required", "start"):
            self.say("these layers have one donor: space adds the one under the cursor", "warning")
            return
        edit = choice.edit(method)
        try:
            edit.apply(self.choice.session.recipe, self.choice.session.donors.depth)
        except InputError as error:
            self.say(error.sentence(), "error")
            return
        self.dismiss(edit)
