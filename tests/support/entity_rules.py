"""The gazetteer's rules in plain Python: dictionary lookups and lists instead of an automaton and a compiled pass.

Slow and direct, so that the fast version can be held against it.
"""

from itertools import pairwise

from tritower import vocabulary
from tritower.entities import gazetteer
from tritower.entities.lexicon import Lexicon
from tritower.entities.spans import LABELS, Span
from tritower.entities.tokens import _JOINTS, _SLASHES

LONGEST = 12


def find(text: str, lexicon: Lexicon) -> list[Span]:
    """The entities of one text, without their values."""
    tokens = vocabulary.tokenise(text)
    size = len(tokens)
    words = [lexicon.fold(token.norm) for token in tokens]
    written = [text[token.start : token.end] for token in tokens]
    gaps = ["\n"] + [text[a.end : b.start] for a, b in pairwise(tokens)]
    joint = [gap in _JOINTS for gap in gaps]
    whole = [gap in _JOINTS or gap in _SLASHES for gap in gaps]
    matches = [
        (start, end, meaning.label, meaning.value)
        for start in range(size)
        for end in range(start + 1, min(size, start + LONGEST) + 1)
        if all(whole[start + 1 : end])
        for meaning in lexicon.phrases.get(tuple(words[start:end]), ())
    ]
    held = [m for m in matches if m[1] - m[0] > 1 or supported(m, matches, tokens, words, written, whole, joint, lexicon)]
    heads = [
        (i, i + 1, "TITLE", "")
        for i, word in enumerate(words)
        if word in lexicon.heads
        and (word not in gazetteer._NOT_ALONE or (tokens[i + 1 : i + 2] and tokens[i + 1].norm == "of" and joint[i + 1]))
    ]
    outer = grown(longest_first(held + heads), tokens, words, joint, lexicon)
    outer = joined(outer, joint)
    spans: list[tuple[int, int, str, bool]] = []
    for start, end, label in outer:
        if label == "TITLE":
            levels, start = cut(start, end, words, held, lexicon)
            spans += levels
        spans.append((start, end, label, False))
        if label == "TITLE":
            for kind in ("QUALIFICATION", "SENIORITY", "SKILL"):
                within = [m for m in held if m[2] == kind and start <= m[0] and m[1] <= end and m[1] - m[0] < end - start]
                spans += [(*m[:3], True) for m in sorted(longest_first(within), key=lambda m: (m[0] - m[1], m[0]))]
    return [Span(tokens[a].start, tokens[b - 1].end, label, "", inner) for a, b, label, inner in spans]


def supported(match, matches, tokens, words, written, whole, joint, lexicon):
    i, label = match[0], match[2]
    norm, word = tokens[i].norm, words[i]
    before = tokens[i - 1].norm if i else ""
    alone, after_break = len(tokens) == 1, i > 0 and not whole[i]
    regions = vocabulary.regions()
    if label == "PLACE" and norm.upper() in regions:
        city = any(m[2] == "PLACE" and m[1] == i for m in matches)
        return written[i].isupper() and (city or after_break or before in gazetteer._LOCATIVES)
    if label == "PLACE" and (word in lexicon.modifiers or word in lexicon.heads):
        code = i + 1 < len(tokens) and tokens[i + 1].norm.upper() in regions
        return code or before in gazetteer._LOCATIVES or (after_break and written[i].istitle())
    if label == "PLACE":
        return True
    if label == "COMPANY" and (word in lexicon.common or word in lexicon.heads):
        return alone or before == "at" or (after_break and written[i].istitle())
    if label == "SENIORITY" and i + 1 < len(words) and words[i + 1] in gazetteer._OLD_AGE and joint[i + 1]:
        return False
    if norm in gazetteer._ROMAN:
        return label == "SENIORITY" and i > 0 and whole[i] and words[i - 1] in lexicon.heads
    if label == "TITLE" and any(m[:3] == (i, i + 1, "EMPLOYMENT") for m in matches):
        return alone or i == 0 or after_break
    if label in ("TITLE", "SKILL") and norm in lexicon.needs_capitals:
        return alone or (written[i].isupper() and any(w != w.upper() for w in written))
    return True


def longest_first(matches):
    kept = []
    for match in sorted(matches, key=lambda m: (m[0] - m[1], LABELS.index(m[2]), m[0])):
        if all(match[1] <= other[0] or match[0] >= other[1] for other in kept):
            kept.append(match)
    return sorted(kept)


def grown(outer, tokens, words, joint, lexicon):
    spans = [[start, end, label] for start, end, label, _ in outer]

    def is_free(i):
        owner = next((span for span in spans if span[0] <= i < span[1]), None)
        return words[i] in lexicon.modifiers and (owner is None or owner[2] == "SKILL")

    def is_and(i):
        return tokens[i].norm == "and" and all(not span[0] <= i < span[1] for span in spans)

    def give_up(i, taker):
        for span in spans:
            if span is not taker and span[0] <= i < span[1]:
                span[1] = span[0]

    for span in list(spans):
        if span[2] != "TITLE" or span[0] == span[1]:
            continue
        while True:
            if span[0] > 0 and joint[span[0]] and is_free(span[0] - 1):
                taken = [span[0] - 1]
            elif span[0] > 1 and joint[span[0]] and joint[span[0] - 1] and is_and(span[0] - 1) and is_free(span[0] - 2):
                taken = [span[0] - 1, span[0] - 2]
            else:
                break
            for i in taken:
                give_up(i, span)
            span[0] = taken[-1]
        end = span[1]
        if end < len(tokens) and tokens[end].norm == "of" and joint[end]:
            right = end + 1
            while right < len(tokens) and joint[right]:
                if is_free(right):
                    right += 1
                elif is_and(right) and right + 1 < len(tokens) and joint[right + 1] and is_free(right + 1):
                    right += 2
                else:
                    break
            if right > end + 1:
                for i in range(end, right):
                    give_up(i, span)
                span[1] = right
    return [span for span in spans if span[0] < span[1]]


def joined(outer, joint):
    result = []
    for start, end, label in outer:
        if result and result[-1][1] == start and joint[start] and label == "TITLE" == result[-1][2]:
            result[-1] = (result[-1][0], end, label)
        else:
            result.append((start, end, label))
    return result


def cut(start, end, words, held, lexicon):
    levels = []
    while end - start > 1 and words[end - 1] in lexicon.heads and words[start] not in gazetteer._STAYS:
        fits = [m for m in held if m[2] == "SENIORITY" and m[3] in gazetteer._LEADING and m[0] == start and m[1] < end]
        best = max(fits, key=lambda m: m[1], default=None)
        if best is None:
            break
        levels.append((start, best[1], "SENIORITY", False))
        start = best[1]
    return levels, start
