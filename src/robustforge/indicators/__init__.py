"""What the records say against a number: evidence, rules, verdict. No torch."""
