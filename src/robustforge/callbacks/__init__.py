"""Lightning callbacks that people see."""
