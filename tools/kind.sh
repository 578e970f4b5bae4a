#!/usr/bin/env bash
# A cluster on this machine with Kubeflow Pipelines alone, our images and roles in it, and one run of training: make kind
# It says first what is missing and stops there. Delete it all with: kind delete cluster --name tritower
set -euo pipefail
cd "$(dirname "$0")/.."

CLUSTER=tritower
KFP=${KFP_VERSION:-2.17.0}
KFP_MANIFESTS="github.com/kubeflow/pipelines/manifests/kustomize"
LOG=build/kind/log
STORE=s3://mlpipeline/kind

missing=0
need() { # program, how to get it
	command -v "$1" >/dev/null && return
	echo "missing: $1. $2" >&2
	missing=1
}
need docker "Debian: apt-get install docker.io; elsewhere https://docs.docker.com/engine/install/"
need kind "go install sigs.k8s.io/kind@v0.32.0, or https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
need kubectl "https://kubernetes.io/docs/tasks/tools/, or Debian: apt-get install kubernetes-client"
need git "apt-get install git (kustomize fetches KFP's manifests with it)"
if command -v docker >/dev/null; then
	if ! docker info >/dev/null 2>&1; then
		echo "missing: a Docker engine that answers. systemctl start docker" >&2
		missing=1
	else
		tag=$(python images/build.py tag)
		for image in base train; do
			if ! docker image inspect "${TRITOWER_IMAGE_PREFIX:-tritower}/$image:$tag" >/dev/null 2>&1; then
				echo "missing: the image ${TRITOWER_IMAGE_PREFIX:-tritower}/$image:$tag. make images IMAGES='base train'" >&2
				missing=1
			fi
		done
	fi
fi
if [ "$missing" -ne 0 ]; then
	echo "Nothing was changed." >&2
	exit 1
fi

forwarded=()
stop() { if [ "${#forwarded[@]}" -gt 0 ]; then kill "${forwarded[@]}" 2>/dev/null || true; fi; }
trap stop EXIT
forward() { # service, port here, port there
	kubectl --context "kind-$CLUSTER" --namespace kubeflow port-forward "service/$1" "$2:$3" >/dev/null &
	forwarded+=($!)
	for _ in $(seq 60); do
		if (: </dev/tcp/127.0.0.1/"$2") 2>/dev/null; then return; fi
		sleep 1
	done
	echo "$1 does not answer on port $2" >&2
	exit 1
}
k() { kubectl --context "kind-$CLUSTER" "$@"; }

kind get clusters | grep -qx "$CLUSTER" || kind create cluster --name "$CLUSTER" --wait 5m
kind load docker-image --name "$CLUSTER" "${TRITOWER_IMAGE_PREFIX:-tritower}/base:$tag" "${TRITOWER_IMAGE_PREFIX:-tritower}/train:$tag"
k apply -k "$KFP_MANIFESTS/cluster-scoped-resources?ref=$KFP"
k wait crd/applications.app.k8s.io --for condition=established --timeout 60s
k apply -k "$KFP_MANIFESTS/env/platform-agnostic?ref=$KFP"
k --namespace kubeflow patch configmap workflow-controller-configmap --patch-file manifests/kfp/retries/retry-what-was-killed.yaml
k --namespace kubeflow rollout restart deployment workflow-controller
k --namespace kubeflow wait deployment --all --for condition=available --timeout 20m
k apply -k manifests/overlays/kind

forward ml-pipeline 8888 8888
forward seaweedfs 9000 9000
export TRITOWER_IMAGE_TAG=$tag KF_PIPELINES_ENDPOINT=http://127.0.0.1:8888
export TRITOWER_S3_ENDPOINT=http://127.0.0.1:9000 AWS_ACCESS_KEY_ID=minio AWS_SECRET_ACCESS_KEY=minio123
python -m tritower.simulate --out "$LOG" --impressions 6000
for part in jobs.parquet users.parquet impressions; do
	python -c "import sys; from tritower import storage; storage.upload(sys.argv[1], sys.argv[2])" "$LOG/$part" "$STORE/$part"
done
python -m pipelines compile --all --out build/kind/pipelines
python -m pipelines publish build/kind/pipelines/kfp/training.yaml
python -m pipelines submit --wait --version "$tag" --preset quick \
	--data-jobs "$STORE/jobs.parquet" --data-impressions "$STORE/impressions" --data-users "$STORE/users.parquet"
echo "The web pages: kubectl --context kind-$CLUSTER --namespace kubeflow port-forward service/ml-pipeline-ui 8080:80"
