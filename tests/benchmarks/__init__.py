"""The benchmarks run, ask for the right answers, and make of their figures what they say."""
