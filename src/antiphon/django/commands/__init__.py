"""Antiphon's management commands; ``antiphon/management/commands`` holds the doors that Django finds them by."""
