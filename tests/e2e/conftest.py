"""The cluster and the backend that the environment names; without them every test here is skipped, with the reason.

KUBECONFIG               the cluster, with the right to look at pods and jobs, to delete pods and to run a command in them
KF_PIPELINES_ENDPOINT    its KFP API
TRITOWER_IMAGE_TAG       tag of tritower/base and tritower/train, of this very code; TRITOWER_IMAGE_PREFIX, as for compiling
TRITOWER_E2E_FEATURES    location of the features that a run of `training` made there
TRITOWER_E2E_EMBEDDINGS  location of the embeddings of the same run
TRITOWER_E2E_NAMESPACE   namespace of the runs; kubeflow when empty

The namespace has `manifests/base` and the Secret `tritower-store`; the store's address and keys for this machine are in the
environment as for any run (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
"""

import os
import shutil
import uuid
from collections.abc import Iterator

import pytest

from pipelines import versions
from pipelines.api import Api
from tests.e2e import launched
from tests.e2e.running import There

_NAMED = ("KUBECONFIG", "KF_PIPELINES_ENDPOINT", "TRITOWER_IMAGE_TAG", "TRITOWER_E2E_FEATURES", "TRITOWER_E2E_EMBEDDINGS")


@pytest.fixture(scope="session")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    missing = [name for name in _NAMED if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no cluster to run on: {', '.join(missing)} not set (tests/e2e/conftest.py)")
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not there")
    api, name = Api(), f"e2e-{uuid.uuid4().hex[:8]}"
    version = versions.publish(api, launched.compiled(tmp_path_factory.mktemp("launched")), pipeline=name, name="1.0")
    yield There(api, version, os.environ.get("TRITOWER_E2E_NAMESPACE") or "kubeflow", name)
    api.delete("pipelines", version.pipeline_id, cascade="true")
