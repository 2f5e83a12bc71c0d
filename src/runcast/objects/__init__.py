"""Where large payloads and outputs are kept."""
