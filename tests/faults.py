"""File operations that fail, for the tests of all that writes."""

from __future__ import annotations

import builtins
import io
import os


class Faults:
    """Lets file operations from the n-th on fail, only one or all."""

    def __init__(self, monkeypatch, first, error, lasting):
        self.calls, self.first, self.error, self.lasting = 0, first, error, lasting
        for name in ("open", "fsync", "replace", "unlink", "mkdir", "rmdir"):
            monkeypatch.setattr(os, name, self.faulty(getattr(os, name)))
        monkeypatch.setattr(builtins, "open", self.faulty(builtins.open))

    def faulty(self, operation):
        def run(*args, **kwargs):
            self.calls += 1
            if self.calls == self.first or (self.lasting and self.calls > self.first):
                raise self.error
            result = operation(*args, **kwargs)
            return _File(result, self) if operation is io.open else result

        return run


class _File:
    def __init__(self, file, faults):
        self.file, self.fileno, self.read = file, file.fileno, file.read
        self.write, self.flush = faults.faulty(file.write), faults.faulty(file.flush)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
