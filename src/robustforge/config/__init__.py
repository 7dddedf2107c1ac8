"""The only layer, with ``cli``, that knows Hydra: locating and instantiating configs, sweeps, run folders."""
