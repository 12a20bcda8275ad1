"""Recipe files: what is refused and where, and what of a person's text survives an edit."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.errors import InputError
from surgeon.recipe import document as documents
from surgeon.recipe import stack
from surgeon.recipe.document import Document, as_data, fresh, load, parse
from surgeon.recipe.edits import Delete, Edit, Insert, Move, Reverse, Scale, SetBase, SetDtype, SetEnd, Upscale
from surgeon.recipe.schema import Recipe
from surgeon.recipe.yaml import writer
from surgeon.recipe.yaml.patch import comments
from tests.support.recipe_strategies import depth_of, edits_for, recipe_data, recipes

MERGEKIT = """\
# Depth up-scaling, my way
merge_method: passthrough   # copies

slices:
  # the beginning
  - sources:
    - model: ./a   # left
      layer_range: [0, 16]  # half
    # of A

  # the end
  - sources: # of B
    - model: b
      # inner
      layer_range: [0, 16]
    parameters:
      scale:
      - {filter: o_proj, value: 0.5} # half
      - value: 1
  # after the slices
dtype: bfloat16
# bye
"""


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(text, Path("r.yml"))
    assert caught.value.exit_code == 2
    return caught.value.sentence()


def after(document: Document, *changes: Edit) -> str:
    recipe = document.recipe
    for change in changes:
        recipe = change.apply(recipe, lambda _: 32)
    return document.with_recipe(recipe).text


# Reading.


def test_an_empty_file_is_an_empty_recipe() -> None:
    for text in ("", "\n", "# nothing yet\n", "---\n", "null\n"):
        assert parse(text).recipe == Recipe()


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a: [1, 2\n", 2, "','"),
        ("slices:\n\t- sources: x\n", 2, "tab"),
        ("a: b: c\n", 1, "mapping values"),
        ("dtype: float16\ndtype: float32\n", 2, "'dtype' occurs twice"),
        ("a: *nothing\n", 1, "*nothing"),
        ("a: &x [*x]\n", 1, "*x"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "tag"),
        ("? [a]\n: b\n", 1, "collection"),
        ("- a\n- b\n", 1, "a table of keys"),
        ("just words\n", 1, "a table of keys"),
        ("a: {<<: 3}\n", 1, "<<"),
    ],
)
def test_what_is_not_a_yaml_table_is_refused_at_its_line(text: str, line: int, why: str) -> None:
    sentence = refusal(text)
    assert sentence.startswith(f"r.yml, line {line}: this is not valid YAML"), sentence
    assert why.replace("tab", "'\\t'") in sentence or why in sentence


def test_deep_nesting_is_refused() -> None:
    sentence = refusal("a: " + "[" * 100 + "]" * 100 + "\n")
    assert sentence.startswith("r.yml, line 1: this is too large to be a recipe")
    assert "nested more than 60 deep" in sentence


def test_control_characters_are_refused() -> None:
    assert "not valid YAML" in refusal("name: \x01\n")
    assert "not valid YAML" in refusal("name: \x1b[31m\n")


def test_alias_bombs_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "more than 100,000 values, aliases expanded" in refusal("\n".join(lines) + "\n")


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_bytes(b"name: \xff\xfe\n")
    for place, why in ((path, "not UTF-8"), (tmp_path, "cannot read"), (tmp_path / "none.yml", "cannot read")):
        with pytest.raises(InputError, match=why):
            load(place)
    path.write_bytes(b"#" * (documents.MAX_BYTES + 1))
    with pytest.raises(InputError, match="too large"):
        load(path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_bytes("\ufeffdtype: float16\n".encode())
    assert load(path).recipe.dtype == "float16"


def test_a_wrong_value_is_named_with_its_place() -> None:
    sentence = refusal("merge_method: passthrough\nslices:\n- sources:\n  - model: a\n  - model: [b]\n")
    assert sentence.startswith("r.yml, line 5: slices.0.sources.1.model is wrong")


def test_tagged_plain_data_and_yaml_1_2_words_mean_what_they_say() -> None:
    data = parse("name: !!str 12\nmodules: {a: yes, b: 0x10, c: ~, d: '7', e: 1e-3, f: .5, g: 1_000}\n").recipe
    assert data.name == "12"
    assert data.modules == {"a": "yes", "b": 16, "c": None, "d": "7", "e": 0.001, "f": 0.5, "g": 1000}


def test_lines_are_known_for_every_place() -> None:
    document = parse(MERGEKIT)
    assert document.line("slices", 1, "parameters", "scale", 1) == 19
    assert document.line("slices", 0, "sources", 0, "layer_range") == 8
    assert document.line("slices", 1, "no", "such", "key") == 12
    assert document.line("lm_head") is None


def test_unknown_keys_are_found_at_every_level_with_what_was_meant() -> None:
    text = (
        "merge_metod: passthrough\nslices:\n- sources:\n  - model: a\n    layer_rnge: [0, 1]\n"
        "    parameters: {scale: [{filtr: o_proj, value: 2}]}\n  paramters: {}\n  zzz: 1\n"
        "lm_head: {modell: a}\nmodels:\n"
    )
    found = {(p.key, p.line, p.suggestion) for p in parse(text).key_problems}
    assert found == {
        ("merge_metod", 1, "merge_method"),
        ("layer_rnge", 5, "layer_range"),
        ("filtr", 6, "filter"),
        ("paramters", 7, "parameters"),
        ("zzz", 8, None),
        ("modell", 9, "model"),
    }


def test_aliases_and_merge_keys_are_carried_out() -> None:
    text = (
        "x: &p {scale: 2}\nslices:\n- sources: &s [{model: a}]\n  parameters: *p\n"
        "- sources: *s\n  parameters: {<<: *p}\n"
    )
    recipe = parse(text).recipe
    assert recipe.slices is not None
    assert recipe.slices[0] == recipe.slices[1]
    assert recipe.slices[1].parameters == {"scale": 2}


# Writing.


def test_nothing_changed_is_the_same_document() -> None:
    document = parse(MERGEKIT)
    assert document.with_recipe(Delete(0, 1).apply(document.recipe, lambda _: 32)) is not document
    assert document.with_recipe(document.recipe) is document
    assert document.with_recipe(Recipe.model_validate(as_data(document.recipe))) is document


def test_a_changed_range_is_changed_where_it_stands() -> None:
    assert after(parse(MERGEKIT), Delete(12, 16)) == MERGEKIT.replace("[0, 16]  # half", "[0, 12]  # half")


def test_a_cut_slice_keeps_its_text_and_the_new_part_takes_its_style() -> None:
    text = after(parse(MERGEKIT), Delete(4, 6))
    new = "  - sources:\n    - model: ./a\n      layer_range: [6, 16]\n"
    wanted = MERGEKIT.replace("[0, 16]  # half\n    # of A\n", f"[0, 4]  # half\n    # of A\n{new}")
    assert text == wanted


def test_a_moved_slice_takes_its_comments_along() -> None:
    lines = after(parse(MERGEKIT), Move(0, 16, 32)).splitlines()
    assert lines.index("  # the end") < lines.index("  # the beginning") < lines.index("    - model: ./a   # left")
    assert lines.index("    # of A") < lines.index("  # after the slices")


def test_a_deleted_slice_leaves_its_full_line_comments() -> None:
    text = after(parse(MERGEKIT), Delete(16, 32))
    assert "model: b" not in text
    assert Counter(comments(text)) == Counter(comments(MERGEKIT))


def test_new_keys_go_to_their_places() -> None:
    text = after(parse(MERGEKIT), SetEnd("lm_head", tie=True), SetBase("./a"))
    lines = text.splitlines()
    assert lines[1:3] == ["merge_method: passthrough   # copies", "base_model: ./a"]
    assert lines[lines.index("dtype: bfloat16") - 1] == "lm_head: {tie: true}"


def test_a_key_taken_out_goes_with_its_line() -> None:
    assert after(parse(MERGEKIT), SetDtype(None)) == MERGEKIT.replace("dtype: bfloat16\n", "")


def test_keys_that_are_not_known_are_kept() -> None:
    text = MERGEKIT.replace("    parameters:", "    zzz: 1 # mine\n    parameters:").replace(
        "dtype:", "foo: bar\ndtype:"
    )
    changed = after(parse(text), Delete(20, 22))
    assert "    zzz: 1 # mine\n" in changed
    assert "foo: bar\n" in changed


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_bytes(MERGEKIT.replace("\n", "\r\n").encode())
    document = load(path)
    text = after(document, Delete(4, 6), SetEnd("lm_head", "b"))
    assert text.count("\n") == text.count("\r\n") == MERGEKIT.count("\n") + 4
    assert text.replace("\r\n", "\n") == after(parse(MERGEKIT), Delete(4, 6), SetEnd("lm_head", "b"))


def test_tabs_between_words_and_strange_spacing_stay() -> None:
    text = "dtype:\tfloat16\t# half\nslices:\n-   sources:\n    -   model:\ta\t# A\n        layer_range:   [ 0,8 ]\n"
    assert after(parse(text), Delete(4, 8)) == text.replace("[ 0,8 ]", "[ 0,4 ]")


def test_keys_that_said_nothing_take_values() -> None:
    text = "dtype: # none\n# first\nslices:\n# last\n"
    assert after(parse(text), SetDtype("float16")) == text.replace("dtype: #", "dtype: float16 #")
    filled = after(parse(text), Insert("a", 0, 4))
    assert filled == (
        "merge_method: passthrough\ndtype: # none\n# first\nslices:\n  - sources:\n      - model: a\n"
        "        layer_range: [0, 4]\n# last\n"
    )


def test_quotes_stay() -> None:
    text = "dtype: 'float16'\nbase_model: \"./a\"\nslices: [{sources: [{model: ./a}]}]\n"
    assert after(parse(text), SetDtype("float32"), SetBase("it's")) == (
        "dtype: 'float32'\nbase_model: \"it's\"\nslices: [{sources: [{model: ./a}]}]\n"
    )


def test_one_line_flow_style_stays() -> None:
    text = "slices: [{sources: [{model: a, layer_range: [0, 8]}]}, {sources: [{model: b, layer_range: [0, 8]}]}] # x\n"
    changed = after(parse(text), Delete(2, 4))
    assert changed == text.replace("[0, 8]}]}, ", "[0, 2]}]}, {sources: [{model: a, layer_range: [4, 8]}]}, ", 1)


def test_json_stays_json() -> None:
    text = (
        '{\n  "slices": [\n    {"sources": [{"model": "a", "layer_range": [0, 8]}]},\n'
        '    {"sources": [{"model": "b", "layer_range": [0, 8]}]}\n  ],\n  "dtype": "float16"\n}\n'
    )
    assert after(parse(text), Delete(8, 16)) == (
        '{\n  "slices": [\n    {"sources": [{"model": "a", "layer_range": [0, 8]}]}\n  ],\n  "dtype": "float16"\n}\n'
    )
    assert after(parse(text), Delete(0, 8)) == (
        '{\n  "slices": [\n    {"sources": [{"model": "b", "layer_range": [0, 8]}]}\n  ],\n  "dtype": "float16"\n}\n'
    )


def test_flow_style_over_lines_keeps_its_comments_with_its_items() -> None:
    text = (
        "slices: [\n  # one\n  {sources: [{model: a, layer_range: [0, 8]}]}, # first\n  # two\n"
        "  {sources: [{model: b, layer_range: [0, 8]}]} # second\n  # three\n]\n"
    )
    assert after(parse(text), Move(0, 8, 16)) == (
        "slices: [\n  # two\n  {sources: [{model: b, layer_range: [0, 8]}]}, # second\n  # one\n"
        "  {sources: [{model: a, layer_range: [0, 8]}]} # first\n  # three\n]\n"
    )


def test_an_anchor_that_goes_is_written_out_where_it_is_used() -> None:
    text = (
        "slices:\n# first\n- sources: [{model: a, layer_range: [0, 8]}]\n  parameters: &p\n    scale: # factors\n"
        "    - {filter: o_proj, value: 0.5}\n# second\n- sources: [{model: b, layer_range: [0, 8]}]\n  parameters: *p\n"
        "# third\n- sources: [{model: b, layer_range: [4, 8]}]\n  parameters:\n    <<: *p\n"
    )
    kept = parse(text).with_recipe(Delete(12, 14).apply(parse(text).recipe, depth_of))
    assert "&p" in kept.text
    gone = parse(text).with_recipe(Delete(0, 8).apply(parse(text).recipe, depth_of))
    assert "&p" not in gone.text
    assert "*p" not in gone.text
    assert "<<" not in gone.text
    assert comments(gone.text) == ["# first", "# second", "# third"]
    assert gone.text.count("scale: [{filter: o_proj, value: 0.5}]") == 2


def test_an_aliased_table_edited_in_one_place_stays_as_it_was_in_the_other() -> None:
    text = (
        "slices:\n- sources: [{model: a, layer_range: [0, 8]}]\n  parameters: &p {scale: 0.5} # half\n"
        "- sources: [{model: a, layer_range: [0, 8]}]\n  parameters: *p\n"
    )
    document = parse(text)
    changed = document.with_recipe(Scale(8, 16, (("*", 0.25),)).apply(document.recipe, depth_of))
    assert changed.text.startswith(text[: text.index("*p") - 1])
    changed = document.with_recipe(Scale(0, 8, (("*", 0.25),)).apply(document.recipe, depth_of))
    assert "{scale: [{value: 0.25}]} # half" in changed.text
    assert changed.text.endswith("parameters: {scale: 0.5}\n")


def test_a_table_of_a_model_stays_until_it_is_renamed() -> None:
    text = (
        "slices:\n- sources:\n  - model: {model: {path: ./a, revision: v1}}\n    layer_range: [0, 8]\n"
        "- sources:\n  - model:\n      model:\n        path: ./b+c\n    layer_range: [0, 8]\n"
    )
    assert after(parse(text), Delete(4, 8), Delete(8, 12)) == text.replace("[0, 8]", "[0, 4]")
    document = parse(text)
    renamed = document.with_recipe(document.recipe.with_models({"./a@v1": "./x", "./b+c": "./y"}))
    assert "model: ./x\n" in renamed.text
    assert "model: ./y\n" in renamed.text


def test_the_end_of_a_document_stays_at_its_end() -> None:
    text = "%YAML 1.2\n---\n# head\nslices:\n- sources: [{model: a, layer_range: [0, 8]}]\n...\n# after\n"
    assert after(parse(text), SetDtype("float16")) == text.replace("...", "dtype: float16\n...")


def test_a_text_of_comments_alone_keeps_them() -> None:
    text = after(parse("# mine\n\n# still mine\n"), Insert("a", 0, 4))
    assert comments(text) == ["# mine", "# still mine"]


def test_layouts_that_cannot_be_patched_lose_no_comment() -> None:
    text = (
        "# top\n{slices: [{sources: [{model: a, # A\n  layer_range: [0, 8]}]}, # mid\n  # own line\n"
        "  {sources: [{model: b, layer_range: [0, 8]}]}], dtype: float16}\n# end\n"
    )
    document = parse(text)
    for change in (Delete(2, 4), Move(0, 8, 16), SetEnd("lm_head", "a"), Reverse(6, 10), Delete(0, 16)):
        recipe = change.apply(document.recipe, lambda _: 8)
        changed = document.with_recipe(recipe)
        assert changed.recipe == recipe
        assert not Counter(comments(text)) - Counter(comments(changed.text))


def test_deleting_everything_leaves_a_recipe() -> None:
    text = after(parse(MERGEKIT), Delete(0, 32))
    assert "slices: []" in text
    assert not Counter(comments(MERGEKIT)) - Counter(comments(text))
    assert "layer_range: [0, 4]" in after(parse(text), Insert("a", 0, 4))


def test_gradients_and_scalars_change_their_form_in_place() -> None:
    text = "slices:\n- sources: [{model: a, layer_range: [0, 8]}]\n  parameters:\n    scale: 0.5 # half\n    # more\n"
    changed = after(parse(text), Scale(0, 8, (("o_proj", 0.25),)))
    assert "    scale:\n    - {filter: o_proj, value: 0.25}\n    - {value: 0.5} # half\n    # more\n" in changed
    assert parse(changed).line("slices", 0, "parameters", "scale") == 4


def test_a_new_recipe_is_written_in_the_house_style() -> None:
    recipe = Upscale("./a", 8).apply(Recipe(), lambda _: 32)
    assert fresh(recipe).text == (
        "merge_method: passthrough\nslices:\n  - sources:\n      - model: ./a\n        layer_range: [0, 24]\n"
        "  - sources:\n      - model: ./a\n        layer_range: [8, 32]\n"
    )


@pytest.mark.parametrize(
    "value",
    ["", "no", "Null", "~", "12", "1.5", "1e5", "2024-01-01", "0x10", "a: b", "a #b", "- a", "it's", 'say "x"', "[a]",
     "{a}", "*a", "&a", "!a", "%a", "@a", "a\nb", "a\tb", "\u2028", "caf\u00e9", "\U0001f600", "../a b/c", "org/n@v",
     "-x", "?", "a,b", "=", "<<", "\\", "a\\b", ".", "..", "y", "on", "1_0", "12:30", " a", "a "],
)  # fmt: skip
def test_every_string_is_written_so_that_it_reads_back(value: str) -> None:
    for text in (writer.dump({"a": value}), f"a: {writer.inline([value])}\n", writer.dump({value: 1})):
        loaded = documents._data(documents.build(text)[0])
        assert loaded in ({"a": value}, {"a": [value]}, {value: 1})


@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)), max_leaves=8,
))  # fmt: skip
def test_all_plain_data_is_written_so_that_it_reads_back(value: Any) -> None:
    assert documents._data(documents.build(writer.dump({"a": value}))[0]) == {"a": value}


def test_comments_go_with_their_entries_wherever_these_go() -> None:
    entries = [f"# above {n}\n- sources: [{{model: a, layer_range: [{n}, {n + 1}]}}]  # behind {n}\n" for n in range(5)]
    document = parse("merge_method: passthrough\nslices:\n" + "".join(entries))
    for order in ((4, 3, 2, 1, 0), (2, 0, 4, 1, 3), (1, 4, 0)):
        recipe = document.recipe.model_copy(update={"slices": tuple(document.recipe.slices[n] for n in order)})  # type: ignore[index]
        found = document.with_recipe(recipe).text
        kept = [entries[n] for n in order]
        assert [line for line in found.splitlines() if "sources" in line] == [line.splitlines()[1] for line in kept]
        for entry in kept:
            assert entry in found


def test_of_several_errors_the_first_is_told_and_how_many_there_are() -> None:
    with pytest.raises(InputError) as caught:
        parse("slices: 3\ndtype: []\nseed: -1\n")
    assert "2 more" in caught.value.sentence()
    with pytest.raises(InputError) as caught:
        parse("seed: -1\n")
    assert "more" not in caught.value.sentence()


def test_numbers_that_are_none_are_written_so_that_they_read_back() -> None:
    loaded = documents._data(documents.build(writer.dump({"a": [float("nan"), -float("inf"), 1e-5]}))[0])["a"]
    assert [type(value) for value in loaded] == [float] * 3
    assert loaded[0] != loaded[0] and loaded[1:] == [-float("inf"), 1e-5]


# The property behind all of the above.


def commented(text: str, rng: random.Random) -> str:
    """The text with comments above, behind and below its lines, and with blank lines."""
    out = []
    for number, line in enumerate(text.splitlines()):
        if rng.random() < 0.4:
            out.append(" " * rng.choice([0, 2, 4, 8]) + f"# full {number}")
        if rng.random() < 0.15:
            out.append("")
        out.append(line + (f"  # tail {number}" if rng.random() < 0.3 else ""))
    out.append("# last")
    return "\n".join(out) + "\n"


def spelt(data: dict[str, Any], rng: random.Random) -> str:
    """The data in one of many layouts: block or flow, lists standing in or not, with comments."""
    style = rng.randrange(5)
    if style == 0:
        return commented(writer.dump(data), rng)
    if style == 1:
        return commented("".join(f"{line}\n" for line in writer.block(data, 0)), rng)
    if style == 2:
        return f"# head\n{writer.inline(data)} # tail\n# foot\n"
    if style == 3:
        slices = ["  " + writer.inline(part) + "," for part in data["slices"]]
        rest = {key: value for key, value in data.items() if key != "slices"}
        return commented("slices: [\n" + "\n".join(slices) + "\n]\n", rng) + writer.dump(rest)
    text = ["slices:"]
    for part in data["slices"]:
        text += [f"- sources: {writer.inline(part['sources'])}"]
        text += [f"  {key}: {writer.inline(value)}" for key, value in part.items() if key != "sources"]
    rest = {key: value for key, value in data.items() if key != "slices"}
    return commented("\n".join(text) + "\n" + writer.dump(rest), rng)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipe_data(), st.integers(0, 2**32), st.data())
def test_any_edit_of_any_text_means_what_was_wanted_and_loses_no_comment(
    data: dict[str, Any], seed: int, draw: st.DataObject
) -> None:
    text = spelt(data, random.Random(seed))
    document = parse(text)
    assert document.recipe == Recipe.model_validate(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        depth = stack.depth(document.recipe.explicit(depth_of))
        recipe = draw.draw(edits_for(depth)).apply(document.recipe, depth_of)
        changed = document.with_recipe(recipe)
        assert changed.recipe == recipe
        assert parse(changed.text).recipe == recipe
        assert not Counter(comments(document.text)) - Counter(comments(changed.text))
        document = changed


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipe_data(), recipes, st.integers(0, 2**32))
def test_a_text_can_become_any_other_recipe(data: dict[str, Any], recipe: Recipe, seed: int) -> None:
    document = parse(spelt(data, random.Random(seed)))
    changed = document.with_recipe(recipe)
    assert changed.recipe == recipe
    assert not Counter(comments(document.text)) - Counter(comments(changed.text))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab:-[]{},#&*<>!|'\"\n \t0", max_size=40))
def test_any_text_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        parse(text)
    except InputError as error:
        assert error.sentence()
