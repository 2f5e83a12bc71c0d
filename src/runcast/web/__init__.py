"""HTTP and WebSocket: the outside face of the gateway."""
