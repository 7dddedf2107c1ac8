"""Train, attack and honestly compare defenses against adversarial examples."""
