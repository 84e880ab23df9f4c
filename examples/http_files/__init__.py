"""The parts of the HTTP file server: messages, the transfer under way, and one connection's session."""
