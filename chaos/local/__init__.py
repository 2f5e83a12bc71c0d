"""A whole deployment on this machine, every part of which can be killed."""
