"""The benchmarks of fastsinks. docs/benchmarks.md says how to run and read them."""
