"""`keystep serve`: a local web application to look at videos, label them and learn from the labels.

Needs the extra ``serve``; nothing else in keystep imports this package, but for its command.
"""
