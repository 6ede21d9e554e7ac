"""The modules of the page's script: the document names each, no import is in a circle."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

from searcher.app import WEB

IMPORT = re.compile(r'^(?:import|export) [^;]*?from "\./([\w-]+\.js)";', re.MULTILINE)
PRELOAD = re.compile(r'<link rel="modulepreload" href="page/([\w-]+\.js)">')
SCRIPT = re.compile(r'<script src="page/([\w-]+\.js)"')
IMPORTS = {file.name: set(IMPORT.findall(file.read_text())) for file in WEB.glob("*.js")}


def test_no_module_imports_itself_through_others() -> None:
    assert len(list(TopologicalSorter(IMPORTS).static_order())) == len(IMPORTS)
    assert any(IMPORTS.values())


def test_the_document_names_every_module_once() -> None:
    document = (WEB / "index.html").read_text()
    assert sorted(SCRIPT.findall(document) + PRELOAD.findall(document)) == sorted(IMPORTS)
