"""The only place, with ``cli``, that knows Hydra: locating, composing and instantiating configs, sweeps, run folders."""
