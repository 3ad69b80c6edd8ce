"""What fastsinks is measured by. docs/benchmarks.md says how to run and read it."""
