"""Rows of tokens against a plain loop over mergekit's rule: unions, overrides, padding, holes, ids beyond the rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.plan.model import Donor
from surgeon.plan.operands import Stored
from surgeon.plan.tokenizer.output_vocabulary import Built, build
from tests.support.vocabularies import added, donor, evaluated, recipe, tables, tokenizer_json, write

Vocab = Mapping[str, int]


def union(vocabularies: list[Vocab], rows: list[int], first: int) -> dict[str, int]:
    """The first one's tokens with their ids, then the others' in the order of donors and ids."""
    found = dict(vocabularies[first])
    for vocab, height in zip(vocabularies, rows, strict=True):
        for token, index in sorted(vocab.items(), key=lambda item: item[1]):
            if token not in found and index < height:
                found[token] = max(found.values(), default=-1) + 1
    return found


def expected(
    ids: Vocab,
    count: int,
    vocabularies: list[Vocab],
    values: list[Any],
    base: int | None,
    source: int,
    overrides: Mapping[str, Any],
) -> list[tuple[Any, list[bool]]]:
    """The new table of every donor, by the words of the rule, and which rows are not a mean of all others."""
    import torch

    # A row without a token counts as a token that the source knows, and everyone whose ids mean the same.
    names: list[Any] = [None] * count
    for token, index in ids.items():
        names[index] = token
    knowing = [dict(vocab) for vocab in vocabularies]
    for index, name in enumerate(names):
        if name is None:
            names[index] = ("no token", index)
            for one, vocab in zip(knowing, vocabularies, strict=True):
                if vocab == vocabularies[source]:
                    one[names[index]] = index  # type: ignore[index]

    def has(who: int, token: Any) -> bool:
        return knowing[who].get(token, 1 << 60) < len(values[who])

    def of(who: int, token: Any) -> Any:
        return values[who][knowing[who][token]].double()

    results = []
    for who in range(len(values)):
        table: list[Any] = []
        for token in names:
            what = overrides.get(token)
            if has(who, token) and not (what and what["force"]):
                table.append(of(who, token))
            elif what:
                zero = what["row"] is None
                table.append(
                    torch.zeros(3, dtype=torch.float64) if zero else values[what["from"]][what["row"]].double()
                )
            else:
                others = [of(other, token) for other in range(len(values)) if has(other, token)]
                if len(others) > 1 and base is not None and has(base, token):
                    others = [of(base, token)]
                table.append(sum(others) / len(others) if others else None)
        real = [row.float().double() for row in table if row is not None]
        mean = sum(real) / len(real) if real else torch.zeros(3, dtype=torch.float64)
        made = torch.stack([mean if row is None else row for row in table]).float()
        results.append((made, [row is not None for row in table]))
    return results


def new_tables(built: Built, donors: list[Donor], values: list[Any]) -> list[Any]:
    known = {one.letter: table for one, table in zip(donors, values, strict=True)}
    return [evaluated(built.operand(one.letter, tables(donors)), known) for one in donors]


def random_tables(rows: list[int]) -> list[Any]:
    import torch

    generator = torch.Generator().manual_seed(len(rows) + sum(rows))
    return [torch.randn(height, 3, generator=generator) for height in rows]


WORDS = [f"w{number}" for number in range(9)]
vocabs = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 12)), min_size=1, max_size=9).map(
    lambda pairs: {token: index for index, token in {index: token for token, index in pairs}.items()}
)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(2, 3))
    vocabularies = [draw(vocabs) for _ in range(count)]
    if draw(st.booleans()):
        vocabularies[1] = vocabularies[0]
    rows = [max(1, max(vocab.values()) + 1 + draw(st.integers(-2, 3))) for vocab in vocabularies]
    source = draw(st.sampled_from(["union", "base", *range(count)]))
    overrides = {}
    for token in draw(st.lists(st.sampled_from(WORDS), max_size=2, unique=True)):
        who = draw(st.integers(0, count - 1))
        row = draw(st.sampled_from([None, *range(rows[who])]))
        overrides[token] = {"from": who, "row": row, "force": draw(st.booleans())}
    return {
        "vocabularies": vocabularies, "rows": rows, "source": source, "overrides": overrides,
        "base": draw(st.sampled_from([None, *range(count)])), "multiple": draw(st.sampled_from([None, None, 1, 8])),
    }  # fmt: skip


@given(case=cases())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_tables_are_what_the_rule_says(case: dict[str, Any]) -> None:
    vocabularies, rows, overrides = case["vocabularies"], case["rows"], case["overrides"]
    base, first = case["base"], case["base"] or 0
    text = (
        f"tokenizer:\n  source: {case['source'] if isinstance(case['source'], str) else './' + 'abc'[case['source']]}\n"
    )
    if case["multiple"]:
        text += f"  pad_to_multiple_of: {case['multiple']}\n"
    text += "  tokens:\n" if overrides else ""
    for token, what in overrides.items():
        row = f"{{kind: model_token, model: ./{'abc'[what['from']]}, token_id: {what['row']}}}"
        row = "{kind: zero}" if what["row"] is None else row
        text += f"    {token}: {{source: {row}, force: {str(what['force']).lower()}}}\n"

    source = first if isinstance(case["source"], str) else case["source"]
    ids = dict(vocabularies[source])
    if case["source"] == "union":
        ids = union(vocabularies, rows, first)
    for token in overrides:
        ids.setdefault(token, max(ids.values()) + 1)
    end = max(ids.values()) + 1
    count = -(-end // case["multiple"]) * case["multiple"] if case["multiple"] else max(end, rows[source])

    with tempfile.TemporaryDirectory() as folder:
        donors = [
            donor("ABC"[n], write(Path(folder, "abc"[n]), tokenizer_json(dict(vocab))), rows[n])
            for n, vocab in enumerate(vocabularies)
        ]
        built = build(recipe(text), donors, None if base is None else donors[base])
    assert built is not None and not [f for f in built.findings if f.severity == "error"], built
    assert [token for token in built.tokens if token] == sorted(ids, key=lambda token: ids[token])
    assert built.rows == count and all(built.tokens[index] == token for token, index in ids.items())
    values = random_tables(rows)
    wanted = expected(ids, count, vocabularies, values, base, source, overrides)
    for found, (table, exact) in zip(new_tables(built, donors, values), wanted, strict=True):
        assert found.shape == table.shape
        assert found[exact].equal(table[exact])
        assert found.allclose(table, atol=1e-6)  # A mean of all rows is summed in another order.


@pytest.fixture
def three(tmp_path: Path) -> list[Donor]:
    vocabularies: list[dict[str, int]] = [
        {"a": 0, "b": 1, "c": 2},
        {"b": 0, "x": 1, "c": 2, "<s>": 3},
        {"x": 0, "y": 1, "a": 2},
    ]
    extra = [[], [added(3, "<s>")], []]
    return [
        donor(letter, write(tmp_path / letter, tokenizer_json(vocab, added=more)), len(vocab))
        for letter, vocab, more in zip("ABC", vocabularies, extra, strict=True)
    ]


def test_a_union_of_three_by_hand(three: list[Donor]) -> None:
    built = build(recipe("tokenizer_source: union"), three, three[0])
    assert built is not None
    assert built.tokens == ("a", "b", "c", "x", "<s>", "y")
    a, b, c = values = random_tables([3, 4, 3])
    tables = new_tables(built, three, values)
    assert tables[0].equal(torch_rows(a[0], a[1], a[2], (b[1].double() + c[0].double()) / 2, b[3], c[1]))
    assert tables[1].equal(torch_rows(a[0], b[0], b[2], b[1], b[3], c[1]))
    assert tables[2].equal(torch_rows(c[2], a[1], a[2], c[0], b[3], c[1]))


def test_without_a_base_what_several_have_is_a_mean(three: list[Donor]) -> None:
    built = build(recipe("tokenizer_source: base"), three, None)
    assert built is not None and built.tokens == ("a", "b", "c")
    a, _, c = values = random_tables([3, 4, 3])
    assert new_tables(built, three, values)[1][0].equal(((a[0].double() + c[2].double()) / 2).float())
    based = build(recipe("tokenizer_source: base"), three, three[0])
    assert based is not None and new_tables(based, three, values)[1][0].equal(a[0])


def torch_rows(*rows: Any) -> Any:
    import torch

    return torch.stack([row.float() for row in rows])


def test_one_tokenizer_for_all_changes_nothing(tmp_path: Path) -> None:
    document = tokenizer_json({"a": 0, "b": 1, "c": 4})
    donors = [donor(letter, write(tmp_path / letter, document), 8) for letter in "AB"]
    for source in ("union", "base", "./b"):
        built = build(recipe(f"tokenizer_source: {source}"), donors, donors[0])
        assert built is not None and built.rows == 8 and built.files is not None and not built.files.grown
        known = tables(donors)
        assert all(built.operand(letter, known) is known[letter] for letter in "AB")


def test_padding_is_the_sources_and_only_a_multiple_cuts_it(tmp_path: Path) -> None:
    document = tokenizer_json({"a": 0, "b": 1, "c": 2})
    donors = [donor("A", write(tmp_path / "A", document), 6), donor("B", write(tmp_path / "B", document), 4)]
    values = random_tables([6, 4])
    built = build(recipe("tokenizer_source: base"), donors, donors[0])
    assert built is not None and built.rows == 6
    assert new_tables(built, donors, values)[1].equal(torch_rows(*values[1], *values[0][4:]))
    cut = build(recipe("tokenizer: {source: base, pad_to_multiple_of: 2}"), donors, donors[0])
    assert cut is not None and cut.rows == 4
    operand = cut.operand("A", tables(donors))
    assert isinstance(operand, Stored) and operand.shape == (4, 3)
    wide = build(recipe("tokenizer: {source: base, pad_to_multiple_of: 8}"), donors, donors[0])
    assert wide is not None and wide.rows == 8
    mean = torch_rows(*values[0]).double().mean(0).float()
    assert new_tables(wide, donors, values)[0].allclose(torch_rows(*values[0], mean, mean), atol=1e-7)
    assert "2 filled with the mean" in " ".join(finding.why for finding in wide.findings)


def test_tables_lower_than_the_embedding_and_of_other_widths_are_seen(three: list[Donor]) -> None:
    """A head may have fewer rows; a donor may have no such table, or one that fits no other."""
    from tests.support.vocabularies import entry

    built = build(recipe("tokenizer_source: base"), three, three[0])
    assert built is not None
    heads = {"A": Stored(entry("A", 2)), "B": Stored(entry("B", 4)), "C": Stored(entry("C", 3, 5))}
    a, b, _ = random_tables([2, 4, 3])
    assert evaluated(built.operand("A", heads), {"A": a, "B": b}).equal(torch_rows(a[0], a[1], b[2]))
    alone = built.operand("C", heads)
    assert [part.entry.name for part in alone.parts] == ["C"]  # type: ignore[union-attr]
    assert evaluated(built.operand("B", {"B": heads["B"]}), {"B": b})[1].equal(b[0])


def test_many_tokens(tmp_path: Path) -> None:
    """150,000 tokens in another order: every row comes from where it should, in few reads where they are neighbours."""
    import torch

    from surgeon.assemble.compute.token_rows_reader import RowsReader
    from tests.support.vocabularies import Memory

    count, more = 150_000, 1000
    words = [f"t{number}" for number in range(count)]
    moved = words[more:] + words[:more]
    donors = [
        donor("A", write(tmp_path / "A", tokenizer_json({w: n for n, w in enumerate(words)})), count, 1),
        donor("B", write(tmp_path / "B", tokenizer_json({w: n for n, w in enumerate([*moved, "new"])})), count + 1, 1),
    ]
    built = build(recipe("tokenizer_source: union"), donors, donors[0])
    assert built is not None and built.rows == count + 1
    operand = built.operand("B", tables(donors))
    reader = RowsReader(operand, [Memory(torch.arange(count + 1.0)[:, None])])  # type: ignore[arg-type]
    out = torch.empty(count + 1)
    reader.read(0, out)
    assert out.tolist() == [*range(count - more, count), *range(count - more), count]
    assert len(reader._parts[0].reads) <= 4  # type: ignore[attr-defined]
    a = built.operand("A", tables(donors))
    assert [len(part) // 4 for part in a.take] == [count + 1] * 2  # type: ignore[union-attr]
