"""What the tests of the Spark engine share: when they run, and a place in an object store."""

import importlib.util
import shutil
from collections.abc import Iterator

import pytest

_HAS_SPARK = shutil.which("java") is not None and importlib.util.find_spec("pyspark") is not None
WITH_SPARK = [
    pytest.mark.spark,
    pytest.mark.skipif(not _HAS_SPARK, reason="NOT RUN: the Spark engine needs Java 17 and the extra `spark`"),
]


@pytest.fixture(scope="module", autouse=True)
def store(endpoint: str) -> Iterator[str]:
    """A place on that server. For every test: a Java process hands its workers the environment in which it was started, and the
    tests of one process share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITOWER_S3_ENDPOINT", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        # Java lives for seconds here: it is not to spend them on compiling for hours.
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
        yield "s3://bucket"
