"""The Python face: what a notebook or a script calls. Arguments -> api -> records that show themselves; no decisions.

Keyword arguments are called as the options of the command line, with underscores."""

from rankwise.python import display

display.register()
