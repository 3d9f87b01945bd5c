"""Comparisons with the alternatives that a user has, as ratios within one run.

A benchmark is a module with a docstring, whose first line is its title, and a function `run() -> Result`;
`benchmarks.__main__` lists them. Each runs alone as well: `python -m benchmarks calls listing`.
"""
