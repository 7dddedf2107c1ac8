"""What every attack needs: session, surface, geometry, restarts, targets."""
