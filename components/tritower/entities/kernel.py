"""From phrase matches to entities, for a batch of texts in one compiled pass over integer arrays.

Rules, in order:
1. a match does not run across a separator (comma, bracket, dash between spaces);
2. short forms that are also words ("it", "or", "pa"), cities and employers that are also words ("Mobile", "Target") need
   support from their context;
3. of overlapping matches the longer wins, then the label earlier in LABELS, then the earlier match; a word that ends titles
   ("manager") is a title even where no listed title matches;
4. a title grows to the left over words that occur inside titles ("night | stock clerk"), and over "of ..." to the right, past
   an "and" where such a word follows; titles that touch become one;
5. "senior", "junior", "lead" and the like in front of a title are a SENIORITY of their own;
6. levels, skills and qualifications inside a title are given as inner spans.

Legend: T tokens of the batch, M meanings of its phrase matches (a phrase with two meanings counts twice), N spans found.
"""

import numpy as np
from numpy.typing import NDArray

from tritower.entities.spans import LABELS
from tritower.numba_cache import njit

TITLE, EMPLOYMENT, QUALIFICATION, SENIORITY, PLACE, COMPANY, SKILL = range(len(LABELS))
# Of a token's folded word:
HEAD, MODIFIER, COMMON, STAYS, OLD_AGE, NOT_ALONE = 1, 2, 4, 8, 16, 32
# Of a token as normalised:
OF, ROMAN, REGION, LOCATIVE, AT, NEEDS_CAPITALS = 64, 128, 256, 512, 1024, 2048
# Of a token as written:
UPPER, CAPITALISED, LOWER = 4096, 8192, 16384
# "and" or "&":
AND = 32768
# No letter left after folding; a stop word or a number; a word of running text:
BLANK, SAYS_NOTHING, PROSE = 65536, 131072, 262144
# Gap before a token: within a phrase, within a phrase but between titles, separator, start of a text:
JOINT, SLASH, BREAK, START = range(4)

Ints = NDArray[np.int32]


@njit(cache=True)
def read(
    flags_T: Ints, gap_T: Ints, start_M: Ints, end_M: Ints, label_M: Ints, leading_M: Ints
) -> tuple[Ints, Ints, Ints, Ints, Ints]:  # fmt: skip
    """The entities of a batch.

    Args:
        flags_T: bits of each token (HEAD ... LOWER).
        gap_T: what stands before each token (JOINT ... START).
        start_M, end_M: tokens of each match, end exclusive, sorted by end; matches may run across texts.
        label_M: position in LABELS.
        leading_M: 1 for a level that is cut from the front of a title.

    Returns:
        Per span, outer ones in reading order, each followed by its inner ones: first token, token after, label, 1 if
        inner, and the match it is (-1 for a title that was put together).
    """
    size_T, size_M = len(flags_T), len(start_M)
    room = 3 * size_T + size_M
    out = (np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32),
           np.empty(room, np.int32))  # fmt: skip
    count = 0
    owner_T = np.full(size_T, -1, np.int32)
    first = match = 0
    while first < size_T:
        last = first + 1
        while last < size_T and gap_T[last] != START:
            last += 1
        until = match
        while until < size_M and end_M[until] <= last:
            until += 1
        held = _held(flags_T, gap_T, start_M, end_M, label_M, first, last, match, until)
        longest = _longest(start_M, end_M, held)
        starts, ends, labels, matches = _chosen(flags_T, gap_T, start_M, end_M, label_M, held, longest, owner_T, first, last)
        _grow(flags_T, gap_T, starts, ends, labels, matches, owner_T, first, last)
        size = _join(gap_T, starts, ends, labels, matches)
        for i in range(size):
            if starts[i] < ends[i]:
                begin, part = starts[i], -1
                if labels[i] == TITLE:
                    begin, count = _cut(flags_T, start_M, end_M, label_M, leading_M, held, longest, begin, ends[i], out, count)
                part = _same(start_M, end_M, label_M, held, begin, ends[i], labels[i])
                count = _put(out, count, begin, ends[i], labels[i], 0, part)
                if labels[i] == TITLE and ends[i] - begin > 1:
                    count = _inside(start_M, end_M, label_M, held, longest, begin, ends[i], out, count)
        match, first = until, last
    return out[0][:count], out[1][:count], out[2][:count], out[3][:count], out[4][:count]


@njit(cache=True)
def unexplained(
    flags_T: Ints, text_T: Ints, begin_N: Ints, end_N: Ints, inner_N: Ints, texts: int, most: int
) -> NDArray[np.bool_]:  # fmt: skip
    """Which of the texts have at most `most` tokens, none of them of prose, and one that could matter in no outer span."""
    held_T = np.zeros(len(text_T), np.bool_)
    for n in range(len(begin_N)):
        if not inner_N[n]:
            held_T[begin_N[n] : end_N[n]] = True
    words_V, open_V = np.zeros(texts, np.int32), np.zeros(texts, np.bool_)
    for t in range(len(text_T)):
        words_V[text_T[t]] += most + 1 if flags_T[t] & PROSE else not flags_T[t] & BLANK
        open_V[text_T[t]] |= not held_T[t] and not flags_T[t] & (BLANK | SAYS_NOTHING)
    return open_V & (words_V <= most)


@njit(cache=True)
def _put(out, count, begin, end, label, inner, match):  # type: ignore[no-untyped-def]
    out[0][count], out[1][count], out[2][count], out[3][count], out[4][count] = begin, end, label, inner, match
    return count + 1


@njit(cache=True)
def _held(flags_T, gap_T, start_M, end_M, label_M, first, last, match, until):  # type: ignore[no-untyped-def]
    """The matches of one text that do not cross a separator and that their context supports (rules 1 and 2)."""
    held = np.empty(until - match, np.int32)
    size = 0
    has_lower = False
    for i in range(first, last):
        has_lower |= (flags_T[i] & LOWER) != 0
    for m in range(match, until):
        begin = start_M[m]
        whole = begin >= first
        for i in range(max(begin, first) + 1, end_M[m]):
            whole &= gap_T[i] <= SLASH
        if whole and (
            end_M[m] - begin > 1 or _supported(flags_T, gap_T, start_M, end_M, label_M, first, last, match, until, m, has_lower)
        ):
            held[size] = m
            size += 1
    return held[:size]


@njit(cache=True)
def _supported(flags_T, gap_T, start_M, end_M, label_M, first, last, match, until, m, has_lower):  # type: ignore[no-untyped-def]
    i, label = start_M[m], label_M[m]
    token, before = flags_T[i], flags_T[i - 1] if i > first else 0
    alone, after_break = last - first == 1, gap_T[i] == BREAK
    if label == PLACE:
        if token & REGION:
            supported = after_break or (before & LOCATIVE) != 0
            other = m
            while other >= match and end_M[other] >= i:
                supported |= label_M[other] == PLACE and end_M[other] == i
                other -= 1
            return (token & UPPER) != 0 and supported
        if token & (MODIFIER | HEAD):
            code_follows = i + 1 < last and (flags_T[i + 1] & REGION) != 0
            return code_follows or (before & LOCATIVE) != 0 or (after_break and (token & CAPITALISED) != 0)
        return True
    if label == COMPANY and token & (COMMON | HEAD):
        return alone or (before & AT) != 0 or (after_break and (token & CAPITALISED) != 0)
    if label == SENIORITY and i + 1 < last and flags_T[i + 1] & OLD_AGE and gap_T[i + 1] == JOINT:
        return False
    if token & ROMAN:
        return label == SENIORITY and gap_T[i] <= SLASH and (before & HEAD) != 0
    if label == TITLE:
        other = m
        while other > match and end_M[other - 1] == i + 1:
            other -= 1
        while other < until and end_M[other] == i + 1:
            if label_M[other] == EMPLOYMENT and start_M[other] == i:
                return alone or gap_T[i] >= BREAK
            other += 1
    if label in (TITLE, SKILL) and token & NEEDS_CAPITALS:
        return alone or ((token & UPPER) != 0 and has_lower)
    return True


@njit(cache=True)
def _chosen(flags_T, gap_T, start_M, end_M, label_M, held, longest, owner_T, first, last):  # type: ignore[no-untyped-def]
    """The outer spans before titles grow (rule 3), in reading order; `owner_T` says which one a token belongs to."""
    room = last - first
    starts, ends = np.empty(room, np.int32), np.empty(room, np.int32)
    labels, matches = np.empty(room, np.int32), np.empty(room, np.int32)
    size = 0
    for i in range(first, last):
        owner_T[i] = -1
    for length in range(longest, 0, -1):
        for label in range(len(LABELS)):
            for m in held:
                if label_M[m] == label and end_M[m] - start_M[m] == length and _free(owner_T, start_M[m], end_M[m]):
                    starts[size], ends[size], labels[size], matches[size] = start_M[m], end_M[m], label, m
                    owner_T[start_M[m] : end_M[m]] = size
                    size += 1
            if length == 1 and label == TITLE:
                for i in range(first, last):
                    of_follows = i + 1 < last and flags_T[i + 1] & OF and gap_T[i + 1] == JOINT
                    if flags_T[i] & HEAD and (of_follows or not flags_T[i] & NOT_ALONE) and owner_T[i] < 0:
                        starts[size], ends[size], labels[size], matches[size] = i, i + 1, TITLE, -1
                        owner_T[i] = size
                        size += 1
    order = np.argsort(starts[:size])
    for rank in range(size):
        for i in range(starts[order[rank]], ends[order[rank]]):
            owner_T[i] = rank
    return starts[order], ends[order], labels[order], matches[order]


@njit(cache=True)
def _free(owner_T, begin, end):  # type: ignore[no-untyped-def]
    free = True
    for i in range(begin, end):
        free &= owner_T[i] < 0
    return free


@njit(cache=True)
def _grow(flags_T, gap_T, starts, ends, labels, matches, owner_T, first, last):  # type: ignore[no-untyped-def]
    """Titles grow over words of titles that belong to nothing, or to a skill, which is given up then (rule 4)."""
    for n in range(len(starts)):
        if labels[n] != TITLE or starts[n] == ends[n]:
            continue
        step = 1
        while step:
            step = _step(flags_T, gap_T, labels, owner_T, starts[n] - 1, -1, first, last)
            for _ in range(step):
                starts[n] -= 1
                _take(starts, ends, owner_T, starts[n], n)
        if ends[n] < last and flags_T[ends[n]] & OF and gap_T[ends[n]] == JOINT:
            right, step = ends[n] + 1, 1
            while step:
                step = _step(flags_T, gap_T, labels, owner_T, right, 1, first, last)
                right += step
            if right > ends[n] + 1:
                for i in range(ends[n], right):
                    _take(starts, ends, owner_T, i, n)
                ends[n] = right
        matches[n] = -1


@njit(cache=True)
def _step(flags_T, gap_T, labels, owner_T, i, direction, first, last):  # type: ignore[no-untyped-def]
    """By how many tokens a title that has reached token `i`, going left (-1) or right (1), grows next: 2 over an "and"."""
    for width in (1, 2):
        far = i + direction * (width - 1)
        if far < first or far >= last or (width == 2 and (not flags_T[i] & AND or owner_T[i] >= 0)):
            return 0
        joined = True
        for j in range(min(i, far), max(i, far) + 1):
            joined &= gap_T[j + 1 if direction < 0 else j] == JOINT
        if joined and _open(flags_T, labels, owner_T, far):
            return width
    return 0


@njit(cache=True)
def _open(flags_T, labels, owner_T, i):  # type: ignore[no-untyped-def]
    return (flags_T[i] & MODIFIER) != 0 and (owner_T[i] < 0 or labels[owner_T[i]] == SKILL)


@njit(cache=True)
def _take(starts, ends, owner_T, i, n):  # type: ignore[no-untyped-def]
    old = owner_T[i]
    if old >= 0 and old != n:
        for j in range(starts[old], ends[old]):
            owner_T[j] = -1
        ends[old] = starts[old]
    owner_T[i] = n


@njit(cache=True)
def _join(gap_T, starts, ends, labels, matches):  # type: ignore[no-untyped-def]
    """Titles that touch become one, in place (rule 4); the number of spans left."""
    size = 0
    for n in range(len(starts)):
        if starts[n] == ends[n]:
            continue
        touches = size > 0 and ends[size - 1] == starts[n] and gap_T[starts[n]] == JOINT
        if touches and labels[n] == TITLE and labels[size - 1] == TITLE:
            ends[size - 1] = ends[n]
        else:
            starts[size], ends[size], labels[size], matches[size] = starts[n], ends[n], labels[n], matches[n]
            size += 1
    return size


@njit(cache=True)
def _cut(flags_T, start_M, end_M, label_M, leading_M, held, longest, begin, end, out, count):  # type: ignore[no-untyped-def]
    """Write the levels in front of a title; where the title begins then, and the new count (rule 5)."""
    while end - begin > 1 and flags_T[end - 1] & HEAD and not flags_T[begin] & STAYS:
        best = -1
        at = _ending(end_M, held, begin + 1)
        while at < len(held) and end_M[held[at]] < end and end_M[held[at]] <= begin + longest:
            m = held[at]
            fits = label_M[m] == SENIORITY and leading_M[m] and start_M[m] == begin
            if fits and (best < 0 or end_M[m] > end_M[best]):
                best = m
            at += 1
        if best < 0:
            break
        count = _put(out, count, begin, end_M[best], SENIORITY, 0, best)
        begin = end_M[best]
    return begin, count


@njit(cache=True)
def _ending(end_M, held, end):  # type: ignore[no-untyped-def]
    """The first of the matches in `held`, which are sorted by their ends, that ends at a token or behind it."""
    low, high = 0, len(held)
    while low < high:
        middle = (low + high) // 2
        if end_M[held[middle]] < end:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _longest(start_M, end_M, held):  # type: ignore[no-untyped-def]
    longest = 1
    for m in held:
        longest = max(longest, end_M[m] - start_M[m])
    return longest


@njit(cache=True)
def _same(start_M, end_M, label_M, held, begin, end, label):  # type: ignore[no-untyped-def]
    at = _ending(end_M, held, end)
    while at < len(held) and end_M[held[at]] == end:
        m = held[at]
        if start_M[m] == begin and label_M[m] == label:
            return m
        at += 1
    return -1


@njit(cache=True)
def _inside(start_M, end_M, label_M, held, longest, begin, end, out, count):  # type: ignore[no-untyped-def]
    """Write the inner spans of a title: for each label the longest matches first, without overlap (rule 6)."""
    first, last = _ending(end_M, held, begin + 1), _ending(end_M, held, end + 1)
    taken_T = np.zeros(end - begin, np.bool_)
    for label in (QUALIFICATION, SENIORITY, SKILL):
        taken_T[:] = False
        for length in range(min(longest, end - begin - 1), 0, -1):
            for m in held[first:last]:
                fits = label_M[m] == label and start_M[m] >= begin and end_M[m] - start_M[m] == length
                if fits and not taken_T[start_M[m] - begin : end_M[m] - begin].any():
                    taken_T[start_M[m] - begin : end_M[m] - begin] = True
                    count = _put(out, count, start_M[m], end_M[m], label, 1, m)
    return count
