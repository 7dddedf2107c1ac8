"""Printed numbers, table specifications, look-up, comparison, rendering. No torch."""
