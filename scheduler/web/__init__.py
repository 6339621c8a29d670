"""The scheduler's page.

`words` says figures; `pieces`, `build_view` and `view` say what is shown; `pages` renders and
serves it. Templates, style sheet, script and mark lie beside the modules, so that they travel in a
wheel. Nothing on the page is from elsewhere, and it works without its script, which only keeps it
fresh.
"""
