"""Data sets, tables and sound: read strictly, downloaded, synthesised."""
