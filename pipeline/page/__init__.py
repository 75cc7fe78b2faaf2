"""Pages that open by double click: `base` writes them, each other module fills one; `templates` and `static` are parts.

Nothing in a page runs but the scripts of `static`. What data says is text: templates escape it, scripts get it as JSON
and set it by `textContent`.
"""
