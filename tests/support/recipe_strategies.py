"""Random recipes, edits and spellings of YAML for the property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from surgeon.recipe import edits
from surgeon.recipe.schema import Recipe

DEPTHS = {"./base": 12, "org/math": 12, "../far away/code": 8, "b": 5}
MODELS = list(DEPTHS)


def depth_of(model: str) -> int:
    """Layers of the donors these recipes name."""
    return DEPTHS[model]


numbers = st.sampled_from([0, 1, 0.5, -0.25, 0.7071067811865476, 1e-05, 3])
filters = st.sampled_from(["o_proj", "down_proj", "mlp", "layers.1"])
gradients = st.lists(numbers, min_size=2, max_size=4)
rules = st.lists(
    st.one_of(
        st.builds(lambda f, v: {"filter": f, "value": v}, filters, st.one_of(numbers, gradients)),
        st.builds(lambda v: {"value": v}, st.one_of(numbers, gradients)),
    ),
    min_size=1,
    max_size=3,
)
settings = st.one_of(numbers, gradients, rules)


@st.composite
def sources(draw: st.DrawFn) -> dict[str, Any]:
    model = draw(st.sampled_from(MODELS))
    source: dict[str, Any] = {"model": model}
    if draw(st.integers(0, 5)):
        start = draw(st.integers(0, DEPTHS[model] - 1))
        source["layer_range"] = [start, draw(st.integers(start + 1, DEPTHS[model]))]
    if not draw(st.integers(0, 4)):
        source["parameters"] = {"scale": draw(settings)}
    return source


@st.composite
def slices(draw: st.DrawFn) -> dict[str, Any]:
    part: dict[str, Any] = {"sources": [draw(sources())]}
    if not draw(st.integers(0, 3)):
        part["parameters"] = {"scale": draw(settings)}
    if not draw(st.integers(0, 6)):
        part["merge_method"] = "passthrough"
    return part


@st.composite
def recipe_data(draw: st.DrawFn) -> dict[str, Any]:
    data: dict[str, Any] = {"merge_method": "passthrough"} if draw(st.booleans()) else {}
    if not draw(st.integers(0, 3)):
        data["base_model"] = draw(st.sampled_from(MODELS))
    data["slices"] = draw(st.lists(slices(), min_size=1, max_size=4))
    if not draw(st.integers(0, 3)):
        data["lm_head"] = draw(st.sampled_from([{"tie": True}, {"model": "b"}]))
    if not draw(st.integers(0, 3)):
        data["parameters"] = {"scale": draw(settings)}
    if draw(st.booleans()):
        data["dtype"] = draw(st.sampled_from(["bfloat16", "float32"]))
    return data


recipes = recipe_data().map(Recipe.model_validate)


def spans(depth: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, depth - 1), st.integers(1, depth)).map(lambda p: (p[0], min(p[0] + p[1], depth)))


@st.composite
def donor_spans(draw: st.DrawFn) -> tuple[str, int, int]:
    model = draw(st.sampled_from(MODELS))
    return (model, *draw(spans(DEPTHS[model])))


@st.composite
def edits_for(draw: st.DrawFn, depth: int) -> edits.Edit:
    """An edit that makes sense in a stack of that many layers."""
    model, low, high = draw(donor_spans())
    anywhere = [
        st.just(edits.Insert(model, low, high, draw(st.one_of(st.none(), st.integers(0, depth))))),
        st.just(edits.Upscale(model, draw(st.integers(0, DEPTHS[model] - 1)))),
        st.just(edits.SelfStack(model, 4, draw(st.integers(1, 4)))),
        st.just(edits.Interleave((model, "b"), 2, draw(st.integers(1, 2)))),
        st.builds(
            edits.SetEnd, st.sampled_from(["embeddings", "final_norm", "lm_head"]), st.sampled_from([model, None])
        ),
        st.just(edits.SetEnd("lm_head", tie=True)),
        st.builds(edits.SetDtype, st.sampled_from(["float16", "bfloat16", None])),
        st.builds(edits.SetBase, st.sampled_from([model, None])),
        st.builds(edits.InsertRuns, st.lists(donor_spans(), min_size=2, max_size=3).map(tuple), st.integers(0, depth)),
    ]
    if not depth:
        return draw(st.one_of(anywhere))
    start, stop = draw(spans(depth))
    factors = draw(st.dictionaries(st.one_of(st.just("*"), filters), numbers.map(float), min_size=1, max_size=2))
    return draw(
        st.one_of(
            *anywhere,
            st.just(edits.Delete(start, stop)),
            st.just(edits.Move(start, stop, draw(st.integers(0, depth)))),
            st.just(edits.Duplicate(start, stop, draw(st.integers(1, 3)))),
            st.just(edits.Replace(start, stop, model, low, high)),
            st.just(edits.Reverse(start, stop)),
            st.just(edits.Scale(start, stop, tuple(factors.items()))),
            st.builds(
                edits.Expand,
                st.just(start),
                st.just(stop),
                st.integers(1, stop - start),
                st.lists(filters, min_size=1, max_size=2, unique=True).map(tuple),
            ),
        )
    )
