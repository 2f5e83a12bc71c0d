"""Breaks a deployment of runcast in every way it can, and looks whether anybody noticed."""
