"""``python -m readside`` is ``readside``."""

from readside.apps.cli import main

main()
