"""Tests of the commands, run as subprocesses in temporary folders, and of the loader's parts."""
