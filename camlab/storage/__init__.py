"""Files on disk: atomic writing, checksums, locks, arrays, picture files."""
