"""The targets of commands: this machine, a release of the chart in a cluster, or machines that SkyPilot rents."""

from __future__ import annotations

from collections.abc import Mapping

from controller.cli.options import TargetOptions
from controller.cli.targets.base import Target


def open_target(options: TargetOptions, env: Mapping[str, str]) -> Target:
    """The target that the options select. Raises UsageError where it does not exist.

    Only the modules of that target are imported: those of a cluster take half a second."""
    if options.backend == "sky":
        from controller.cli.targets.sky import SkyTarget

        return SkyTarget(options, env)
    if options.local or options.home is not None:
        from controller.cli.targets.local import LocalTarget

        return LocalTarget(options, env)
    from controller.cli.targets.release import ReleaseTarget

    return ReleaseTarget(options, env)
