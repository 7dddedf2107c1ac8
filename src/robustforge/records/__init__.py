"""One record per (sample, attack, surface): write, read, worst case, statistics. No torch."""
