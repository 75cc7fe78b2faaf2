"""Hostile inputs of every kind that strangers can hand over, and what the program does with them."""
