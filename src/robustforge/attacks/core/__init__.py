"""What every attack needs: session, surface, geometry, survivors, restarts, targets."""
