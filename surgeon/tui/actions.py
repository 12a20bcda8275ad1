"""Every action of the interface, once: keys, help, footer, palette and the check against the command line use this.

An action's method is `do_<name>(count)` of its screen, or of one of the objects that the screen is made of; `perform`
finds it. `verb` is the edit of `surgeon edit --op` (and of `:`) that does the same; actions that change no recipe have
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ScreenName = Literal["surgery", "plan", "run", "try", "results", "blend", "curves", "any"]
COUNTED: frozenset[ScreenName] = frozenset({"surgery", "curves"})
"""The screens on which digits before a key are a count."""


@dataclass(frozen=True)
class Action:
    """One thing a person can do.

    Attributes:
        name: method name without `do_`.
        keys: keys as Textual names them; a space separates the keys of a sequence.
        show: the keys as text for the screen.
        help: what it does, as a phrase.
        short: the word in the footer; empty for none.
        screen: where it works.
        group: heading in the help.
        verb: edit of the command line that does the same; empty when the recipe is not changed.
    """

    name: str
    keys: tuple[str, ...]
    show: str
    help: str
    short: str = ""
    screen: ScreenName = "surgery"
    group: str = "move"
    verb: str = ""


ACTIONS: tuple[Action, ...] = (
    # The footer shows the actions that have a short word, in this order, as many as fit.
    Action("next_pane", ("tab", "l", "right"), "tab l", "next pane", "pane"),
    Action("select", ("v",), "v", "start or end a selection; move to extend it", "select", group="select"),
    Action("yank", ("y",), "y", "yank the selection, or n layers from the cursor", "yank", group="edit"),
    Action("paste", ("p",), "p", "insert what was yanked after the cursor", "paste", group="edit", verb="insert"),
    Action("blend", ("b",), "b", "blend the selection with donors: method, base, curves", "blend", group="blend",
           verb="blend"),
    Action("curves", ("c",), "c", "draw parameters of the selection, or of the slice", "curves", group="blend",
           verb="param"),
    Action("jump", ("apostrophe", "ctrl+o"), "' ^o", "jump: a letter goes to that donor, ' to the stack", "jump"),
    Action("plan", ("f",), "f", "findings, sizes, YAML and what changed", "plan", group="go"),
    Action("try_it", ("T",), "T", "generate text from the unwritten model", "try", group="go"),
    Action("results", ("H",), "H", "everything that was tried or evaluated", group="go"),
    Action("help", ("question_mark",), "?", "all keys; / searches them", "keys", screen="any", group="go"),
    Action("picture", ("f12",), "F12", "write the screen to an SVG file", screen="any", group="go"),
    Action("run", ("R",), "R", "write the model to disk", "write", group="go"),
    Action("undo", ("u",), "u", "undo", "undo", group="edit"),
    Action("delete", ("d",), "d", "delete the selection, or n layers", "delete", group="edit", verb="delete"),
    Action("save", ("w",), "w", "save the recipe", "save", group="file"),
    Action("open", ("o",), "o", "open a donor: choose from those nearby, or type a path", "open", group="file"),
    Action("command", ("colon",), ":", "command line, the same edits as `surgeon edit --op`", "command", group="edit"),
    Action("search", ("slash",), "/", "search layers, attributes and tensor names", "search"),
    Action("replace", ("r",), "r", "replace the selection with what was yanked", "replace", group="edit",
           verb="replace"),
    Action("duplicate", ("D",), "D", "n more copies of the selection after it", "copy", group="edit",
           verb="duplicate"),
    Action("method", ("m",), "m", "change the method of the selection", "method", group="blend", verb="method"),
    Action("edges", ("t",), "t", "set the first or last n layers: a donor, or a taper", "ends", group="blend",
           verb="edges"),
    Action("zoom", ("z",), "z", "show the stack by slices or by layers", "slices", group="go"),
    Action("down", ("j", "down"), "j down", "n lines down"),
    Action("up", ("k", "up"), "k up", "n lines up"),
    Action("top", ("g g", "home"), "gg", "first line"),
    Action("bottom", ("G", "end"), "G", "last line; 8G goes to layer 8"),
    Action("half_down", ("ctrl+d", "pagedown"), "^d PgDn", "half a page down"),
    Action("half_up", ("ctrl+u", "pageup"), "^u PgUp", "half a page up"),
    Action("next_slice", ("right_curly_bracket",), "}", "next slice of the stack"),
    Action("previous_slice", ("left_curly_bracket",), "{", "previous slice of the stack"),
    Action("previous_pane", ("shift+tab", "h", "left"), "S-tab h", "previous pane"),
    Action("next_donor", ("right_square_bracket",), "]", "next donor, if only some fit on the screen"),
    Action("previous_donor", ("left_square_bracket",), "[", "previous donor"),
    Action("next_match", ("n",), "n", "next match"),
    Action("previous_match", ("N",), "N", "previous match"),
    Action("mark", ("M",), "M", "mark this layer with a letter"),
    Action("to_mark", ("grave_accent",), "`", "go to a mark"),
    Action("extend_down", ("shift+down",), "S-down", "select downwards", group="select"),
    Action("extend_up", ("shift+up",), "S-up", "select upwards", group="select"),
    Action("select_slice", ("V",), "V", "select the whole slice", group="select"),
    Action("escape", ("escape",), "esc", "clear selection and count", group="select"),
    Action("paste_before", ("P",), "P", "insert what was yanked before the cursor", group="edit", verb="insert"),
    Action("cut", ("x",), "x", "yank and delete", group="edit", verb="delete"),
    Action("move_down", ("J", "alt+down"), "J", "move the selection n layers down", group="edit", verb="move"),
    Action("move_up", ("K", "alt+up"), "K", "move the selection n layers up", group="edit", verb="move"),
    Action("reverse", ("tilde",), "~", "reverse the order of the selection", group="edit", verb="reverse"),
    Action("scale", ("asterisk",), "*", "scale tensors of the selection", group="edit", verb="scale"),
    Action("stage", ("s",), "s", "edit another stage of a recipe in stages", group="file"),
    Action("set_end", ("e",), "e", "set the donor of embeddings, norm or head", group="edit", verb="end"),
    Action("upscale", ("U",), "U", "depth up-scaling of a donor", group="edit", verb="upscale"),
    Action("selfstack", ("S",), "S", "stack a donor on itself", group="edit", verb="selfstack"),
    Action("interleave", ("I",), "I", "interleave donors", group="edit", verb="interleave"),
    Action("expand", ("E",), "E", "block expansion: add copies with no effect", group="edit", verb="expand"),
    Action("unblend", ("B",), "B", "replace a blend with copies of one donor", group="blend", verb="unblend"),
    Action("collapse", ("C",), "C", "collapse the selection to one layer (LaCo)", group="blend", verb="collapse"),
    Action("redo", ("ctrl+r",), "^r", "redo", group="edit"),
    Action("repeat", ("full_stop",), ".", "repeat the last edit here", group="edit"),
    Action("detail", ("enter",), "enter", "all of the layer: tensors, shapes, attributes", group="go"),
    Action("inspector", ("i",), "i", "show or hide the inspector", group="go"),
    Action("save_as", ("W",), "W", "save under another name", group="file"),
    Action("quit", ("q", "ctrl+q"), "q", "quit", group="file"),
    # Plan
    Action("view", ("tab",), "tab", "findings, YAML, difference", "view", screen="plan", group="plan"),
    Action("down", ("j", "down"), "j down", "next finding, or line", screen="plan", group="plan"),
    Action("up", ("k", "up"), "k up", "previous finding, or line", screen="plan", group="plan"),
    Action("goto", ("enter",), "enter", "go to the finding's layer, or to its line in the YAML", "go there",
           screen="plan", group="plan"),
    Action("line", ("l",), "l", "go to the finding's line in the YAML", "line", screen="plan", group="plan"),
    Action("copy", ("y",), "y", "copy what is shown to the clipboard", "copy", screen="plan", group="plan"),
    Action("editor", ("E",), "E", "open the YAML in $EDITOR, and read it back", "edit", screen="plan", group="plan"),
    Action("half_down", ("ctrl+d", "pagedown"), "^d", "half a page down", screen="plan", group="plan"),
    Action("half_up", ("ctrl+u", "pageup"), "^u", "half a page up", screen="plan", group="plan"),
    Action("back", ("escape", "q", "f"), "esc", "back", "back", screen="plan", group="plan"),
    # Run
    Action("cancel", ("c",), "c", "cancel the job; it can be resumed", "cancel", screen="run", group="run"),
    Action("resume", ("R",), "R", "resume a job that was cancelled or has failed", "resume", screen="run", group="run"),
    Action("try_output", ("T",), "T", "try the written model", "try it", screen="run", group="run"),
    Action("back", ("escape", "q"), "esc", "back; a running job continues", "back", screen="run", group="run"),
    # Try
    Action("prompt", ("i", "enter"), "i", "type a prompt; enter sends it to every column", "prompt", screen="try",
           group="try"),
    Action("add_column", ("b",), "b", "put another model beside these: an earlier state, a donor, a recipe", "beside",
           screen="try", group="columns"),
    Action("probe", ("s",), "s", "score the probe sets: columns, output, donors", "score", screen="try", group="try"),
    Action("measure", ("x",), "x", "perplexity of texts: columns, output, donors", "texts", screen="try", group="try"),
    Action("view", ("tab",), "tab", "answers, or the table of scores", "table", screen="try", group="try"),
    Action("remove_column", ("B",), "B", "remove a column", screen="try", group="columns"),
    Action("turn", ("right_square_bracket",), "]", "show the next columns; the first stays", "turn", screen="try",
           group="columns"),
    Action("next_base", ("v",), "v", "compare scores with the next model", "base", screen="try", group="columns"),
    Action("results", ("H",), "H", "everything that was tried or evaluated", "history", screen="try", group="try"),
    Action("cancel", ("c",), "c", "stop", "stop", screen="try", group="try"),
    Action("raw", ("r",), "r", "prompts in the chat template, or as raw text", "raw/chat", screen="try", group="try"),
    Action("copy", ("y",), "y", "copy what is shown to the clipboard", "copy", screen="try", group="try"),
    Action("half_down", ("ctrl+d", "pagedown"), "^d", "scroll down", screen="try", group="try"),
    Action("half_up", ("ctrl+u", "pageup"), "^u", "scroll up", screen="try", group="try"),
    Action("back", ("escape", "q"), "esc", "back", "back", screen="try", group="try"),
    # Results
    Action("down", ("j", "down"), "j down", "next row", screen="results", group="results"),
    Action("up", ("k", "up"), "k up", "previous row", screen="results", group="results"),
    Action("detail", ("enter",), "enter", "all of the row: prompt, answer, scores, recipe", "read", screen="results",
           group="results"),
    Action("take", ("e",), "e", "edit the row's recipe; one step that u undoes", "edit it", screen="results",
           group="results"),
    Action("compare", ("d",), "d", "how this recipe differs from the row's", "difference", screen="results",
           group="results"),
    Action("copy", ("y",), "y", "copy the row to the clipboard", "copy", screen="results", group="results"),
    Action("half_down", ("ctrl+d", "pagedown"), "^d", "half a page down", screen="results", group="results"),
    Action("half_up", ("ctrl+u", "pageup"), "^u", "half a page up", screen="results", group="results"),
    Action("back", ("escape", "q"), "esc", "back", "back", screen="results", group="results"),
    # Blend
    Action("down", ("j", "down"), "j down", "next method or donor", screen="blend", group="blend"),
    Action("up", ("k", "up"), "k up", "previous method or donor", screen="blend", group="blend"),
    Action("half_down", ("ctrl+d", "pagedown"), "^d", "half a page down", screen="blend", group="blend"),
    Action("half_up", ("ctrl+u", "pageup"), "^u", "half a page up", screen="blend", group="blend"),
    Action("toggle", ("space",), "space", "add or remove a donor", "donor", screen="blend", group="blend"),
    Action("other_list", ("tab", "shift+tab"), "tab", "donors or methods", "list", screen="blend", group="blend"),
    Action("next_donor", ("right_square_bracket",), "]", "the next donor alone", screen="blend", group="blend"),
    Action("previous_donor", ("left_square_bracket",), "[", "the previous donor alone", screen="blend", group="blend"),
    Action("donors", ("d",), "d", "type donors' layers: B:8-15 C:8-15", "type", screen="blend", group="blend"),
    Action("base", ("b",), "b", "another base", "base", screen="blend", group="blend"),
    Action("apply", ("enter",), "enter", "continue to the curves, if any", "continue", screen="blend", group="blend"),
    Action("back", ("escape", "q"), "esc", "leave without a change", "back", screen="blend", group="blend"),
    # Curves
    Action("apply", ("enter",), "enter", "apply the curves as one edit", "apply", screen="curves", group="curves"),
    Action("cancel", ("escape",), "esc", "clear the selection, or leave", "leave", screen="curves", group="curves"),
    Action("next_track", ("tab",), "tab", "next track", "track", screen="curves", group="move"),
    Action("right", ("l", "right"), "l right", "n layers to the right", screen="curves", group="move"),
    Action("left", ("h", "left"), "h left", "n layers to the left", screen="curves", group="move"),
    Action("first", ("g g", "home"), "gg", "first layer", screen="curves", group="move"),
    Action("last", ("G", "end"), "G", "last layer; 8G goes to layer 8", screen="curves", group="move"),
    Action("previous_track", ("shift+tab",), "S-tab", "previous track", screen="curves", group="move"),
    Action("select", ("v",), "v", "start or end a selection", "select", screen="curves", group="select"),
    Action("select_all", ("V",), "V", "select every layer", screen="curves", group="select"),
    Action("extend_right", ("shift+right", "L"), "S-right", "select to the right", screen="curves", group="select"),
    Action("extend_left", ("shift+left", "H"), "S-left", "select to the left", screen="curves", group="select"),
    Action("raise", ("k", "up", "plus"), "k + up", "0.05 up, or the next word", "up", screen="curves", group="values"),
    Action("lower", ("j", "down", "minus"), "j - down", "0.05 down", "down", screen="curves", group="values"),
    Action("raise_fine", ("greater_than_sign", "K"), "> K", "0.01 up", screen="curves", group="values"),
    Action("lower_fine", ("less_than_sign", "J"), "< J", "0.01 down", screen="curves", group="values"),
    Action("set_value", ("equals_sign",), "=", "type a value or a gradient", "type", screen="curves", group="values"),
    Action("preset", ("m",), "m", "presets: flat, ramps, V, gradient slerp", "preset", screen="curves", group="values"),
    Action("ramp", ("r",), "r", "straight line between the selection's ends", screen="curves", group="values"),
    Action("smooth", ("s",), "s", "smooth; 3s over more layers", screen="curves", group="values"),
    Action("mirror", ("tilde",), "~", "mirror", screen="curves", group="values"),
    Action("add", ("a",), "a", "add a number", screen="curves", group="values"),
    Action("scale", ("asterisk",), "*", "multiply", screen="curves", group="values"),
    Action("taper", ("t",), "t", "taper 2 (or n) layers at both ends from a value", screen="curves", group="values"),
    Action("yank", ("y",), "y", "yank the curve", screen="curves", group="values"),
    Action("paste", ("p",), "p", "paste a yanked curve, stretched to fit", screen="curves", group="values"),
    Action("filter", ("f",), "f", "add a track for tensors with a name", "filter", screen="curves", group="tracks"),
    Action("remove", ("x",), "x", "remove the track of a filter", screen="curves", group="tracks"),
    Action("detail", ("i",), "i", "the track in full: every value, and its form", screen="curves", group="tracks"),
    Action("undo", ("u",), "u", "undo", "undo", screen="curves", group="values"),
    Action("redo", ("ctrl+r",), "^r", "redo", screen="curves", group="values"),
)  # fmt: skip


_in_use: tuple[Action, ...] = ACTIONS


def use(actions: tuple[Action, ...]) -> None:
    """Use these actions, which are `ACTIONS` with the user's keys."""
    global _in_use
    _in_use = actions


def of_screen(screen: ScreenName) -> list[Action]:
    """The actions that work on a screen."""
    return [action for action in _in_use if action.screen in (screen, "any")]


def keymap(screen: ScreenName) -> dict[str, Action]:
    """Key, or keys of a sequence separated by a space, -> action."""
    return {key: action for action in of_screen(screen) for key in action.keys}


def footer(screen: ScreenName) -> list[Action]:
    """What the footer shows, in order."""
    return [action for action in of_screen(screen) if action.short]


def perform(parts: Sequence[object], name: str, count: int | None = None) -> None:
    """Perform an action: call `do_<name>(count)` of the one part of a screen that has it."""
    method = f"do_{name}"
    part = next(part for part in parts if hasattr(part, method))
    getattr(part, method)(count)
