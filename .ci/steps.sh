# For `.ci/run`: its steps with their minutes, and functions that several steps use.

steps=() begun=()

step() { # NAME: begins it, and ends the one before
  steps+=("$*") begun+=("$SECONDS")
  echo "$(date +%T) $*" >&2
}

print_minutes() { # of each step, and where it failed
  local status=$? ends=("${begun[@]:1}" "$SECONDS") i
  echo "minutes  step"
  for i in "${!steps[@]}"; do printf '%7s  %s\n' "$(minutes $((ends[i] - begun[i])))" "${steps[i]}"; done
  printf '%7s  all steps\n' "$(minutes "$SECONDS")"
  ((status == 0)) || echo "failed in the last of these steps"
}

minutes() { # SECONDS: with one decimal
  echo "$(($1 / 60)).$(($1 % 60 / 6))"
}

quietly() { # COMMAND…: prints its output only where it fails
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || { status=$? && cat "$log"; }
  rm "$log"
  return "$status"
}

need() { # PACKAGE…: installs those of Debian's packages that are missing
  local package missing=()
  for package; do dpkg --status "$package" >/dev/null 2>&1 || missing+=("$package"); done
  if ((${#missing[@]} == 0)); then return; fi
  if ((EUID)); then
    echo "not root, so these packages stay missing: ${missing[*]}" >&2
    return
  fi
  quietly apt-get update
  quietly apt-get install --yes --no-install-recommends "${missing[@]}"
}

apply_kinds() { # that the chart uses beside Kubernetes' own: those of the Gateway API and of the Prometheus operator
  local module
  for module in sigs.k8s.io/gateway-api@v1.3.0:config/crd/standard \
    github.com/prometheus-operator/prometheus-operator@v0.85.0:example/prometheus-operator-crd; do
    quietly kubectl apply --server-side --filename "$(go mod download -json "${module%:*}" | jq -r .Dir)/${module#*:}"
  done
}

begin_beside() { # COMMAND…: each in the background, one after the other, with their output in a file
  beside_log=$(mktemp)
  (for command; do $command; done) >"$beside_log" 2>&1 &
  beside=$!
}

end_beside() { # waits for them, and prints their output
  local status=0
  wait "$beside" || status=$?
  cat "$beside_log"
  return "$status"
}

cluster_images() { # without CUDA, on the nodes of the test cluster
  local image
  "$cluster" base-image localhost/python-without-cuda:1 constraints.txt
  build_images images image-chroma image-sky BASE=localhost/python-without-cuda:1
  for image in controller chroma searcher; do "$cluster" load "localhost/imgsearch-$image:0.1.0" cpu-1; done
  "$cluster" load localhost/imgsearch-embedder:0.1.0 cpu-1 gpu-1
  "$cluster" load localhost/imgsearch-sky:0.1.0 gpu-1
}

changed_real_images() { # if their Dockerfiles or their packages have changed
  local sources=(images/*/Dockerfile constraints.txt pyproject.toml)
  local built=$home/imgsearch-images.sha256 # the sources of the last build here; it lies beside buildah's images and goes with them
  if ! sha256sum "${sources[@]}" | cmp --silent - "$built"; then
    build_real_images
    sha256sum "${sources[@]}" >"$built"
  fi
}

build_images() { # TARGET… [NAME=VALUE…] of the Makefile, with the test cluster's own buildah
  # Layers of earlier commits speed builds up until they fill the disk.
  (($(df --output=avail --block-size=1G "$home" | tail -1) >= 20)) || "$cluster" buildah rmi --prune --force
  quietly make "$@" REGISTRY=localhost BUILDER="$cluster buildah" BUILD_FLAGS="--isolation chroot --network host"
}

build_real_images() { # and import all that their programs import
  local image
  "$cluster" base-image docker.io/library/python:3.11-slim-bookworm
  for image in controller embedder searcher; do # the last ones would fill the disk beside the new ones
    "$cluster" buildah rmi --force "localhost/imgsearch-$image:real" >/dev/null 2>&1 || true
  done
  build_images images TAG=real
  for image in embedder searcher; do import_torch "$image:real"; done
}

import_torch() { # IMAGE: with all that its program imports
  local container
  container=$("$cluster" buildah from "localhost/imgsearch-$1")
  "$cluster" buildah run --isolation chroot "$container" -- python -c "import torch, ${1%:*}.__main__"
  quietly "$cluster" buildah rm "$container"
}
