"""Backdoor detectors: one file each, one public entry each, one result type."""
