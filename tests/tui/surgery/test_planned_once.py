"""Every edit of the surgery screen plans the recipe once; keys that change nothing plan nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock, patch

import pytest

from surgeon.recipe import document as documents
from surgeon.tui import session
from surgeon.tui.app import SurgeonApp
from surgeon.tui.session import Session
from tests.support.tui import command, donors, keys

RECIPE = "slices:\n- sources: [{model: ./a, layer_range: [0, 4]}]\n- sources: [{model: ./b, layer_range: [4, 8]}]\n"
YANK = "apostrophe b g g 2 j 2 y apostrophe apostrophe g g 3 j escape"


@pytest.fixture
def resolve() -> Iterator[MagicMock]:
    with patch.object(session, "resolve", wraps=session.resolve) as found:
        yield found


@pytest.fixture
def application(in_tmp: Path) -> SurgeonApp:
    refs = donors(in_tmp, "ab")
    (in_tmp / "r.yml").write_text(RECIPE)
    return SurgeonApp(Session(refs, documents.load(in_tmp / "r.yml")))


@pytest.mark.parametrize(
    "key",
    ["p", "P", "r", "d", "2 d", "x", "2 x", "D", "3 D", "J", "K", "v j x", "v j d", "v 2 j tilde", "v j D", "v j r",
     "v j J"],
)  # fmt: skip
async def test_an_edit_plans_once(application: SurgeonApp, resolve: MagicMock, key: str) -> None:
    async with application.run_test(size=(120, 40)) as pilot:
        await keys(pilot, YANK)
        before = application.session.recipe
        resolve.reset_mock()
        await keys(pilot, key)
        assert application.session.recipe != before
        assert resolve.call_count == 1
        for again in ("u", "ctrl+r", "u"):
            resolve.reset_mock()
            await keys(pilot, again)
            assert resolve.call_count == 1
        assert application.session.recipe == before


@pytest.mark.parametrize(
    "text",
    ["insert B:0-3 @2", "delete 1-2", "move 1-2 @6", "duplicate 1-2 x2", "replace 1-2 B:0-1", "reverse 0-3",
     "scale 0-3 o_proj=0.5", "blend 0-3 B:0-3 method=linear weight=0.5", "end lm_head B", "dtype float16", "base B",
     "edges first 2 model=B", "expand 0-3 every=2"],
)  # fmt: skip
async def test_a_command_plans_once(application: SurgeonApp, resolve: MagicMock, text: str) -> None:
    async with application.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        before = application.session.recipe
        resolve.reset_mock()
        await command(pilot, text)
        assert application.session.recipe != before
        assert resolve.call_count == 1


async def test_moving_and_looking_plan_nothing(application: SurgeonApp, resolve: MagicMock) -> None:
    async with application.run_test(size=(120, 40)) as pilot:
        await keys(pilot, "g g")
        resolve.reset_mock()
        await keys(pilot, "j j v j escape tab j y apostrophe apostrophe z z i i f escape enter escape p u")
        assert resolve.call_count == 2  # those of `p` and `u`
