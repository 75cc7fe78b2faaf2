"""Layouts of public corpora: what a person's motion and voice are in each, read as files of strangers are."""
