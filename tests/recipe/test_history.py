"""Undo, redo and repeat."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.recipe import stack
from surgeon.recipe.edits import Delete, Move, SetDtype
from surgeon.recipe.history import History
from surgeon.recipe.schema import Recipe
from tests.support.recipe_strategies import depth_of, edits_for, recipes


@settings(max_examples=100, deadline=None)
@given(recipes, st.data())
def test_undo_restores_and_redo_goes_forward_again(start: Recipe, data: st.DataObject) -> None:
    history = History(start)
    past = [history]
    for _ in range(data.draw(st.integers(1, 5))):
        depth = stack.depth(history.recipe.explicit(depth_of))
        after = history.apply(data.draw(edits_for(depth)), depth_of)
        if after is not history:
            past.append(after)
        history = after
    for before in reversed(past[:-1]):
        history = history.undo()
        assert history.recipe == before.recipe
        assert history.last == before.last
    assert history.undo() is history
    assert history.recipe is start
    for later in past[1:]:
        history = history.redo()
        assert history.recipe == later.recipe
    assert history.redo() is history


def test_an_edit_that_changes_nothing_is_no_step() -> None:
    start = History(Recipe.model_validate({"slices": [{"sources": [{"model": "b", "layer_range": [0, 4]}]}]}))
    assert start.apply(Move(1, 2, 1), depth_of) is start
    assert start.apply(SetDtype(None), depth_of) is start


def test_a_new_edit_forgets_what_was_undone() -> None:
    start = History(Recipe.model_validate({"slices": [{"sources": [{"model": "b", "layer_range": [0, 4]}]}]}))
    undone = start.apply(Delete(0, 1), depth_of).undo()
    assert undone.undone
    other = undone.apply(Delete(1, 2), depth_of)
    assert not other.undone
    assert other.last == Delete(1, 2)


def test_the_last_edit_can_be_done_again_elsewhere() -> None:
    start = History(Recipe.model_validate({"slices": [{"sources": [{"model": "b", "layer_range": [0, 5]}]}]}))
    once = start.apply(Delete(0, 2), depth_of)
    assert once.last is not None
    twice = once.apply(once.last.moved_to(1, 2), depth_of)
    assert [cell.sources for cell in stack.cells(twice.recipe.explicit(depth_of))] == [(("b", 2),)]
