"""Path and query parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from searcher.search.requests import Name

ImageId = Annotated[str, Path(description="The id of an image, from a search result.")]
IndexName = Annotated[Name | None, Query(description="The index. Required if there are several.")]
FieldName = Annotated[str | None, Query(min_length=1, description="Only this metadata field.")]
RunName = Annotated[
    Name | None,
    Query(description="Only this run. Its responses never change, so clients may cache them. 410 after it is deleted."),
]
