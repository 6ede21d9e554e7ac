"""A pod that looks at the release's storage volume, and breaks what a test wants broken."""

from __future__ import annotations

import base64
import json
from collections import defaultdict

from tests.cluster.load import pod
from tests.cluster.world import RELEASE, World

LIST = """
import json, pathlib
root = pathlib.Path("/storage/runs")
print(json.dumps({str(file.relative_to(root)): file.stat().st_mtime_ns for file in root.rglob("*") if file.is_file()}))
"""


class Inspector:
    """Sees the files of runs."""

    def __init__(self, world: World, image: str) -> None:
        self._world = world
        manifest = pod("inspector", image, ["sleep", "infinity"], labels={"app": "inspector"})
        manifest["spec"]["volumes"] = [
            {"name": "storage", "persistentVolumeClaim": {"claimName": f"{RELEASE}-storage"}}
        ]
        manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": "storage", "mountPath": "/storage"}]
        world.apply(manifest)
        world.kubectl("wait", "--for=condition=Ready", "pod/inspector", "--timeout=120s")

    def files(self, run: str) -> dict[str, int]:
        """Paths below the run's folder, with when they were written (ns)."""
        times = json.loads(self._world.python("inspector", LIST))
        return {name.removeprefix(f"{run}/"): time for name, time in times.items() if name.startswith(f"{run}/")}

    def parts(self, run: str) -> dict[str, int]:
        return {name: time for name, time in self.files(run).items() if "/part-" in name}

    def half_done(self, run: str) -> set[str]:
        """Shards with a part and without their done.json."""
        shards = defaultdict(set)
        for name in self.files(run):
            if name.startswith("shards/"):
                _, shard, file = name.split("/")
                shards[shard].add(file.split("-")[0])
        return {shard for shard, files in shards.items() if "part" in files and "done.json" not in files}

    def overwrite(self, name: str, content: bytes) -> bytes:
        """Replaces a file of the runs; returns what was in it."""
        script = (
            f"import base64, pathlib; file = pathlib.Path('/storage/runs') / {name!r}\n"
            f"print(base64.b64encode(file.read_bytes()).decode()); file.write_bytes({content!r})\n"
        )
        return base64.b64decode(self._world.python("inspector", script))
