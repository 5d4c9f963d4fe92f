"""Bytes on disk: whole files, checksums, arrays, picture files."""
