"""The targets of commands: this machine, a release of the chart in a cluster, or machines that SkyPilot rents."""
