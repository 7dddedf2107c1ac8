"""Tables, figures and comparisons, computed from the files of a run folder and from nothing else.

No torch here: a report can be made on a laptop that could never have trained the model. Import from the modules
(``result``, ``tables``, ``sweep``, ``figures``); this file stays empty so that reading a result does not load
matplotlib.
"""
