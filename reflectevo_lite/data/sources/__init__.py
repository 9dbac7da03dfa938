"""One page per set: where it comes from, a sample row, how a row becomes a Problem, how its splits are made.

`reflectevo_lite.problems` is the front door. The sample rows on these pages are invented.
"""
