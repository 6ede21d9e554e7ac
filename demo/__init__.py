"""The first minute with imgsearch: index some photos, search them, look at the page."""
