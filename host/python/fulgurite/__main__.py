"""`python -m fulgurite`: what a report of an error should say about a machine."""
from . import info

print(info())
