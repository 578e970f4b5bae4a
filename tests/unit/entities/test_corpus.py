"""Synthetic training texts."""

from tritower.entities import corpus
from tritower.entities.spans import LABELS


def test_same_seed_same_texts() -> None:
    assert list(corpus.texts(200, 4)) == list(corpus.texts(200, 4))
    assert list(corpus.texts(200, 4)) != list(corpus.texts(200, 5))


def test_spans_are_whole_words_in_order_and_every_label_occurs() -> None:
    labels = set()
    for text, spans in corpus.texts(3_000, 8):
        position = 0
        for span in spans:
            assert position <= span.start < span.end <= len(text)
            part = text[span.start : span.end]
            assert part == part.strip()
            position = span.end
            labels.add(span.label)
    assert labels == set(LABELS)


def test_a_slip_moves_the_spans_behind_it() -> None:
    plain = corpus._fill("{title} jobs in {city}", corpus._fillers(), corpus.random.Random(1))
    assert plain.text[plain.spans[-1].start : plain.spans[-1].end] in corpus._fillers().choices["city"]
    places = [
        (text[spans[-1].start : spans[-1].end], text)
        for text, spans in corpus.texts(4_000, 2)
        if spans and spans[-1].label == "PLACE" and " in " in text
    ]
    assert len(places) > 50
    assert all(place == place.strip() and text.count(place) for place, text in places)
