"""Decodes image files of strangers into RGB pixels, and makes thumbnails."""

from imgsearch.pictures.decoder import Decoder, Picture
from imgsearch.pictures.thumbnails import thumbnail

__all__ = ["Decoder", "Picture", "thumbnail"]
