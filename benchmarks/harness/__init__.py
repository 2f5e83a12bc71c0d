"""What every benchmark uses: processes, the load generator, contestants, records."""
