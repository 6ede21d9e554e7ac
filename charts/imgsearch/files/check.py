"""What `helm test` asks the searcher, from inside the cluster: is it ready, and what does it serve?

Runs in the searcher's image with the standard library only. SEARCHER_URL says where. A searcher that wants an API key
tells no more than that it is ready: nobody gave this program a key.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

PATIENCE_SECONDS = 60
"""So long a pod may take to become ready, or a NetworkPolicy to know this one."""


def ask(path: str) -> tuple[int, Any]:
    """Status and JSON of the answer; raises OSError where there is none."""
    try:
        with urllib.request.urlopen(os.environ["SEARCHER_URL"] + path, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def wait_until_ready() -> Any:
    """What /readyz says once it is content; ends the program where it stays discontented."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            status, said = ask("/readyz")
            if status == 200:
                return said
            reason = f"it answers {status}: {said.get('detail', said)}"
        except (OSError, ValueError) as error:
            reason = f"it does not answer: {error}"
        if time.monotonic() > end:
            sys.exit(f"the searcher at {os.environ['SEARCHER_URL']} is not ready: {reason}")
        time.sleep(1)


def main() -> None:
    print("ready:", json.dumps(wait_until_ready()))
    status, said = ask("/v1/indexes")
    if status == 401:
        print("it wants an API key, and lets nobody in without")
        return
    if status != 200:
        sys.exit(f"/v1/indexes answers {status}: {said}")
    print("indexes:", json.dumps(said))
    for index in said["indexes"]:
        print(f"index {index['index']}: run {index['run']}, {index['images']} images")


if __name__ == "__main__":
    main()
