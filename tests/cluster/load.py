"""Clients that search in a loop from inside the cluster, through the Service, as an application does."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.world import RELEASE, World, wait_until

SCRIPT = """
import itertools, json, socket, sys, threading, time, urllib.error, urllib.parse, urllib.request
url, key, clients, cached = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "cached"
pause = float(sys.argv[5])
numbers = itertools.count()

def search():
    while True:
        text = "a cat" if cached else f"a photo of thing {next(numbers)}"
        request = urllib.request.Request(
            url + "/v1/search", json.dumps({"text": text, "k": 5, "index": "photos"}).encode(),
            {"Content-Type": "application/json", **({"Authorization": "Bearer " + key} if key else {})},
        )
        start = time.time()
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                body = json.load(answer)
            told = {"status": 200, "run": body["run"], "hits": len(body["results"])}
        except urllib.error.HTTPError as error:
            told = {"status": error.code, "said": error.read().decode()[:300]}
        except Exception as error:
            told = {"status": 0, "said": repr(error)}
        # In one piece: the threads share the log.
        sys.stdout.write(json.dumps({**told, "seconds": round(time.time() - start, 3)}) + "\\n")
        sys.stdout.flush()
        time.sleep(pause)

given_up = time.monotonic() + 90  # a network plugin takes a while to let a new pod out
while True:
    try:
        socket.create_connection((urllib.parse.urlsplit(url).hostname, 80), timeout=5).close()
        break
    except OSError:
        if time.monotonic() > given_up:
            raise
        time.sleep(0.5)
for _ in range(clients):
    threading.Thread(target=search).start()
"""


class Load:
    """A pod that searches the index `photos` while the block runs. Each line of its log is one answer."""

    def __init__(
        self, world: World, image: str, *, clients: int = 1, cached: bool = True, key: str = "", pause: float = 0
    ) -> None:
        """`pause`: seconds between two searches of a client."""
        self._world = world
        self._name = f"load-{clients}"
        command = ["python", "-c", SCRIPT, f"http://{RELEASE}-searcher", key, str(clients)]
        command += ["cached" if cached else "", str(pause)]
        self._pod = pod(self._name, image, command, labels={"app": "load"})

    def __enter__(self) -> Load:
        self._world.apply(EGRESS, self._pod)
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._world.kubectl("delete", "pod", self._name, "--wait=true", check=False)

    def responses(self) -> list[dict[str, Any]]:
        """What was answered so far."""
        return [
            json.loads(line)
            for line in self._world.kubectl("logs", self._name, check=False).splitlines()
            if line[:1] == "{"
        ]

    def failures(self) -> list[dict[str, Any]]:
        return [response for response in self.responses() if response["status"] != 200 or not response["hits"]]

    def wait_for_more(self, count: int = 20) -> None:
        """Waits until that many more have been answered."""
        count_before = len(self.responses())
        wait_until(lambda: len(self.responses()) >= count_before + count, f"{count} more answers", seconds=180)


def pod(name: str, image: str, command: list[str], *, labels: dict[str, str]) -> dict[str, Any]:
    """A pod that the `restricted` standard lets in."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
        },
    }


EGRESS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "load"},
    "spec": {"podSelector": {"matchLabels": {"app": "load"}}, "policyTypes": ["Egress"], "egress": [{}]},
}
