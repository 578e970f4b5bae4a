"""The small NER: retraining, files, and the model that ships."""

import gzip
import tarfile
from importlib import resources
from pathlib import Path

import pytest
from tritower.entities import model, training
from tritower.errors import ArtifactError

DATA = Path(str(resources.files("tritower.entities"))) / "data"


def test_retraining_gives_the_same_weights_and_a_file_gives_the_same_spans(tmp_path: Path) -> None:
    first, again, other = training.train(300, 1), training.train(300, 1), training.train(300, 2)
    for name, nlp in (("first", first), ("again", again), ("other", other)):
        model.write(nlp, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    assert (tmp_path / "first").read_bytes() != (tmp_path / "other").read_bytes()
    texts = ["senior java developer austin", "rn nights", ""]
    assert list(model.read(tmp_path / "first").find(texts)) == list(model.Recogniser(first).find(texts))


def test_the_shipped_model_reads_titles_and_queries() -> None:
    texts = ["senior zorkology engineer - part time", "", "acme staffing inc forklift driver", "Ärztin 数据 nurse — Boston"]
    found = list(model.read().find(texts))
    assert found[1] == []
    spans = [[(text[s.start : s.end], s.label) for s in spans] for text, spans in zip(texts, found, strict=True)]
    assert ("senior", "SENIORITY") in spans[0] and ("zorkology engineer", "TITLE") in spans[0]
    assert ("part time", "EMPLOYMENT") in spans[0]
    assert ("forklift driver", "TITLE") in spans[2]
    assert list(model.read().find(texts)) == found
    assert list(model.read().find(texts[2:3])) == found[2:3]


def test_the_shipped_model_reads_ten_thousand_words() -> None:
    (spans,) = model.read().find(["registered nurse, " * 5_000])
    assert spans and max(span.end for span in spans) <= 18 * 5_000


@pytest.mark.parametrize(
    "content", [b"", b"no model", gzip.compress(b"\x81\xa1a\x01", mtime=0), gzip.compress(b"\x80", mtime=0)]
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gz"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.gz"):
        model.read(path)


def test_no_pickle_in_the_shipped_model() -> None:
    content = gzip.decompress((DATA / "job_ner.gz").read_bytes())
    assert b"cloudpickle" not in content and b"__reduce__" not in content
    assert not tarfile.is_tarfile(DATA / "job_ner.gz")


def test_package_data_is_small_and_has_its_papers() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 10_000_000
    assert "Apache License" in (DATA / "LICENSE.txt").read_text(encoding="utf-8")
    card = (DATA / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert all(
        word in card
        for word in ("Intended use", "Training data", "Limits", "O*NET", "ESCO", "python -m tritower.entities train")
    )
