"""One adapter per engine, all behind the same job-file, answer-line protocol (see protocol.py)."""
