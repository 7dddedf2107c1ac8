"""Pictures, drawn from the files of a run folder. No torch."""
