"""The commands of the app ``channels``."""
