"""Antiphon's Django side: the one folder (with the doors) that imports Django. Nothing below it may import this one."""
