"""Images as the protocols' clients send them."""

from __future__ import annotations

import base64

from tests.searcher.library import picture


def image(colour: str = "red") -> dict[str, str]:
    """As Roboflow's requests have one."""
    return {"type": "base64", "value": base64.b64encode(picture(colour)).decode()}
