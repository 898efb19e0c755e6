"""``readside demo``: the users service, from command to document, on real servers."""

from readside.apps.demo.show import show

__all__ = ["show"]
