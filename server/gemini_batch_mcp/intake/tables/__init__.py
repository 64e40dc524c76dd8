"""Rows of named columns, read in a stream from files of every kind."""
