"""Tokens of a batch: where the package's pattern puts them, whatever the text, the table's size and the slice."""

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tritower.entities import kernel, tokens
from tritower.entities.tokens import Tokens
from tritower.vocabulary.text import TOKEN

SIGNS = "abCcFjnetNET129_.&'+#-/ \n" + "éß’–"


def by_pattern(text: str) -> list[tuple[int, int, str]]:
    return [(match.start(), match.end(), match[0]) for match in TOKEN.finditer(text)]


def cut(table: Tokens, texts: pa.StringArray) -> list[list[tuple[int, int, str]]]:
    found: list[list[tuple[int, int, str]]] = [[] for _ in texts]
    text_T, start_T, end_T, code_T, _ = (column.tolist() for column in table.cut(texts))
    for text, start, end, code in zip(text_T, start_T, end_T, code_T, strict=True):
        found[text].append((start, end, table.written[code]))
    return found


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(st.sampled_from(SIGNS), max_size=14), max_size=8), skipped=st.integers(0, 3))
@example(texts=["R.N.", "Ph.D. in R&D", "a.b.cde a.bc a.bcd", ".NET .Netx x.net ..net", "c++ C# c#x cc++ f#"], skipped=0)
@example(texts=["o'neil's a'b1 it's'", "a&b&cd R&Dx &", "_a.b a_b 1.5", "é.a.b aé.b"], skipped=1)
def test_tokens_lie_where_the_pattern_puts_them(texts: list[str], skipped: int) -> None:
    table = Tokens(lambda written: (0, 0))
    column = pa.array(texts, pa.string())[skipped:]
    expected = [by_pattern(text) for text in texts[skipped:]]
    assert cut(table, column) == expected == cut(table, column)


def test_gaps_are_told_apart() -> None:
    texts = ["a b", "a-b", "a/b", "a / b", "a, b", "a. b", "a  b", "a   b", "a – b", "a–b", "'s", "a'", "a\nb", "r&d b", "c++d"]
    gap_T = Tokens(lambda written: (0, 0)).cut(pa.array(texts)).gap_T
    text_T = Tokens(lambda written: (0, 0)).cut(pa.array(texts)).text_T
    found = [gap_T[text_T == v].tolist()[1:] for v in range(len(texts))]
    joint, slash, away = [kernel.JOINT], [kernel.SLASH], [kernel.BREAK]
    assert found == [joint, joint, slash, slash, away, joint, joint, away, away, joint, [], [], away, joint, joint]
    assert (gap_T[np.searchsorted(text_T, np.arange(len(texts)))] == kernel.START).all()


def test_many_tokens_are_told_apart_and_described() -> None:
    """The table grows several times; a token keeps its number and what is known of it."""
    table = Tokens(lambda written: (len(written), int(written[1:])))
    texts = pa.array([" ".join(f"w{i}" for i in range(start, start + 50)) for start in range(0, 9_000, 25)])
    first = table.cut(texts)
    words_T, flags_T = table.describe(table.cut(texts).code_T)
    assert (table.cut(texts).code_T == first.code_T).all() and len(table.written) == len(set(table.written)) == 9_025
    assert [table.written[code] for code in first.code_T.tolist()] == [f"w{flag}" for flag in flags_T.tolist()]
    assert (words_T == 1 + np.char.str_len(flags_T.astype(str))).all()


def test_a_table_that_has_grown_too_large_starts_anew() -> None:
    table, limit = Tokens(lambda written: (0, 0)), tokens._LIMIT
    try:
        tokens._LIMIT = 2
        assert cut(table, pa.array(["a b c"])) == [by_pattern("a b c")]
        assert cut(table, pa.array(["d c"])) == [by_pattern("d c")] and table.written == ["d", "c"]
    finally:
        tokens._LIMIT = limit


def test_no_texts() -> None:
    assert len(Tokens(lambda written: (0, 0)).cut(pa.array([], pa.string())).code_T) == 0
