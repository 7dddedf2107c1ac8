"""Entry points, thin: they compose, call the pipeline, and turn errors into exit codes."""
