"""Spreadsheets as rows of text: found by `book.xlsx#Sheet`, read in a process of their own."""
