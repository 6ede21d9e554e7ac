"""Finds a cluster and its credentials: in a kubeconfig, or in the pod that this program runs in.

The `kubernetes` package does this, since it differs from cluster to cluster; requests go through api.py.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.request import proxy_bypass

import httpx
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from controller.backends.kubeconfig import DEFAULT_KUBECONFIG
from controller.backends.kubernetes.api import Api
from imgsearch.errors import UsageError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT = httpx.Timeout(30.0, connect=5.0)


def connect(*, kubeconfig: str | None, context: str | None, namespace: str | None) -> Api:
    """The cluster of a context of the kubeconfig, or the one of this pod. `namespace` None: that of the context.

    Raises UsageError where no cluster is configured."""
    configuration = kubernetes_client.Configuration()
    try:
        if not context and not kubeconfig and (SERVICE_ACCOUNT / "token").exists():
            kubernetes_config.load_incluster_config(client_configuration=configuration)
            default = (SERVICE_ACCOUNT / "namespace").read_text().strip()
        else:
            files = kubeconfig or DEFAULT_KUBECONFIG
            kubernetes_config.load_kube_config(files, context=context, client_configuration=configuration)
            contexts, active = kubernetes_config.list_kube_config_contexts(files)
            chosen = next((entry for entry in contexts if entry["name"] == context), active)
            default = chosen["context"].get("namespace", "default")
        trust = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            trust.load_cert_chain(configuration.cert_file, configuration.key_file)
    except Exception as error:  # the package raises many types of errors for an invalid file
        reason = " ".join(str(error).split())  # the message of a YAML parser has several lines
        raise UsageError(
            f"no cluster is configured ({reason}): set KUBECONFIG, give a --context, or use --local to work on this "
            "machine"
        ) from error
    if not configuration.verify_ssl:
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
    http = httpx.Client(
        base_url=configuration.host,
        verify=trust,
        timeout=TIMEOUT,
        proxy=_proxy(configuration),
        trust_env=False,  # the package reads HTTPS_PROXY, after the proxy-url of the kubeconfig
    )

    def authorization() -> str | None:
        header = configuration.auth_settings().get("BearerToken")
        return header["value"] if header else None

    return Api(http, namespace or default, address=configuration.host, authorization=authorization)


def _proxy(configuration: Any) -> str | None:
    """The proxy of the kubeconfig or of HTTPS_PROXY, unless NO_PROXY contains the cluster's host."""
    proxy: str | None = configuration.proxy
    return None if not proxy or proxy_bypass(httpx.URL(configuration.host).host) else proxy
