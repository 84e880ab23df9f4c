"""Host stacks: what stands above the driver stack, and the operating system below them."""
