"""Values and state machines: no await, no clock, no socket, no environment."""
