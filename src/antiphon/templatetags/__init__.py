"""Template tags: ``{% load antiphon %}``."""
